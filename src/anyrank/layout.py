"""Layout: the domain decomposition, which assigns global indices to ranks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

import numpy as np

from anyrank.errors import UsageError
from anyrank.world import World

SPLITS = ("auto", "rows", "columns", "bricks")


class Layout:
    """A domain decomposition: a global index space, cut into one brick per rank. Not collective.

    The ranks form a grid, numbered with the last axis fastest. A brick may be empty.

    Parameters
    ----------
    shape : sequence of int
        The global shape.
    world : World
        The ranks.
    cuts : sequence of sequences of int
        The borders of the bricks along each axis, from 0 to the global size: the rank at grid position g owns
        `cuts[axis][g] : cuts[axis][g + 1]`.

    Attributes
    ----------
    shape, start, stop : tuple of int
        The global shape, and the global indices of the first element of this rank's brick and of its end.
    local_shape : tuple of int
        The shape of this rank's brick.
    grid, position : tuple of int
        The shape of the grid of ranks, and the position of this rank in it.

    Raises
    ------
    ValueError
        If the cuts do not fit the shape or the number of ranks.

    Examples
    --------
    >>> layout = Layout.bricks((4, 6), World())
    >>> layout.local_shape, layout.owner((3, 5))
    ((4, 6), 0)
    """

    def __init__(self, shape: Sequence[int], world: World, cuts: Sequence[Sequence[int]]):
        self.shape = tuple(int(n) for n in shape)
        self.world = world
        self.cuts = tuple(tuple(int(c) for c in cut) for cut in cuts)
        self.grid = tuple(len(cut) - 1 for cut in self.cuts)
        self._check()
        self.position = self.position_of(world.rank)
        self.start = tuple(cut[g] for cut, g in zip(self.cuts, self.position, strict=True))
        self.stop = tuple(cut[g + 1] for cut, g in zip(self.cuts, self.position, strict=True))
        self.local_shape = tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    def _check(self) -> None:
        if len(self.cuts) != len(self.shape):
            raise ValueError(f"cuts of {len(self.cuts)} axes do not fit the shape {self.shape}")
        if int(np.prod(self.grid, dtype=np.int64)) != self.world.size:
            raise ValueError(f"a grid of {self.grid} does not fit {self.world.size} ranks")
        for n, cut in zip(self.shape, self.cuts, strict=True):
            if cut[0] != 0 or cut[-1] != n or any(b < a for a, b in pairwise(cut)):
                raise ValueError(f"cuts {cut} do not rise from 0 to {n}")

    @classmethod
    def blocks(cls, n: int, world: World) -> Layout:
        """Return a layout of the indices 0 … n − 1 in one block per rank; sizes differ by at most one. Not collective.

        Parameters
        ----------
        n : int
            The number of indices.
        world : World
            The ranks.
        """
        return cls((n,), world, (even_cuts(n, world.size),))

    @classmethod
    def bricks(
        cls,
        shape: Sequence[int],
        world: World,
        split: str = "auto",
        halo: int | Sequence[int] = 0,
        weights: Sequence[float] = (),
    ) -> Layout:
        """Return a layout over a grid of ranks, whose parts along an axis are equal or proportional. Not collective.

        Without weights, the sizes of the parts along an axis differ by at most one.

        Parameters
        ----------
        shape : sequence of int
            The global shape.
        world : World
            The ranks.
        split : {"auto", "rows", "columns", "bricks"} or str
            `rows` cuts only the first axis, `columns` only the last; `bricks` uses the grid closest to a cube, and
            `auto` the grid with the smallest halos. Another text is the grid itself, such as `2x3`.
        halo : int or sequence of int
            The number of layers of ghost cells, of all axes or of each.
        weights : sequence of float
            The relative speed of each rank. Parts along an axis are proportional to the sum over their ranks.

        Raises
        ------
        UsageError
            If a rank would own fewer cells than the width of the halo along an axis that is cut, or there is not one
            positive weight per rank.
        """
        halos = (halo,) * len(shape) if isinstance(halo, int) else tuple(halo)
        grid = choose_grid(tuple(shape), world.size, split, halos)
        if not weights:
            return cls(shape, world, [even_cuts(n, p) for n, p in zip(shape, grid, strict=True)])
        if len(weights) != world.size or min(weights) <= 0:
            raise UsageError(
                f"--weights {','.join(map(str, weights))} must be {world.size} positive numbers, one a rank."
            )
        # Exact fractions, so that the cuts do not depend on the order of a floating-point sum.
        shares = np.array([Fraction(weight) for weight in weights], object).reshape(grid)
        others = [tuple(other for other in range(len(grid)) if other != axis) for axis in range(len(grid))]
        along = [shares.sum(axis=axes) if axes else shares for axes in others]
        return cls(shape, world, [weighted_cuts(n, [*w], h) for n, w, h in zip(shape, along, halos, strict=True)])

    def is_near(self, shape: Sequence[int]) -> bool:
        """Return whether a shape differs from that of this layout by at most one along each axis (for the runtime)."""
        return len(shape) == self.ndim and all(abs(n - m) <= 1 for n, m in zip(shape, self.shape, strict=True))

    def extended(self, shape: Sequence[int]) -> Layout:
        """Return the layout of a near shape with the same cuts, except the end of each axis (for the runtime)."""
        return Layout(shape, self.world, [(*cut[:-1], n) for cut, n in zip(self.cuts, shape, strict=True)])

    def with_components(self, count: int) -> Layout:
        """Return the layout of arrays with `count` values at each point, on a first axis (for the runtime)."""
        return Layout((count, *self.shape), self.world, ((0, count), *self.cuts))

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of global elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def slices(self) -> tuple[slice, ...]:
        """The brick of this rank as slices of the global array."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    @cached_property
    def indices(self) -> tuple[np.ndarray, ...]:
        """The global indices of this rank's brick: one int64 array per axis, with shapes that broadcast."""
        return tuple(np.ogrid[self.slices]) if self.ndim else ()

    @cached_property
    def linear(self) -> np.ndarray:
        """The global linear index in C order of every element of this rank's brick: int64 of `local_shape`."""
        result = np.zeros((1,) * self.ndim, np.int64)
        for axis, index in enumerate(self.indices):
            result = result + index * int(np.prod(self.shape[axis + 1 :], dtype=np.int64))
        return np.broadcast_to(result, self.local_shape)

    def position_of(self, rank: int) -> tuple[int, ...]:
        """Return the grid position of a rank: its index along each axis of `grid`.

        Parameters
        ----------
        rank : int
            A rank of the World.
        """
        return tuple(int(g) for g in np.unravel_index(rank, self.grid)) if self.grid else ()

    def rank_at(self, position: Sequence[int]) -> int:
        """Return the rank at a grid position.

        Parameters
        ----------
        position : sequence of int
            An index along each axis of `grid`.
        """
        return int(np.ravel_multi_index(tuple(position), self.grid)) if self.grid else 0

    def owner(self, index: Sequence[int]) -> int:
        """Return the rank that owns a global index.

        Parameters
        ----------
        index : sequence of int
            A global index along each axis.

        Raises
        ------
        IndexError
            If the index is outside the shape.
        """
        for i, n in zip(index, self.shape, strict=True):
            if not 0 <= i < n:
                raise IndexError(f"index {tuple(index)} is outside the global shape {self.shape}")
        return self.rank_at([bisect_right(cut, i) - 1 for cut, i in zip(self.cuts, index, strict=True)])

    def bricks_of_all(self) -> Iterator[tuple[int, tuple[slice, ...]]]:
        """Yield every rank with its brick as global slices."""
        for rank in range(self.world.size):
            position = self.position_of(rank)
            yield rank, tuple(slice(cut[g], cut[g + 1]) for cut, g in zip(self.cuts, position, strict=True))


