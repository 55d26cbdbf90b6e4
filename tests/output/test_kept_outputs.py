"""Outputs of runs whose files were damaged, moved or replaced, and of runs that are extended in other ways."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ranks import run_anyrank

import anyrank
from anyrank.runtime.programs import load

PROGRAM = """
from anyrank import Program, exact, param

class Growth(Program):
    limit: int = param(20, "last value", extendable=True)

    def declare(self, state):
        state.grid((6, 4), dims=("y", "x")).field("T", unit="K")
        state.scalar("time", 0)

    def step(self, state):
        state.T[...] = state.T[...] * 0.5 + state.step
        state.time += 1

    def done(self, state):
        return state.time >= self.limit

    def observe(self, state):
        return {"sum": exact.sum(state.T)}
"""
FRAMES = ("--frames", "T,mean(T, step)", "--frames-every", 10)


def run(*words: object, status: int = 0, ranks: int = 1) -> str:
    done = run_anyrank(*words, ranks=ranks, timeout=60)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def program(tmp_path) -> Path:
    (tmp_path / "growth.py").write_text(PROGRAM)
    return tmp_path / "growth.py"


def test_kept_outputs_after_a_damaged_checkpoint_are_the_same(program, tmp_path):
    out = tmp_path / "run"
    run("run", program, *FRAMES, "--checkpoint-every", 7, "--out", out)
    before = {name: (out / name).read_bytes() for name in ("frames.nc", "series.csv", "series.h5")}
    (out / "checkpoints" / "step-000000000020.h5").write_bytes(b"damaged")
    (out / "summary.json").unlink()
    assert "lacks" not in run("resume", out, ranks=2)
    assert {name: (out / name).read_bytes() for name in before} == before


def test_kept_outputs_extend_by_a_parameter_of_any_name(program, tmp_path):
    run("run", program, *FRAMES, "--limit", 35, "--out", tmp_path / "whole")
    run("run", program, *FRAMES, "--limit", 23, "--out", tmp_path / "parts")
    run("resume", tmp_path / "parts", "--limit", 35, ranks=2)
    for name in ("frames.nc", "series.csv", "series.h5"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name


def test_kept_frames_options_need_not_be_given_again(program, tmp_path):
    """Neither to `anyrank run` of the same run, nor to `anyrank.run` that extends it."""
    run("run", program, *FRAMES, "--limit", 35, "--out", tmp_path / "whole")
    run("run", program, *FRAMES, "--limit", 25, "--stop-at", 13, "--out", tmp_path / "parts", status=75)
    run("run", program, "--limit", 25, "--out", tmp_path / "parts", ranks=2)
    anyrank.run(load(str(program))(limit=35), out=tmp_path / "parts", extend=True)
    assert (tmp_path / "whole" / "frames.nc").read_bytes() == (tmp_path / "parts" / "frames.nc").read_bytes()


def test_kept_sums_of_another_interval_are_not_used(program, tmp_path):
    out = tmp_path / "run"
    run("run", program, *FRAMES, "--stop-at", 15, "--out", out, status=75)
    (out / "frames.nc").unlink()
    assert "lacks the sums of the steps from 1 to 15" in run("resume", out, *FRAMES[:3], 20)


def test_kept_folder_is_unchanged_by_a_refused_resume(program, tmp_path):
    out = tmp_path / "run"
    run("run", program, *FRAMES, "--stop-at", 15, "--out", out, status=75)
    (out / "run.toml").unlink()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "lock"}
    run("resume", out, "--frames", "T", "--frames-every", 10, status=2)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "lock"}
    run("resume", out, *FRAMES)
    assert "mean(T, step)" in (out / "run.toml").read_text()


def test_kept_interval_of_a_longer_run_may_be_that_of_the_rows(tmp_path):
    source = PROGRAM.replace("limit: int = param(20", "steps: int = param(20").replace("self.limit", "self.steps")
    source = source.replace("    def done(self, state):\n        return state.time >= self.steps\n", "")
    (tmp_path / "growth.py").write_text(source)
    out, whole = tmp_path / "run", tmp_path / "whole"
    run("run", tmp_path / "growth.py", "--steps", 200, "--out", out)  # every second step by default
    run("resume", out, "--steps", 300, "--observe-every", 2)
    run("run", tmp_path / "growth.py", "--steps", 300, "--observe-every", 2, "--out", whole)
    assert (out / "series.csv").read_bytes() == (whole / "series.csv").read_bytes()


@pytest.mark.parametrize("name", ["frames.nc", "series.csv"])
def test_kept_output_that_is_a_fifo_is_refused(program, tmp_path, name):
    out = tmp_path / "run"
    run("run", program, *FRAMES, "--stop-at", 15, "--out", out, status=75)
    (out / name).unlink()
    os.mkfifo(out / name)
    assert "not a file" in run("resume", out, status=2)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--frames", "T", "--frames-every", 2**63), "--frames-every"),
        (("--frames", "T[x=\u0663]", "--frames-every", 2), "T[x="),
        (("--from", ""), "must be the folder of a run, or RUN@STEP"),
    ],
)
def test_kept_nothing_of_a_refused_run(program, tmp_path, words, text):
    assert text in run("run", program, *words, "--out", tmp_path / "run", status=2)
    assert not (tmp_path / "run").exists()
