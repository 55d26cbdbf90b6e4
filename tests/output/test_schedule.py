"""When outputs are due: the default interval, and what a longer run needs of a shorter one."""

from __future__ import annotations

import pytest

from anyrank.output.schedule import Schedule


@pytest.mark.parametrize(
    ("steps", "interval"),
    [(0, 1), (1, 1), (128, 1), (129, 2), (256, 2), (257, 4), (300, 4), (600, 8), (1000, 8), (10**9, 1 << 23)],
)
def test_schedule_default_interval_is_a_power_of_two(steps, interval):
    assert Schedule(None, steps).interval(0) == Schedule(None, steps).interval(steps) == interval


@pytest.mark.parametrize("steps", [64, 100, 128, 129, 200, 255, 300, 6000, 24000])
def test_schedule_default_gives_64_to_128_intervals(steps):
    assert 64 <= steps // Schedule(None, steps).interval(0) <= 128


@pytest.mark.parametrize("steps", [5, 128, 129, 300, 1000])
def test_schedule_of_unknown_length_keeps_that_of_a_known_one(steps):
    known, unknown = Schedule(None, steps), Schedule()
    due = [step for step in range(steps + 1) if unknown.due(step)]
    kept = [step for step in due if unknown.keeps(step, steps)]
    expected = [step for step in range(steps + 1) if known.due(step)]
    assert kept == sorted({*expected} | ({steps} if unknown.due(steps) else set()))
    assert len(due) <= 129 + 64 * 4


@pytest.mark.parametrize("first", [1, 127, 128, 129, 300])
def test_schedule_of_a_longer_run_needs_only_steps_of_a_shorter(first):
    for longer in (first + 1, 2 * first, 10 * first):
        needed = {*Schedule(None, longer).needed(first)}
        assert needed <= {step for step in range(first + 1) if Schedule(None, first).due(step)}


def test_schedule_given_interval_holds_for_any_length():
    schedule = Schedule(7, 1000)
    assert [step for step in range(20) if schedule.due(step)] == [0, 7, 14]
    assert [*schedule.needed(20)] == [0, 7, 14] and schedule.keeps(14, 20) and schedule.keeps(20, 20)
    assert not schedule.keeps(19, 20)
