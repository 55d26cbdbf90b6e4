"""A disk that is full while frames are written: all ranks stop, or the frames end with one warning."""

from __future__ import annotations

import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from output.plate import values_of
from ranks import run_anyrank

PROGRAM = Path(__file__).with_name("plate.py")
#: One rank alone has no space for the frame of step 14; and later it has, unless the file `full` stays.
FULL = f"""
import errno, os, runpy, sys
from pathlib import Path
sys.path.insert(0, {str(PROGRAM.parent)!r})
import plate
from anyrank.output import frame_staging

class Full(plate.Plate):
    def step(self, state):
        super().step(state)
        if state.step == 13 and state.world.rank == state.world.size - 1 and Path(__file__).with_name("full").exists():
            def refuse(*_):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            frame_staging.write_all = refuse
"""


@pytest.fixture
def program(tmp_path) -> Path:
    (tmp_path / "full").write_text("")
    path = tmp_path / "full.py"
    path.write_text(FULL)
    return Path(f"{path}:Full")


OPTIONS = ("--frames", "T,v", "--frames-every", 2, "--checkpoint-every", 5)


@pytest.mark.parametrize("ranks", [1, 3])
def test_frames_on_a_full_disk_stop_the_run_and_lose_nothing(tmp_path, program, ranks):
    out = tmp_path / "run"
    done = run_anyrank("run", program, *OPTIONS, "--out", out, ranks=ranks)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("No space left on device") == 1 and "Traceback" not in done.stderr, done.stderr
    assert "frames.nc" in done.stderr and "--on-full-disk warn" in done.stderr and f"rank {ranks - 1}" in done.stderr
    with h5py.File(out / "frames.nc") as file:
        assert [step for step in file["step"][...] if step >= 0] == [0, 2, 4, 6, 8, 10, 12]
    (tmp_path / "full").unlink()
    assert run_anyrank("resume", out, "--quiet", ranks=2).returncode == 0
    assert run_anyrank("run", program, *OPTIONS, "--out", tmp_path / "one", "--quiet").returncode == 0
    assert (out / "frames.nc").read_bytes() == (tmp_path / "one" / "frames.nc").read_bytes()


@pytest.mark.parametrize("ranks", [1, 3])
def test_frames_on_a_full_disk_end_with_one_warning(tmp_path, program, ranks):
    out = tmp_path / "run"
    done = run_anyrank("run", program, *OPTIONS, "--on-full-disk", "warn", "--out", out, ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("No space left on device") == 1, done.stdout + done.stderr
    assert "The frames end here; the run goes on" in done.stdout + done.stderr
    with h5py.File(out / "frames.nc") as file:
        assert file["step"][...].tolist() == [0, 2, 4, 6, 8, 10, 12]
        assert np.array_equal(file["T"][6], values_of("T", (13, 17), np.float64, 12))


def test_frames_on_a_disk_that_is_really_full_stop_the_run(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs permission to mount")
    try:
        words = ("run", f"{PROGRAM}:Plate", "--n", 60, "--frames", "T", "--frames-every", 1, "--steps", 60)
        done = run_anyrank(*words, "--checkpoint-every", "off", "--out", disk / "run", ranks=2)
        assert done.returncode == 1 and done.stderr.count("No space left on device") == 1, done.stderr
        with h5py.File(disk / "run" / "frames.nc") as file:
            steps = [step for step in file["step"][...].tolist() if step >= 0]
            assert len(steps) > 5 and steps == [*range(len(steps))]
            for slot, step in enumerate(steps):
                assert np.array_equal(file["T"][slot], values_of("T", (60, 64), np.float64, step))
    finally:
        subprocess.run(["umount", disk], check=True)
