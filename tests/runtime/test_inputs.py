"""Input files: a run continues only with the files that it began with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from ranks import run_anyrank

from anyrank.errors import UsageError
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.inputs import check_inputs, record_inputs
from anyrank.runtime.programs import load
from anyrank.toml import read_toml

MESHED = Path(__file__).with_name("meshed.py")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with two input files, the current one."""
    np.save(tmp_path / "mesh.npy", np.arange(12.0))
    (tmp_path / "notes.txt").write_text("notes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def meshed(**values):
    return load(str(MESHED))(**{"mesh": "mesh.npy", **values})


@pytest.mark.parametrize("ranks", [1, 2])
def test_resume_with_changed_input_is_refused_once(folder, ranks):
    words = ("--mesh", "mesh.npy", "--title", "notes.txt", "--out", "run", "--stop-at", 3)
    assert run_anyrank("run", MESHED, *words, ranks=ranks).returncode == 75
    assert read_toml(folder / "run/run.toml")["parameters"]["mesh"] == str(folder / "mesh.npy")
    old = sha256(folder / "mesh.npy")
    assert json.loads((folder / "run/inputs.json").read_text()) == {str(folder / "mesh.npy"): old}
    content = (folder / "mesh.npy").read_bytes()
    np.save(folder / "mesh.npy", np.arange(12.0) + 1)
    done = run_anyrank("resume", folder / "run", ranks=ranks, cwd="/")
    message = (
        f"--mesh {folder}/mesh.npy has changed since the run began: its SHA-256 was {old} and is "
        f"{sha256(folder / 'mesh.npy')}. Give the original file, or start a new run with another --out."
    )
    assert done.returncode == 2 and " ".join(done.stderr.split()).count(message) == 1, done.stderr
    (folder / "mesh.npy").write_bytes(content)
    (folder / "notes.txt").write_text("other notes")  # a str is a text, whatever it names
    done = run_anyrank("resume", folder / "run", "--stop-at", 9, ranks=ranks, cwd="/")
    assert done.returncode == 0, done.stderr
    (folder / "mesh.npy").unlink()
    assert run_anyrank("resume", folder / "run", ranks=ranks).returncode == 0, "a finished run only shows its result"


def test_inputs_gone_file_is_refused(folder):
    run = RunFolder(folder)
    record_inputs(meshed(), run)
    check_inputs(meshed(), run)
    old = sha256(folder / "mesh.npy")
    (folder / "mesh.npy").unlink()
    with pytest.raises(UsageError, match=rf"mesh\.npy is gone since .* was {old} and is missing\. Give the original"):
        check_inputs(meshed(), run)


def test_inputs_each_file_of_a_list_is_recorded(folder):
    run, program = RunFolder(folder), meshed(others=["notes.txt", "later.txt", str(folder)])
    record_inputs(program, run)
    assert {*json.loads(run.inputs.read_text())} == {str(folder / "mesh.npy"), str(folder / "notes.txt")}
    (folder / "later.txt").write_text("a file that the run writes")
    record_inputs(program, run)
    check_inputs(program, run)
    (folder / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"--others .*notes\.txt has changed"):
        check_inputs(program, run)


def test_inputs_without_paths_write_no_file(folder):
    run, program = RunFolder(folder), load("pi")(points=10)
    record_inputs(program, run)
    check_inputs(program, run)
    assert not run.inputs.exists()


def test_inputs_damaged_record_is_refused(folder):
    run = RunFolder(folder)
    run.inputs.write_text("{")
    with pytest.raises(UsageError, match=r"inputs\.json cannot be read .* Repair it, or use another --out"):
        check_inputs(meshed(), run)


def test_inputs_file_that_cannot_be_read_is_refused(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("anyrank.runtime.inputs.file_hash", refuse)
    with pytest.raises(UsageError, match=r"--mesh .*mesh\.npy cannot be read \(Permission denied\)\. Give a readable"):
        record_inputs(meshed(), RunFolder(folder))
