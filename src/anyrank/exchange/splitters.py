"""Splitters: where sorted rows of all ranks must be cut, so that exactly so many of all lie before each cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from anyrank.world import World


class Run(Protocol):
    """Keys in ascending order: an array of integers or of fixed bytes, or what stands for one that is on disk."""

    dtype: np.dtype[Any]

    def __len__(self) -> int: ...

    def __getitem__(self, place: int) -> Any:
        """The key at a place; −1 is the last."""

    def searchsorted(self, keys: Any, side: Any = "left") -> Any:
        """As NumPy's: how many keys are less, or on the `right` side not greater."""


def cut(world: World, runs: Sequence[Run], positions: Sequence[int]) -> NDArray[np.int64]:
    """For each of this rank's runs, where to cut it: int64 of (runs, positions). Collective.

    Of the keys of all ranks and runs in ascending order, equal ones by rank, then by run, then by place, exactly
    `positions[j]` lie before cut j. The positions are the same on all ranks, from 0 to the number of keys, in any order; the
    runs are of one dtype, and there is at least one on every rank, which may be empty.

    The key at each position is found by bisection between the least and the greatest, in as many rounds as these
    differ in bits: Solomonik and Kalé, Highly Scalable Parallel Sorting, IPDPS 2010.
    """
    code = _Code(runs[0].dtype)
    sizes = np.array([len(run) for run in runs], np.int64)
    ends = [code.number(run[place]) for run in runs if len(run) for place in (0, -1)]
    known = world.comm.allgather((int(sizes.sum()), ends and min(ends), ends and max(ends)))
    total = sum(size for size, _, _ in known)
    least = min((low for size, low, _ in known if size), default=0)
    most = max((high for size, _, high in known if size), default=0)
    wanted = np.array(positions, np.int64)
    low, high = [least] * len(wanted), [most] * len(wanted)  # the key at the position is none below, none above
    for _ in range((most - least).bit_length()):
        half = [(a + b) // 2 for a, b in zip(low, high, strict=True)]
        until = world.allreduce(_places(runs, code.keys(half), "right").sum(0))
        beyond = until > wanted
        low = [a if less else min(h + 1, b) for a, b, h, less in zip(low, high, half, beyond, strict=True)]
        high = [h if less else b for b, h, less in zip(high, half, beyond, strict=True)]
    keys = code.keys(low)
    first = _places(runs, keys, "left")
    return np.where(wanted >= total, sizes[:, None], first + _shares(world, runs, keys, first, wanted))


def _shares(
    world: World, runs: Sequence[Run], keys: Any, first: NDArray[np.int64], wanted: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many of the keys equal to each splitter lie before the cut, by run: the first ones of all ranks do."""
    equal = _places(runs, keys, "right") - first
    mine = np.stack([first.sum(0), equal.sum(0)])
    before = np.zeros_like(mine[1])
    world.comm.Exscan(mine[1], before)
    if world.rank == 0:
        before[:] = 0  # MPI leaves it undefined there
    left = wanted - world.allreduce(mine[0]) - before
    return np.clip(left - (np.cumsum(equal, 0) - equal), 0, equal)


def _places(runs: Sequence[Run], keys: Any, side: str) -> NDArray[np.int64]:
    return np.array([run.searchsorted(keys, side) for run in runs], np.int64).reshape(len(runs), -1)


class _Code:
    """Keys as whole numbers in the same order: integers themselves, bytes as big-endian digits."""

    def __init__(self, dtype: np.dtype[Any]):
        self.dtype = dtype

    def number(self, key: Any) -> int:
        """The number of a key."""
        if self.dtype.kind == "S":
            return int.from_bytes(bytes(key).ljust(self.dtype.itemsize, b"\0"), "big")
        return int(key)

    def keys(self, numbers: Sequence[int]) -> NDArray[Any]:
        """The keys of numbers."""
        if self.dtype.kind == "S":
            return np.array([n.to_bytes(self.dtype.itemsize, "big") for n in numbers], self.dtype)
        return np.array(numbers, self.dtype)
