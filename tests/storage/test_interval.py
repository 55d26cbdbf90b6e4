from __future__ import annotations

import pytest

from anyrank.storage.interval import young_interval


def lost_time(interval: float, cost: float, mtbf: float) -> float:
    """Young's model of the time lost per second of work: checkpoints, and half an interval per failure."""
    return cost / interval + interval / (2 * mtbf)


def test_young_interval_minimises_the_lost_time():
    assert young_interval(300, 86400) == pytest.approx(7200)  # 5 minutes, one failure a day: 2 hours
    best = young_interval(20, 5000)
    assert lost_time(best, 20, 5000) < min(lost_time(best * 0.99, 20, 5000), lost_time(best * 1.01, 20, 5000))


def test_young_interval_is_at_most_the_time_between_failures():
    assert young_interval(50, 20) == 20
