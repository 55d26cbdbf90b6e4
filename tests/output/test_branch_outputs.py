"""Series and frames of a branch: they begin at its first step, with the same bytes however it was stopped."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import pytest
from ranks import run_anyrank

PROGRAM = """
import numpy as np
from anyrank import Program, exact, param

class Decay(Program):
    n: int = param(6, "cells")
    rate: float = param(0.5, "factor")
    steps: int = param(20, "steps")

    def declare(self, state):
        state.grid((self.n, 4), dims=("y", "x")).field("T", unit="K")

    def setup(self, state):
        y, x = state.T.indices
        state.T[...] = np.float64(y + 10 * x)

    def step(self, state):
        state.T[...] = state.T[...] * self.rate + 1

    def observe(self, state):
        return {"sum": exact.sum(state.T)}
"""
FRAMES = ("--frames", "T,mean(T, step)", "--frames-every", 4, "--observe-every", 3)
OUTPUTS = ("series.csv", "series.h5", "frames.nc")


def run(*words: object, status: int = 0, ranks: int = 1) -> None:
    done = run_anyrank(*words, ranks=ranks)
    assert done.returncode == status, done.stderr


@pytest.fixture(scope="module")
def branches(tmp_path_factory) -> dict[str, Path]:
    """A branch at step 10 that was not stopped, and one that was stopped, resumed on other ranks and extended."""
    folder = tmp_path_factory.mktemp("branches")
    (folder / "decay.py").write_text(PROGRAM)
    run("run", folder / "decay.py", *FRAMES, "--checkpoint-every", 5, "--keep", 9, "--out", folder / "origin")
    branch = ("run", folder / "decay.py", "--from", f"{folder / 'origin'}@10", "--rate", 0.25, *FRAMES)
    run(*branch, "--steps", 26, "--out", folder / "whole")
    run(*branch, "--steps", 22, "--stop-at", 11, "--out", folder / "parts", status=75, ranks=2)
    run("resume", folder / "parts", "--stop-at", 17, status=75)
    run("resume", folder / "parts", "--stop-at", 19, status=75, ranks=3)
    run("resume", folder / "parts", ranks=2)
    run("resume", folder / "parts", "--steps", 26, ranks=2)
    return {name: folder / name for name in ("whole", "parts")}


@pytest.mark.parametrize("name", OUTPUTS)
def test_branch_outputs_have_the_bytes_of_an_unbroken_branch(branches, name):
    whole, parts = (branches[run].joinpath(name).read_bytes() for run in ("whole", "parts"))
    assert whole == parts and len(whole) > 20


def test_branch_outputs_begin_at_the_step_of_the_checkpoint(branches):
    with (branches["whole"] / "series.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [12, 15, 18, 21, 24, 26]
    with h5py.File(branches["whole"] / "frames.nc") as file:
        assert file["step"][()].tolist() == [12, 16, 20, 24, 26]


def test_branch_outputs_of_a_resume_have_no_warnings(branches):
    assert "output-warning" not in (branches["parts"] / "events.jsonl").read_text()
