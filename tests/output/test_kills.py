"""Outputs of runs that are killed at random instants: every row stands once."""

from __future__ import annotations

from pathlib import Path

import pytest
from output.kills import kill_and_resume
from ranks import run_anyrank

PROGRAM = f"{Path(__file__).with_name('observing.py')}:Observing"


@pytest.mark.parametrize(
    ("kills", "steps", "until"),
    [
        (5, 400, 0),
        (4, 0, 3000.0),  # the number of steps is not known
        pytest.param(50, 3000, 0, marks=pytest.mark.slow),
    ],
)
def test_series_of_a_killed_run_is_that_of_an_unbroken_one(tmp_path, kills, steps, until):
    first = ("run", PROGRAM, "--steps", steps, "--until", until, "--pause", 0.008)
    assert run_anyrank(*first[:6], "--out", tmp_path / "one", "--quiet").returncode == 0
    assert kill_and_resume(tmp_path / "run", first, kills, kills, "--checkpoint-every", 30) == kills
    for name in ("series.csv", "series.h5", "result.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
