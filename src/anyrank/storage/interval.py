"""The interval between checkpoints."""

from __future__ import annotations

from math import sqrt


def young_interval(cost_seconds: float, mtbf_seconds: float) -> float:
    """Return the interval between two checkpoints that loses the least time, in seconds: √(2·C·MTBF).

    `cost_seconds` is C, the delay of the run by one checkpoint, without the time during which the run computes.
    `mtbf_seconds` is the mean time between failures of the whole job: that of a node divided by the number of nodes.
    Young (1974), Communications of the ACM 17(9), 530. Daly (2006), Future Generation Computer Systems 22(3), 303,
    shows that it is the first term of a series in √(C / 2·MTBF), accurate if C is far below MTBF. From C = 2·MTBF on
    the best interval is the MTBF itself.
    """
    if cost_seconds >= 2 * mtbf_seconds:
        return mtbf_seconds
    return sqrt(2 * cost_seconds * mtbf_seconds)
