"""Splitters cut exactly for any keys: in the order of one stable sort of all keys."""

from __future__ import annotations

import numpy as np
import pytest
from ranks import check_collective

from anyrank.exchange.splitters import cut

EXTREMES = np.array([-(1 << 63), -1, 0, 1, (1 << 63) - 1])
KEYS = {
    "random": lambda rng, n: rng.integers(-(1 << 63), (1 << 63) - 1, n),
    "unsigned": lambda rng, n: rng.integers(0, (1 << 64) - 1, n, np.uint64, endpoint=True),
    "narrow": lambda rng, n: rng.integers(-3, 4, n).astype(np.int32),
    "equal": lambda rng, n: np.full(n, 7, np.uint32),
    "extremes": lambda rng, n: rng.choice(EXTREMES, n),
    "bytes": lambda rng, n: rng.integers(0, 3, (n, 11), np.uint8).view("S11").ravel(),
}


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("size", [0, 1, 100])
def test_cut_has_the_requested_number_of_keys_before_it(world, name, size):
    make = KEYS[name]
    all_runs = [
        [
            np.sort(make(np.random.default_rng([rank, run]), size * (rank + 2 * run) % 173))
            for run in range(1 + rank % 3)
        ]
        for rank in range(world.size)
    ]
    runs = all_runs[world.rank]
    flat = [run for rank_runs in all_runs for run in rank_runs]
    total = sum(map(len, flat))
    positions = [0, total, total // 2, total // 3, total, min(1, total), max(total - 1, 0)]
    order = np.argsort(np.concatenate(flat), kind="stable")
    owner = np.repeat(np.arange(len(flat)), [len(run) for run in flat])[order]
    mine = sum(len(rank_runs) for rank_runs in all_runs[: world.rank])
    expected = [[np.count_nonzero(owner[:t] == mine + run) for t in positions] for run in range(len(runs))]
    result = cut(world, runs, positions)
    check_collective(world, result.tolist() == expected and result.dtype == np.int64, f"{result.tolist()} {expected}")


@pytest.mark.ranks(2, 3)
def test_cut_ranks_without_keys_and_no_positions(world):
    keys = np.arange(10 if world.rank == 1 else 0)
    check_collective(world, cut(world, [keys], [3])[0, 0] == (3 if world.rank == 1 else 0))
    check_collective(world, cut(world, [keys], []).shape == (1, 0))
