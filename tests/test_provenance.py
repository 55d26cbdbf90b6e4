from __future__ import annotations

import subprocess

import numpy as np

from anyrank.provenance import commit, provenance, versions
from anyrank.world import World


def git(folder, *arguments) -> str:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_what_git_says(tmp_path):
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    assert commit(source) == ""
    git(source, "init", "-q", "-b", "main")
    assert commit(source) == "", "nothing is committed yet"
    for message in ("one", "two"):
        git(source, "commit", "-q", "--allow-empty", "-m", message)
        assert commit(source / "deep" / "er") == git(source, "rev-parse", "HEAD")
    git(source, "pack-refs", "--all")
    assert commit(source) == git(source, "rev-parse", "HEAD")
    git(source, "worktree", "add", "-q", str(tmp_path / "tree"), "-b", "side")
    git(tmp_path / "tree", "commit", "-q", "--allow-empty", "-m", "three")
    assert commit(tmp_path / "tree") == git(tmp_path / "tree", "rev-parse", "HEAD") != commit(source)
    git(source, "checkout", "-q", "--detach", "HEAD~1")
    assert commit(source) == git(source, "rev-parse", "HEAD")


def test_versions_and_provenance_are_plain_values():
    made = provenance(World(), "anyrank run pi")
    assert versions()["numpy"] == np.__version__ and versions().items() <= made.items()
    assert made["command"] == "anyrank run pi" and made["ranks"] == 1
    assert all(isinstance(value, str | int) for value in made.values())
