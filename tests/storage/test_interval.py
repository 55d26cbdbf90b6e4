from __future__ import annotations

import pytest

from anyrank.storage.interval import young_interval


def lost(interval: float, cost: float, mtbf: float) -> float:
    """Young's own account of the time lost per second of work: checkpoints, and half an interval per failure."""
    return cost / interval + interval / (2 * mtbf)


def test_young():
    assert young_interval(300, 86400) == pytest.approx(7200)  # 5 minutes, one failure a day: 2 hours
    best = young_interval(20, 5000)
    assert lost(best, 20, 5000) < min(lost(best * 0.99, 20, 5000), lost(best * 1.01, 20, 5000))


def test_where_a_checkpoint_costs_more_than_the_time_between_failures():
    assert young_interval(50, 20) == 20
