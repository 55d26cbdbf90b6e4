"""What a sample tells of many keys: how many differ, and which come very often."""

from __future__ import annotations

import math

import numpy as np

#: Keys that are looked at.
SAMPLED = 1 << 15
#: A key that comes so many times in the sample is no chance.
_LEAST = 16


def sampled(hashes: np.ndarray) -> np.ndarray:
    """About SAMPLED of the keys' hashes, from all over them, at no regular distance: keys may come in turns."""
    step = max(1, len(hashes) // SAMPLED)
    firsts = np.arange(0, len(hashes) - step + 1, step)
    return np.asarray(hashes[firsts + np.random.default_rng(0).integers(0, step, len(firsts))])


def distinct(hashes: np.ndarray) -> int:
    """About how many keys differ: as many equally frequent ones as would show as many in a sample of that size."""
    sample = sampled(hashes)
    m, d = len(sample), len(np.unique(sample))
    if d == m or len(sample) == len(hashes):
        return len(hashes) if d == m else d
    low, high = float(d), float(len(hashes))
    for _ in range(50):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if -middle * math.expm1(-m / middle) < d else (low, middle)
    return int(high)


def heavy(hashes: np.ndarray, ranks: int) -> np.ndarray:
    """The hashes of keys each of which is more than a quarter of a rank's even share of all rows."""
    sample = sampled(hashes)
    found, counts = np.unique(sample, return_counts=True)
    return np.asarray(found[counts > max(_LEAST, len(sample) / (4 * ranks))])