def even_cuts(n: int, parts: int) -> tuple[int, ...]:
    """Return the borders that cut 0 … n into parts whose sizes differ by at most one."""
    return tuple(n * k // parts for k in range(parts + 1))


def weighted_cuts(n: int, weights: Sequence[Fraction], least: int) -> tuple[int, ...]:
    """Return the borders that cut 0 … n into parts proportional to weights, none smaller than `least` if that fits."""
    total, parts = sum(weights), len(weights)
    cuts = [round(n * sum(weights[:k]) / total) for k in range(parts)] + [n]
    for k in range(1, parts):
        cuts[k] = max(cuts[k], cuts[k - 1] + least)
    for k in range(parts - 1, 0, -1):
        cuts[k] = min(cuts[k], cuts[k + 1] - least)
    return tuple(cuts)


def grids(ranks: int, ndim: int) -> Iterator[tuple[int, ...]]:
    """Yield all ordered factorizations of `ranks` into `ndim` factors, the largest first factors first."""
    if ndim <= 1:
        yield (ranks,) * ndim
        return
    for first in range(ranks, 0, -1):
        if ranks % first == 0:
            for rest in grids(ranks // first, ndim - 1):
                yield (first, *rest)


def choose_grid(shape: tuple[int, ...], ranks: int, split: str, halo: Sequence[int]) -> tuple[int, ...]:
    """Return the grid of ranks for `split`: see `Layout.bricks`."""
    if not shape:
        raise ValueError("a field without axes cannot be cut; use a Scalar")
    named = split in SPLITS
    candidates = _named_grids(split, ranks, len(shape)) if named else [_parse_grid(split, ranks, len(shape))]
    fitting = [grid for grid in candidates if _all_fit(shape, grid, halo)]
    if not fitting:
        raise UsageError(_too_small(shape, ranks, split, halo))
    if split == "bricks":
        return min(fitting, key=lambda grid: (max(grid) - min(grid), tuple(-p for p in grid)))
    return min(fitting, key=lambda grid: _surface(shape, grid))


def _named_grids(split: str, ranks: int, ndim: int) -> list[tuple[int, ...]]:
    """Return the grids that a name in SPLITS allows; all grids for another name."""
    if split == "rows":
        return [(ranks,) + (1,) * (ndim - 1)]
    if split == "columns":
        return [(1,) * (ndim - 1) + (ranks,)]
    return list(grids(ranks, ndim))


def _all_fit(shape: tuple[int, ...], grid: tuple[int, ...], halo: Sequence[int]) -> bool:
    return all(h == 0 or n // p >= h for n, p, h in zip(shape, grid, halo, strict=True))


def _surface(shape: tuple[int, ...], grid: tuple[int, ...]) -> float:
    """Return the number of elements on the cut faces of a brick, which its halo exchange sends."""
    local = [n / p for n, p in zip(shape, grid, strict=True)]
    faces = (float(np.prod(local[:axis] + local[axis + 1 :])) for axis, p in enumerate(grid) if p > 1)
    return sum(faces)


def _parse_grid(split: str, ranks: int, ndim: int) -> tuple[int, ...]:
    try:
        grid = tuple(int(part) for part in split.split("x"))
    except ValueError:
        grid = ()
    if len(grid) != ndim or min(grid, default=0) < 1 or int(np.prod(grid)) != ranks:
        raise UsageError(
            f"--split {split!r} does not cut {ndim} axes into {ranks} parts: it must be one of "
            f"{', '.join(SPLITS)}, or {ndim} numbers joined by x whose product is {ranks}."
        )
    return grid


def _too_small(shape: tuple[int, ...], ranks: int, split: str, halo: Sequence[int]) -> str:
    size = "×".join(str(n) for n in shape)
    most = next((p for p in range(ranks - 1, 0, -1) if _some_grid_fits(shape, p, split, halo)), 0)
    width = max(halo)
    if not most:
        return (
            f"the domain of {size} is too small for a halo of {width}: it needs at least {width} along every axis. "
            "Use a larger domain or a narrower halo."
        )
    return (
        f"the domain of {size} is too small for {ranks} ranks split by {split!r}: each needs at least "
        f"{max(width, 1)} row(s) along every axis that is cut, beside its halo of {width}. "
        f"Use a larger domain, another --split, or at most {most} rank{'s' if most > 1 else ''}."
    )


def _some_grid_fits(shape: tuple[int, ...], ranks: int, split: str, halo: Sequence[int]) -> bool:
    return any(_all_fit(shape, grid, halo) for grid in _named_grids(split, ranks, len(shape)))
