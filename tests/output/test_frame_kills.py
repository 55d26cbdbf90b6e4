"""Frames of runs that are killed at random instants, and resumed on other ranks until they are finished."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest
from output.kills import kill_and_resume
from ranks import run_anyrank

PROGRAM = Path(__file__).with_name("plate.py")


@pytest.mark.parametrize(
    ("program", "kills", "steps", "options"),
    [
        ("Plate", 5, 300, ("--frames-every", 3)),
        ("Open", 4, 250, ("--frames-every", 1, "--frames-compression", "zlib")),
        pytest.param("Plate", 50, 2500, ("--frames-every", 2), marks=pytest.mark.slow),
    ],
)
def test_frames_of_a_killed_run_are_those_of_an_unbroken_one(tmp_path, program, kills, steps, options):
    first = ("run", f"{PROGRAM}:{program}", "--frames", "T,v,wave,mean(T, x),u[component=0],mean(T, step)", *options)
    first += ("--n", 40, "--steps", steps, "--slowly", 0.01)
    out, one = tmp_path / "run", tmp_path / "one"
    assert run_anyrank(*first, "--out", one, "--quiet", timeout=600).returncode == 0
    hit = kill_and_resume(out, first, kills, kills, "--checkpoint-every", 16, output="frames.nc")
    assert hit == kills
    assert (out / "frames.nc").read_bytes() == (one / "frames.nc").read_bytes()
    with h5py.File(out / "frames.nc") as file:
        assert sorted(file["step"][...].tolist()) == sorted({*range(0, steps + 1, options[1]), steps})
    assert not [path.name for path in out.iterdir() if path.name.endswith(".tmp")]
