"""Estimate the number of distinct keys and find heavy hitters from a sample of rows."""

from __future__ import annotations

import math

import numpy as np

#: Number of rows in a sample.
SAMPLE_ROWS = 1 << 17
#: Upper bound of the number of keys; the estimate if all sampled keys differ.
MAX_KEYS = 1 << 40
#: A heavy hitter must occur more often than this in the sample; fewer occurrences may be chance.
_MIN_REPEATS = 16


def sample_rows(n: int) -> np.ndarray:
    """Return about SAMPLE_ROWS of n row numbers, int64: one random row per stride, because keys may be periodic."""
    step = max(1, n // SAMPLE_ROWS)
    firsts = np.arange(0, n - step + 1, step)
    return np.asarray(firsts + np.random.default_rng(0).integers(0, step, len(firsts)))


def estimate_cardinality(sample: np.ndarray) -> int:
    """Estimate the number of distinct keys from the hashes of a sample of rows.

    Assumes that all keys are equally frequent and solves for the number that gives the distinct keys seen in the
    sample. Returns MAX_KEYS if all sampled keys differ.
    """
    m, d = len(sample), len(np.unique(sample))
    if d == m:
        return MAX_KEYS
    low, high = float(d), float(MAX_KEYS)
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if -middle * math.expm1(-m / middle) < d else (low, middle)
    return int(high)


def expected_distinct(keys: int, n: int) -> int:
    """Return the expected number of distinct keys in n rows, if there are `keys` keys and all are equally frequent."""
    return round(-keys * math.expm1(-n / keys)) if keys else 0


def heavy_hitters(sample: np.ndarray, ranks: int) -> np.ndarray:
    """Return the hashes of keys that each have more than a quarter of a rank's even share of all rows."""
    distinct, counts = np.unique(sample, return_counts=True)
    return np.asarray(distinct[counts > max(_MIN_REPEATS, len(sample) / (4 * ranks))])
