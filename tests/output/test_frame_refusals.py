"""Options of frames that are refused with status 2, before any work."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import h5py
import pytest
from ranks import run_anyrank

PROGRAM = Path(__file__).with_name("plate.py")
TABLE = """
from anyrank import Program
from anyrank.keyed.table import Table

class Words(Program):
    def declare(self, state):
        state.add(Table("words", state.world, {"word": "text"}))
        state.scalar("hits", 0)

    def step(self, state):
        raise RuntimeError("work has begun")
"""


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--frames", "t"), ["no field 't'", "Did you mean"]),
        (("--frames", "temperature"), ["no field 'temperature'", "T, v, w"]),
        (("--frames", "hits"), ["hits is a Scalar", "Fields"]),
        (("--frames", "T[z=1]"), ["no axis 'z'", "y, x"]),
        (("--frames", "T[y=13]"), ["y=13", "0 to 12"]),
        (("--frames", "T[y=-14]"), ["y=-14", "-13"]),
        (("--frames", "T[y=5:20]"), ["y=5:20", "0:13"]),
        (("--frames", "T[y=5:5]"), ["y=5:5", "not empty"]),
        (("--frames", "T[y=0:5:0]"), ["y=0:5:0", "step of at least 1"]),
        (("--frames", "T[y]"), ["'y' is no index or range"]),
        (("--frames", "T[y=1,y=2]"), ["one more axis"]),
        (("--frames", "T,,v"), ["'', which is no output"]),
        (("--frames", "max(T)"), ["max(T)", "mean(T)"]),
        (("--frames", "mean(T, z)"), ["no axis 'z'"]),
        (("--frames", "mean(T, x, x)"), ["averaged twice"]),
        (("--frames", "mean(T[x=1], x)"), ["only one index"]),
        (("--frames", "u[component=2]"), ["component=2", "0 to 1"]),
        (("--frames", "T,v,T"), ["T twice"]),
        (("--frames-every", "0"), ["--frames-every 0", "at least 1"]),
        (("--frames-stride", "0"), ["--frames-stride 0", "at least 1"]),
        (("--frames-type", "float31"), ["--frames-type", "float32"]),
        (("--frames", "count", "--frames-type", "float32"), ["count", "int64", "cannot hold every value"]),
        (("--frames-compression", "zip"), ["--frames-compression", "zlib"]),
        (("--on-full-disk", "wait"), ["--on-full-disk", "warn"]),
    ],
)
def test_frames_option_is_refused_before_any_work(tmp_path, words, parts):
    out = tmp_path / "run"
    every = () if "--frames-every" in words else ("--frames-every", 5)
    done = run_anyrank("run", f"{PROGRAM}:Plate", *every, *words, "--out", out)
    assert done.returncode == 2 and not out.exists(), done.stderr
    assert all(part in done.stderr for part in parts), done.stderr
    assert "Traceback" not in done.stderr


def test_frames_option_is_refused_once_on_several_ranks(tmp_path):
    done = run_anyrank("run", f"{PROGRAM}:Plate", "--frames", "t", "--frames-every", 1, "--out", tmp_path, ranks=3)
    assert done.returncode == 2 and done.stderr.count("no field 't'") == 1, done.stderr


def test_frames_without_an_interval_are_refused(tmp_path):
    done = run_anyrank("run", f"{PROGRAM}:Plate", "--frames", "T", "--out", tmp_path / "run")
    assert done.returncode == 2 and "Add --frames-every" in done.stderr


def test_frames_of_a_table_are_refused(tmp_path):
    (tmp_path / "words.py").write_text(TABLE)
    words = ("run", tmp_path / "words.py", "--out", tmp_path / "run", "--frames-every", 1)
    done = run_anyrank(*words, "--frames", "words")
    assert done.returncode == 2 and "words is a Table" in done.stderr, done.stderr
    done = run_anyrank(*words)
    assert done.returncode == 2 and "no field is written" in done.stderr, done.stderr


@pytest.fixture
def stopped(tmp_path) -> Path:
    out = tmp_path / "run"
    words = ("--frames", "T,v", "--frames-every", 5, "--stop-at", 12, "--out", out, "--quiet")
    assert run_anyrank("run", f"{PROGRAM}:Plate", *words).returncode == 75
    return out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--frames", "T"), ["has frames of T, v", "cannot change"]),
        (("--frames-type", "float32"), ["has frames of T, v", "types"]),
        (("--frames-stride", "2"), ["has frames of T, v", "parts"]),
        (("--frames-every", "10"), ["every 5th step", "cannot change", "--frames-every 5"]),
    ],
)
def test_frames_of_a_resumed_run_cannot_change(stopped, words, parts):
    before = (stopped / "frames.nc").read_bytes()
    done = run_anyrank("resume", stopped, *words, ranks=2)
    assert done.returncode == 2 and all(part in done.stderr for part in parts), done.stderr
    assert (stopped / "frames.nc").read_bytes() == before
    assert run_anyrank("resume", stopped, "--quiet").returncode == 0


def test_frames_of_another_run_are_refused_and_stay(stopped, tmp_path):
    other = tmp_path / "other"
    words = ("--frames", "T,v", "--frames-every", 5, "--n", 12, "--out", other, "--quiet")
    assert run_anyrank("run", f"{PROGRAM}:Plate", *words).returncode == 0
    shutil.copy(other / "frames.nc", stopped / "frames.nc")
    done = run_anyrank("resume", stopped, ranks=2)
    assert done.returncode == 2 and "is no output of this run" in done.stderr, done.stderr
    assert (stopped / "frames.nc").read_bytes() == (other / "frames.nc").read_bytes()


@pytest.mark.parametrize("damage", ["text", "folder", "plain HDF5"])
def test_frames_that_cannot_be_read_are_refused(stopped, damage):
    path = stopped / "frames.nc"
    path.unlink()
    if damage == "text":
        path.write_text("no HDF5")
    elif damage == "folder":
        path.mkdir()
    else:
        with h5py.File(path, "w") as file:
            file["step"] = 1
    done = run_anyrank("resume", stopped)
    assert done.returncode == 2 and "frames.nc cannot be read" in done.stderr and path.exists(), done.stderr


def test_frames_in_a_folder_without_a_run_are_refused(stopped, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(stopped / "frames.nc", other)
    done = run_anyrank("run", f"{PROGRAM}:Plate", "--frames", "T", "--frames-every", 5, "--out", other)
    assert done.returncode == 2 and "holds frames.nc and no run" in done.stderr


def test_frames_in_a_read_only_folder_are_refused(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs permission to mount")
    try:
        done = run_anyrank("run", f"{PROGRAM}:Plate", "--frames", "T", "--frames-every", 5, "--out", disk / "run")
        assert done.returncode == 2 and "cannot be written" in done.stderr, done.stderr
    finally:
        subprocess.run(["umount", disk], check=True)
