"""How often to take a checkpoint."""

from __future__ import annotations

from math import sqrt


def young_interval(cost_seconds: float, mtbf_seconds: float) -> float:
    """The seconds of computing between two checkpoints that lose the least time: √(2·C·MTBF).

    `cost_seconds` is C, what one checkpoint delays the run by (the time it hides behind computing does not
    count); `mtbf_seconds` is the mean time between failures of the whole job: that of a node divided by the
    nodes. Young (1974), Communications of the ACM 17(9), 530. Daly (2006), Future Generation Computer
    Systems 22(3), 303, shows it to be the first term of a series in √(C / 2·MTBF), good while C is far
    below MTBF; from C = 2·MTBF on nothing beats an interval of the MTBF itself, which is returned then.
    """
    if cost_seconds >= 2 * mtbf_seconds:
        return mtbf_seconds
    return sqrt(2 * cost_seconds * mtbf_seconds)
