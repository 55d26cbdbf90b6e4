"""π: the same hits on any ranks."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from ranks import run_anyrank

from anyrank.programs.pi import Pi
from anyrank.runtime.python import Run


def run(*words, ranks=None) -> tuple[dict, dict]:
    done = run_anyrank("run", "pi", *words, "--json", ranks=ranks)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    return summary, {
        key: float(value)
        for key, value in (line[4:].split(" = ") for line in done.stdout.splitlines() if " = " in line)
    }


def test_pi_any_ranks_and_body_have_the_same_hits(tmp_path):
    """There is no Numba body: a request for it gets the compiled one."""
    words = ("--points", 1_000_001, "--seed", 3, "--batch", 300_000, "--out")
    actual = set()
    for ranks, body in enumerate(("shim", "reference", "numba", "cython", "cython", "cython", "cython"), 1):
        summary, result = run(*words, tmp_path / str(ranks), "--body", body, ranks=ranks)
        used = "cython" if body == "numba" else body
        assert (summary["ranks"], summary["bodies"]["quarter_circle"]) == (ranks, used)
        actual.add((summary["digest"], result["hits"]))
    assert len(actual) == 1
    assert abs(result["error"]) < 4 * result["standard_error"]
    assert result["standard_error"] == pytest.approx(4 * math.sqrt(math.pi / 4 * (1 - math.pi / 4) / 1_000_001), 1e-2)


def test_pi_hits_depend_on_the_seed_and_not_on_batches(tmp_path):
    first = run("--points", 100_000, "--seed", 1, "--out", tmp_path / "a")[1]["hits"]
    assert run("--points", 100_000, "--seed", 1, "--batch", 777, "--out", tmp_path / "b")[1]["hits"] == first
    series = Run(tmp_path / "b").series
    assert series["hits"][-1] == first and series["pi"][-1] == 4 * first / 100_000 and np.isnan(series["pi"][0])
    assert series["pi"][1] == 4 * series["hits"][1] / (777 * series["step"][1])
    assert run("--points", 100_000, "--seed", 2, "--out", tmp_path / "c")[1]["hits"] != first


def test_pi_of_10_to_the_12_points_has_the_right_last_batch():
    """The counters have 64 bits: a run of 10¹² points stops, and its indices exceed 2³²."""
    program = Pi(points=10**12)
    assert program.steps == -(-(10**12) // program.batch)
    assert program.steps * program.batch >= 10**12 > (program.steps - 1) * program.batch


def test_pi_of_10_to_the_12_points_can_be_stopped(tmp_path):
    out = tmp_path / "run"
    done = run_anyrank("run", "pi", "--points", "1e12", "--walltime", "1.5s", "--out", out, ranks=2)
    assert done.returncode == 75, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["parameters"]["points"] == 10**12 and 0 < summary["steps"] < 3726
