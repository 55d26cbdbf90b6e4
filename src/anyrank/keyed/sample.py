"""What a sample tells of many keys: how many differ, and which come very often."""

from __future__ import annotations

import math

import numpy as np

#: Keys that are looked at.
SAMPLED = 1 << 17
#: More keys than anybody has.
MOST = 1 << 40
#: A key that comes so many times in the sample is no chance.
_LEAST = 16


def sampled(n: int) -> np.ndarray:
    """About SAMPLED of n rows, from all over them, at no regular distance: keys may come in turns. int64."""
    step = max(1, n // SAMPLED)
    firsts = np.arange(0, n - step + 1, step)
    return np.asarray(firsts + np.random.default_rng(0).integers(0, step, len(firsts)))


def population(sample: np.ndarray) -> int:
    """How many keys there may be, from the hashes of a sample of rows.

    They are as many equally frequent ones as would show as many in the sample; MOST where no two of it are alike.
    """
    m, d = len(sample), len(np.unique(sample))
    if d == m:
        return MOST
    low, high = float(d), float(MOST)
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if -middle * math.expm1(-m / middle) < d else (low, middle)
    return int(high)


def shown(population: int, n: int) -> int:
    """How many of so many keys n rows have, if all are as frequent."""
    return round(-population * math.expm1(-n / population)) if population else 0


def heavy(sample: np.ndarray, ranks: int) -> np.ndarray:
    """Of a sample's hashes those of keys each of which is more than a quarter of a rank's even share of all rows."""
    found, counts = np.unique(sample, return_counts=True)
    return np.asarray(found[counts > max(_LEAST, len(sample) / (4 * ranks))])
