"""Interpolation of a Field between two resolutions of one domain, which branches use.

Both grids cover the same domain. Along an axis with N cells the centres are at (i + 1/2)/N of its length, and the faces
at i/N. Values are interpolated along one axis after the other, the first axis first, in float64 or complex128. The
value at a point depends on its global index and on the values of the file alone, so that the bits are the same for any
decomposition.

- `nearest` copies the value of the cell that contains the centre, and of the upper cell if it is on a border; for
  faces, that of the nearest face, and of the upper one if two are equally near. It takes any type.
- `linear` is linear between the two points around. Between a wall and the nearest centre the value is that of the
  centre. Around a periodic axis it is linear, too.
- `conservative` is the mean over the cell of values that are constant within each cell of the file (first-order
  conservative remapping: Jones, Mon. Weather Rev. 127, 1999). The cell of a face reaches to the centres beside it, and
  ends at a wall. The integral over the domain is kept, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from anyrank.errors import UsageError
from anyrank.field import Field

METHODS = ("nearest", "linear", "conservative")
#: The largest product of the numbers of cells along an axis, so that positions are exact in int64.
_LARGEST = 2**60


@dataclass(frozen=True)
class Axis:
    """One axis of a Field before and after the interpolation.

    `old` and `new` are the numbers of its points. `faces`: its points are on the faces of cells; on those with walls
    there is one more than there are cells. `periodic`: it has no walls.
    """

    old: int
    new: int
    faces: bool
    periodic: bool

    @property
    def cells(self) -> tuple[int, int]:
        """The numbers of cells before and after."""
        more = self.faces and not self.periodic
        return self.old - more, self.new - more

    def check(self, what: str) -> None:
        """Raise UsageError if the axis cannot be interpolated."""
        old, new = self.cells
        if min(old, new) < 1 or old * new > _LARGEST:
            raise UsageError(
                f"{what}: {self.old} points cannot be interpolated to {self.new}: there must be at least one cell, "
                "and the product of the numbers must be less than 2^60."
            )

    def stencil(self, method: str, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the points of the file, and their weights, for points of the new axis: two arrays (k, points).

        The points of the file are less than 0, or not less than `old`, only across a periodic boundary.
        """
        old, new = self.cells
        return {"nearest": self._nearest, "linear": self._linear, "conservative": self._overlaps}[method](
            index, old, new
        )

    def _nearest(self, index: np.ndarray, old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
        numerator = 2 * index * old + (new if self.faces else old)
        return (numerator // (2 * new))[None], np.ones((1, len(index)))

    def _linear(self, index: np.ndarray, old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
        numerator = 2 * index * old + (0 if self.faces else old - new)
        lower, rest = numerator // (2 * new), numerator % (2 * new)
        weights = np.stack([(2 * new - rest) / (2 * new), rest / (2 * new)])
        return self._clipped(np.stack([lower, lower + 1])), weights

    def _overlaps(self, index: np.ndarray, old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
        # Lengths are in units of 1/(2 old new) of the axis. `count` is that of the whole axis, so that all ranks add
        # the same number of terms.
        low, high = self._ends(index, old, new)
        first = self._clipped((low + new * self.faces) // (2 * new))
        last = self._clipped((high - 1 + new * self.faces) // (2 * new))
        count = -(-old // new) + 1
        points = np.minimum(first + np.arange(count)[:, None], last)
        below, above = self._ends(points, new, old)
        overlap = np.minimum(high, above) - np.maximum(low, below)
        overlap[1:] *= points[1:] != points[:-1]  # the last point once
        return points, overlap / (high - low)

    def _ends(self, index: np.ndarray, width: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the cells of points, for `cells` cells of 2 `width` units each."""
        low = (2 * index - self.faces) * width
        high = low + 2 * width
        if self.faces and not self.periodic:
            low, high = np.maximum(low, 0), np.minimum(high, 2 * width * cells)
        return low, high

    def _clipped(self, points: np.ndarray) -> np.ndarray:
        return points if self.periodic else np.clip(points, 0, self.old - 1)


def axes_of(field: Field, shape: Sequence[int]) -> list[Axis]:
    """Return the axes of a Field whose values in a file have another shape, without that of its components."""
    first = len(field.components)
    sizes = zip(shape[first:], field.shape[first:], field.periodic, strict=True)
    return [Axis(old, new, axis in field.on_faces, wraps) for axis, (old, new, wraps) in enumerate(sizes)]


def regrid(dataset: Any, field: Field, method: str) -> np.ndarray:
    """Return the block of a Field from a dataset of another shape, of which the needed part is read. Not collective."""
    first, layout = len(field.components), field.layout
    exact = np.dtype(field.dtype if method == "nearest" else np.result_type(field.dtype, np.float64))
    if 0 in layout.local_shape:
        return np.empty(layout.local_shape, field.dtype)
    segments, steps = [[(0, size)] for size in dataset.shape[:first]], []
    for axis, each in enumerate(axes_of(field, dataset.shape), first):
        points, weights = each.stencil(method, np.arange(layout.start[axis], layout.stop[axis]))
        read, positions = _hull(points, each.old)
        segments.append(read)
        steps.append((axis, positions, weights))
    values = _read(dataset, segments).astype(exact, copy=False)
    for axis, positions, weights in steps:
        values = _combine(values, axis, positions, weights, copy=method == "nearest")
    return values.astype(field.dtype, copy=False)


def _hull(points: np.ndarray, size: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Return one or two ranges of a periodic axis that hold all points, and the positions of the points in them."""
    low, count = int(points.min()), int(np.ptp(points)) + 1
    if count >= size:
        return [(0, size)], points % size
    start = low % size
    stop = start + count
    return [(start, min(stop, size)), *([(0, stop - size)] if stop > size else [])], points - low


def _read(dataset: Any, segments: Sequence[Sequence[tuple[int, int]]]) -> np.ndarray:
    """Read the product of ranges along all axes as one array."""
    values = np.empty([sum(b - a for a, b in ranges) for ranges in segments], dataset.dtype)
    for part in product(*(_placed(ranges) for ranges in segments)):
        values[tuple(target for _, target in part)] = dataset[tuple(source for source, _ in part)]
    return values


def _placed(ranges: Sequence[tuple[int, int]]) -> list[tuple[slice, slice]]:
    """Return each range as a slice of the dataset, and as a slice of what is read."""
    placed, at = [], 0
    for a, b in ranges:
        placed.append((slice(a, b), slice(at, at + b - a)))
        at += b - a
    return placed


def _combine(values: np.ndarray, axis: int, positions: np.ndarray, weights: np.ndarray, copy: bool) -> np.ndarray:
    """Return the weighted sums of values along an axis, or the values themselves."""
    if copy:
        copied: np.ndarray = np.take(values, positions[0], axis)
        return copied
    shape = [-1 if other == axis else 1 for other in range(values.ndim)]
    result: np.ndarray = np.take(values, positions[0], axis) * weights[0].reshape(shape)
    for position, weight in zip(positions[1:], weights[1:], strict=True):
        used = weight != 0  # 0 times an infinity is no number
        target = (slice(None),) * axis + (used,)
        result[target] += np.take(values, position[used], axis) * weight[used].reshape(shape)
    return result
