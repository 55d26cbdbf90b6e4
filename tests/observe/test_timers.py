"""Timers: phases, windows of steps, and idle time."""

import json
import os
import time

import numpy as np
import pytest
from ranks import run_anyrank

from anyrank.observe.timers import PHASES, WINDOWS, Timers


def test_timers_nested_phase_counts_as_the_outer_one():
    timers = Timers()
    with timers.during("checkpoint"):
        began = timers.start()
        time.sleep(0.002)
        timers.count("reductions", "reduced", 8)
        timers.stop("reduce", began)
    timers.count("messages", "bytes", 100, 2)
    assert timers.seconds["reduce"] == 0 and timers.seconds["checkpoint"] >= 0.002
    assert timers.traffic == {"messages": 2, "bytes": 100, "reductions": 0, "reduced": 0}


@pytest.mark.parametrize("steps", [1, WINDOWS, WINDOWS + 1, 2 * WINDOWS, 5 * WINDOWS + 3])
def test_timers_merged_windows_keep_the_total(steps):
    timers = Timers()
    for step in range(steps):
        timers.step(float(step))
    assert sum(timers.computed) == sum(range(steps))
    assert len(timers.computed) <= WINDOWS
    width = -(-steps // WINDOWS)
    width = 1 << (width - 1).bit_length()
    assert timers.computed[0] == sum(range(min(width, steps))), "every window holds as many steps"


def test_timers_noise_is_that_of_single_steps():
    random, timers = np.random.default_rng(1), Timers()
    for seconds in random.normal(1.0, 0.1, 8 * WINDOWS):
        timers.step(seconds)
    assert timers.noise == pytest.approx(0.1, rel=0.1)


def test_timers_waiting_for_a_slower_rank_is_idle():
    timers = Timers()
    for _ in range(10):
        timers.step(1.0)
    timers.seconds |= {"exchange": 6.0, "reduce": 2.0, "checkpoint": 1.0}
    slowest = np.array(timers.computed) + 0.4
    phases = timers.phases(20.0, slowest, 20.0)
    assert phases == pytest.approx({"compute": 10, "exchange": 3, "reduce": 1, "checkpoint": 1, "idle": 4, "other": 1})
    assert timers.phases(20.0, slowest + 9, 20.0)["idle"] == 8, "no more than it waited"
    assert timers.phases(20.0, slowest, 22.0) == pytest.approx({**phases, "idle": 6}), "it ended before the slowest"


def test_timers_of_a_run_are_in_its_summary(tmp_path):
    words = ("--rows", 40, "--columns", 40, "--steps", 50, "--no-picture", "--json", "--quiet")
    done = run_anyrank("run", "weather", *words, "--checkpoint-every", 10, "--out", tmp_path / "run", ranks=2)
    summary = json.loads(done.stdout.splitlines()[-1])
    timing = summary["timing"]
    assert timing["steps"] == 49, "all but the first"
    assert set(timing["phases"]) == set(PHASES)
    assert sum(timing["phases"].values()) == pytest.approx(timing["seconds"], rel=0.05)
    assert all(timing["phases"][name] > 0 for name in ("compute", "exchange", "checkpoint"))
    # Each of the two ranks has one neighbour; three fields, two edges of 42 values in slots of 16 bytes.
    assert timing["traffic"] == {"messages": 1, "bytes": 3 * 2 * 42 * 8, "reductions": 0, "reduced": 0}
    assert timing["seconds"] + timing["warm_up"] == pytest.approx(summary["seconds"], rel=0.05)
    assert (summary["nodes"], summary["oversubscribed"]) == (1, len(os.sched_getaffinity(0)) < 2)


def test_timers_leave_out_the_first_step_of_other_ranks(tmp_path):
    (tmp_path / "late.py").write_text(
        "import time\nfrom anyrank import Program\n\n\nclass Late(Program):\n    steps = 4\n\n"
        "    def declare(self, state):\n        state.scalar('sum', 0)\n\n"
        "    def step(self, state):\n        if not state.world.rank:\n"
        "            time.sleep(0.02 if state.step else 0.5)\n        state.sum += 1\n"
    )
    done = run_anyrank("run", tmp_path / "late.py", "--quiet", "--json", "--out", tmp_path / "run", ranks=2)
    timing = json.loads(done.stdout.splitlines()[-1])["timing"]
    assert 0.06 <= timing["seconds"] < 0.4 * timing["warm_up"], "of the slowest rank, from the second step on"
    assert sum(timing["phases"].values()) == pytest.approx(timing["seconds"], rel=0.05)
    assert 0 < timing["phases"]["idle"] <= timing["phases"]["compute"] * 1.2, "one rank waits while the other works"
