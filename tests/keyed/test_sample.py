"""Estimates from a sample of keys."""

import numpy as np
import pytest

from anyrank.keyed import sample
from anyrank.keyed.sample import SAMPLE_ROWS, sample_rows

RANDOM = np.random.default_rng(2)


def distinct(hashes):
    n = len(hashes)
    return sample.expected_distinct(sample.estimate_cardinality(hashes[sample_rows(n)]), n)


def heavy_hitters(hashes, ranks):
    return sample.heavy_hitters(hashes[sample_rows(len(hashes))], ranks)


@pytest.mark.parametrize("groups", [1, 50, 10_000, 300_000, 10_000_000])
def test_estimate_cardinality_is_close_for_random_keys(groups):
    hashes = RANDOM.integers(0, 2**63, groups)[RANDOM.integers(0, groups, 1_000_000)]
    assert distinct(hashes) == pytest.approx(len(np.unique(hashes)), rel=0.25, abs=1)


def test_estimate_cardinality_of_few_keys_is_exact():
    assert distinct(np.arange(100)) == 100 and distinct(np.arange(100) // 2) == 50 and distinct(np.arange(0)) == 0


def test_estimate_cardinality_samples_sorted_keys_evenly():
    assert distinct(np.arange(1_000_000) // 1000) == pytest.approx(1000, rel=0.01)


def test_heavy_hitters_are_keys_too_frequent_for_a_rank():
    hashes = np.arange(1_000_000)
    hashes[::10] = 7
    assert heavy_hitters(hashes, 2).tolist() == [] and heavy_hitters(hashes, 4).tolist() == [7]
    assert heavy_hitters(np.arange(10 * SAMPLE_ROWS), 10_000).tolist() == []
