"""Splitters: cut the sorted rows of all ranks so that an exact number of rows lies before each cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from anyrank.world import World


class SortedKeys(Protocol):
    """Keys in ascending order: an array of integers or of bytes of fixed length, in memory or on disk."""

    dtype: np.dtype[Any]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any:
        """Return the key at an index; −1 is the last."""

    def searchsorted(self, keys: Any, side: Any = "left") -> Any:
        """Return, as in NumPy, the number of keys that are less, or not greater if `side` is `right`."""


def cut(world: World, runs: Sequence[SortedKeys], positions: Sequence[int]) -> NDArray[np.int64]:
    """Return where to cut each run of this rank: int64 of shape (runs, positions). Collective.

    Consider the keys of all ranks and runs in ascending order, with equal keys ordered by rank, run and index.
    Exactly `positions[j]` of them lie before cut j. The positions are the same on all ranks, between 0 and the number
    of keys, in any order. All runs have the same dtype; every rank has at least one run, which may be empty.

    The key at each position is found by bisection between the smallest and the largest key. The number of rounds is
    the number of bits of their difference: Solomonik and Kalé, Highly Scalable Parallel Sorting, IPDPS 2010.
    """
    code = _Code(runs[0].dtype)
    sizes = np.array([len(run) for run in runs], np.int64)
    ends = [code.number(run[index]) for run in runs if len(run) for index in (0, -1)]
    ranges = world.comm.allgather((int(sizes.sum()), min(ends, default=0), max(ends, default=0)))
    total = sum(size for size, _, _ in ranges)
    smallest = min((low for size, low, _ in ranges if size), default=0)
    largest = max((high for size, _, high in ranges if size), default=0)
    targets = np.array(positions, np.int64)
    low, high = [smallest] * len(targets), [largest] * len(targets)  # low <= the key at the position <= high
    for _ in range((largest - smallest).bit_length()):
        middle = [(a + b) // 2 for a, b in zip(low, high, strict=True)]
        counts = world.allreduce(_searchsorted(runs, code.keys(middle), "right").sum(0))
        below = counts > targets
        low = [a if less else min(m + 1, b) for a, b, m, less in zip(low, high, middle, below, strict=True)]
        high = [m if less else b for b, m, less in zip(high, middle, below, strict=True)]
    keys = code.keys(low)
    first = _searchsorted(runs, keys, "left")
    return np.where(targets >= total, sizes[:, None], first + _equal_before(world, runs, keys, first, targets))


def _equal_before(
    world: World, runs: Sequence[SortedKeys], keys: Any, first: NDArray[np.int64], targets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return how many keys of each run equal the splitter and lie before the cut; lower ranks come first."""
    equal = _searchsorted(runs, keys, "right") - first
    counts = np.stack([first.sum(0), equal.sum(0)])
    before = np.zeros_like(counts[1])
    world.comm.Exscan(counts[1], before)
    if world.rank == 0:
        before[:] = 0  # MPI leaves the result of rank 0 undefined
    remaining = targets - world.allreduce(counts[0]) - before
    result: NDArray[np.int64] = np.clip(remaining - (np.cumsum(equal, 0) - equal), 0, equal)
    return result


def _searchsorted(runs: Sequence[SortedKeys], keys: Any, side: str) -> NDArray[np.int64]:
    return np.array([run.searchsorted(keys, side) for run in runs], np.int64).reshape(len(runs), -1)


class _Code:
    """Convert keys to integers with the same order: integers stay, bytes are big-endian digits."""

    def __init__(self, dtype: np.dtype[Any]):
        self.dtype = dtype

    def number(self, key: Any) -> int:
        """Return the number of a key."""
        if self.dtype.kind == "S":
            return int.from_bytes(bytes(key).ljust(self.dtype.itemsize, b"\0"), "big")
        return int(key)

    def keys(self, numbers: Sequence[int]) -> NDArray[Any]:
        """Return the keys of numbers."""
        if self.dtype.kind == "S":
            return np.array([n.to_bytes(self.dtype.itemsize, "big") for n in numbers], self.dtype)
        return np.array(numbers, self.dtype)
