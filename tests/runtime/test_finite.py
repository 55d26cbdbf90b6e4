"""Programs that want finite values: a run ends before a checkpoint has others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ranks import check_collective, run_anyrank

from anyrank import State
from anyrank.kernel import BODIES
from anyrank.runtime.finite import FiniteCheck

GROWING = Path(__file__).with_name("growing.py")


def run(folder, *words, ranks=1):
    done = run_anyrank("run", GROWING, "--out", folder, "--quiet", *words, ranks=ranks)
    return done, " ".join(done.stderr.split())


def checkpoint_steps(folder) -> list[int]:
    """The steps of all files in the folder of the checkpoints, without temporary ones, of which there must be none."""
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert all(name.startswith("step-") for name in names), names
    return [int(name[5:-3]) for name in names]


@pytest.mark.parametrize(("ranks", "io"), [(1, "pwrite"), (2, "gather"), (4, "pwrite")])
def test_finite_first_bad_step_ends_the_run_and_is_not_stored(tmp_path, ranks, io):
    out = tmp_path / "run"
    words = ("--checkpoint-every", 1, "--checkpoint-io", io, "--once", "--keep", 2)
    done, error = run(out, *words, ranks=ranks)
    message = (
        "field u is nan at the global index (4, 2) after step 5, but growing wants finite values. The last good "
        f"checkpoint is {out}/checkpoints/step-000000000004.h5: resume continues from it."
    )
    assert done.returncode == 1 and error.count(message) == 1, done.stderr
    assert checkpoint_steps(out) == [3, 4] and not (out / "result.json").exists()
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [event["error"].partition(",")[0] for event in events if event["event"] == "failed"] == [
        "field u is nan at the global index (4"
    ]
    (out / "resumed").touch()  # as if the program were corrected
    done = run_anyrank("resume", out, "--quiet")
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "summary.json").read_text())["resumed_from"] == 4


@pytest.mark.parametrize(
    ("words", "expected", "steps"),
    [
        (("--at", 8), "(4, 2) after step 8,", [6]),  # the last step, which the loop does not agree on
        (("--at", 4, "--stop-at", 4), "(4, 2) after step 4,", [2]),
        (("--at", 6, "--value", "-inf"), "field u is -inf at the global index (4, 2) after step 6,", [4]),
        (("--at", 3, "--also", "--point", "5,4"), "field u is nan at the global index (5, 4) after step 3,", [2]),
        (("--at", 1), "after step 1, but growing wants finite values. No checkpoint is good. Correct", []),
        (("--at", 0), "after setup, but growing wants finite values. No checkpoint is good. Correct", []),
    ],
)
def test_finite_any_step_is_found_before_a_checkpoint_has_it(tmp_path, words, expected, steps):
    done, error = run(tmp_path / "run", "--checkpoint-every", 2, "--keep", 1, *words, ranks=2)
    assert done.returncode == 1 and expected in error, done.stderr
    assert checkpoint_steps(tmp_path / "run") == steps


def test_finite_on_gpu_is_checked_there(tmp_path):
    done, error = run(tmp_path / "run", "--body", "shim", "--checkpoint-every", 1)
    assert done.returncode == 1 and "field u is nan at the global index (4, 2) after step 5," in error, done.stderr
    assert checkpoint_steps(tmp_path / "run") == [3, 4]


def test_finite_run_with_finite_values_ends_well(tmp_path):
    assert run(tmp_path / "run", "--at", 9, ranks=2)[0].returncode == 0


def test_finite_is_not_checked_unless_the_program_asks(tmp_path):
    file = tmp_path / "growing.py"
    file.write_text(GROWING.read_text().replace("    finite = True\n", ""))
    assert run_anyrank("run", file, "--out", tmp_path / "run", "--quiet").returncode == 0


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("body", ["auto", "shim"])
def test_finite_check_finds_the_first_of_all_ranks(world, body):
    BODIES.prefer(body)
    try:
        state = State(world, "bricks")
        k = state.constant("k", (5, 6))
        state.field("n", (5, 6), "int32")
        u, v = state.field("u", (5, 6)), state.field("v", (5, 6), "c8", components=2)
        k[...] = np.nan
        check = FiniteCheck(state)
        check.look()
        check_collective(world, not check.found and check.first() is None)
        v.at(4, 5, component=1).write(np.inf)
        state.step = 3
        check.look()
        u.at(0, 0).write(np.nan)
        state.step = 4
        check.look()
        first = check.first()
        assert first is not None and (first.step, first.point) == (3, (1, 4, 5))
        assert check.describe(first) == "field v is (inf+0j) at the global index (1, 4, 5) after step 3"
        u.at(3, 1).write(np.nan)
        again = FiniteCheck(state)
        again.look()
        assert (again.first().number, again.first().point) == (0, (0, 0)), "the first field in C order"
    finally:
        BODIES.prefer("auto")
