"""What made a result: versions, host, ranks, command, commit, time."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import h5py
import numpy as np

from anyrank.world import World, mpi_versions


@cache
def versions() -> dict[str, str]:
    """The versions of Python, anyrank and the libraries that take part in every run, by name."""
    mpi = mpi_versions()
    return {
        "python": platform.python_version(),
        "anyrank": anyrank_version(),
        "numpy": np.__version__,
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
        "mpi4py": mpi["mpi4py"],
        "mpi": mpi["library"],
    }


def anyrank_version() -> str:
    """The version of anyrank, `unknown` where it runs without having been installed."""
    try:
        return version("anyrank")
    except PackageNotFoundError:
        return "unknown"


def provenance(world: World, command: str) -> dict[str, str | int]:
    """What tells how a file came to be: versions, this rank's host, ranks, command, commits, UTC time.

    `commit` is the git commit checked out around the working directory, `anyrank_commit` that around
    anyrank's source; each is missing where there is none.
    """
    commits = {"commit": commit(Path.cwd()), "anyrank_commit": commit(Path(__file__))}
    return {
        **versions(),
        "host": platform.node(),
        "ranks": world.size,
        "command": command,
        **{name: found for name, found in commits.items() if found},
        "utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def commit(inside: Path) -> str:
    """The commit of the git checkout around a path, an empty string where there is none.

    Read from git's files: starting git would fork a process with MPI in it.
    """
    for folder in (inside, *inside.parents):
        git = folder / ".git"
        try:
            if git.is_file():  # a worktree or a submodule: "gitdir: FOLDER"
                git = folder / git.read_text().partition(": ")[2].strip()
            if git.is_dir():
                return _head(git)
        except OSError:
            return ""
    return ""


def _head(git: Path) -> str:
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return head
    name = head[5:]
    shared = git / "commondir"
    places = [git, git / shared.read_text().strip()] if shared.exists() else [git]
    for place in places:
        if (place / name).exists():
            return (place / name).read_text().strip()
        packed = place / "packed-refs"
        lines = packed.read_text().splitlines() if packed.exists() else []
        for line in lines:
            if line.endswith(f" {name}"):
                return line.split()[0]
    return ""
