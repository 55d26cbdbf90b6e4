"""What a sample tells of many keys: how many differ, and which come very often."""

from __future__ import annotations

import math

import numpy as np

#: Keys that are looked at.
SAMPLED = 1 << 17
#: More keys than anybody has.
MAX_KEYS = 1 << 40
#: A key that comes so many times in the sample is no chance.
_MIN_REPEATS = 16


def sample_rows(n: int) -> np.ndarray:
    """About SAMPLED of n rows, from all over them, at no regular distance: keys may come in turns. int64."""
    step = max(1, n // SAMPLED)
    firsts = np.arange(0, n - step + 1, step)
    return np.asarray(firsts + np.random.default_rng(0).integers(0, step, len(firsts)))


def estimate_cardinality(sample: np.ndarray) -> int:
    """How many keys there may be, from the hashes of a sample of rows.

    They are as many equally frequent ones as would show as many in the sample; MAX_KEYS where no two of it are alike.
    """
    m, d = len(sample), len(np.unique(sample))
    if d == m:
        return MAX_KEYS
    low, high = float(d), float(MAX_KEYS)
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if -middle * math.expm1(-m / middle) < d else (low, middle)
    return int(high)


def expected_distinct(estimate_cardinality: int, n: int) -> int:
    """How many of so many keys n rows have, if all are as frequent."""
    return round(-estimate_cardinality * math.expm1(-n / estimate_cardinality)) if estimate_cardinality else 0


def heavy_hitters(sample: np.ndarray, ranks: int) -> np.ndarray:
    """Of a sample's hashes those of keys each of which is more than a quarter of a rank's even share of all rows."""
    distinct, counts = np.unique(sample, return_counts=True)
    return np.asarray(distinct[counts > max(_MIN_REPEATS, len(sample) / (4 * ranks))])
