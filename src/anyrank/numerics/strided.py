"""Walks over arrays with strides: axes joined, blocks as kernels take them, runs that lie together in a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

#: Elements copied at a time where a kernel needs them in another type or order, on the host and on a GPU; and
#: the most in a row that a kernel takes.
_COPIED, _COPIED_ON_GPU, _WIDEST = 1 << 15, 1 << 24, 1 << 31


def contiguous_strides(shape: Sequence[int], item: int = 1) -> list[int]:
    """The strides of an array in C order without gaps, whose elements are `item` apart."""
    return [item * prod(shape[axis + 1 :]) for axis in range(len(shape))]


def offset_of(index: Sequence[int], strides: Sequence[int]) -> int:
    """How far the element of an index is from the first one."""
    return sum(place * stride for place, stride in zip(index, strides, strict=True))


def merged(shape: Sequence[int], *walks: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """Join every axis to the next one where that continues it in all walks, which are steps from element to element.

    Returns the shape and the steps of the joined axes.
    """
    last = len(shape) - 1
    kept = [i for i in range(last + 1) if i == last or any(w[i] != shape[i + 1] * w[i + 1] for w in walks)]
    return [prod(shape[i + 1 : j + 1]) for i, j in pairwise([-1, *kept])], [[walk[i] for i in kept] for walk in walks]


def blocks(array: Any, whole: bool) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Cut an array into blocks as kernels take them: two axes, the last contiguous.

    Yields the index of each block's first element (with zeros in front where the array has fewer than two
    axes) and the block: a view, or a copy where the last axis is not contiguous. Blocks are as large as
    can be where `whole`, and small where the caller, or this function, copies them.
    """
    array = array.reshape((1,) * (2 - array.ndim) + array.shape)
    *lead, rows, columns = array.shape
    whole = whole and (array.strides[-1] == array.itemsize or columns == 1)
    copied = _COPIED if isinstance(array, np.ndarray) else _COPIED_ON_GPU
    wide = max(1, min(columns, _WIDEST if whole else copied))
    high = max(1, sys.maxsize if whole else copied // wide)
    for index in np.ndindex(*lead):
        for row in range(0, rows, high):
            for column in range(0, columns, wide):
                block = array[index][row : row + high, column : column + wide]
                yield (*index, row, column), block if whole or block.flags.c_contiguous else block.copy()


def flat_blocks(array: Any, whole: bool, *walks: Sequence[int]) -> Iterator[Any]:
    """The elements of an array in blocks as kernels take them, cut alike for equal walks: see `merged` and `blocks`.

    Where a GPU's lie in more than two axes many planes are copied at a time, for the host waits for each block.
    """
    array = array.reshape(merged(array.shape, *walks)[0])
    parts: Iterable[Any] = (array,)
    if array.ndim > 2 and array.size and not isinstance(array, np.ndarray):
        planes = max(1, _COPIED_ON_GPU * len(array) // array.size)
        parts = (array[first : first + planes].copy().reshape(-1) for first in range(0, len(array), planes))
    return (block for part in parts for _, block in blocks(part, whole))


def has_contiguous_rows(array: Any) -> bool:
    """Whether the elements along the last axis lie one after the other."""
    return not array.ndim or bool(array.shape[-1] == 1 or array.strides[-1] == array.itemsize)


def run_axis(brick: Sequence[int], shape: Sequence[int]) -> int:
    """The first axis of the longest runs of a brick that lie together in the global array."""
    axis = len(shape) - 1
    while axis > 0 and brick[axis] == shape[axis]:
        axis -= 1
    return axis


def runs(part: np.ndarray, shape: Sequence[int], start: Sequence[int]) -> Iterator[tuple[int, memoryview]]:
    """The runs of a C-contiguous brick at `start` of a global array: offset in bytes there, and the bytes."""
    if part.size == 0:
        return
    axis, strides = run_axis(part.shape, shape), contiguous_strides(shape, part.itemsize)
    steps = (np.arange(n) * stride for n, stride in zip(part.shape[:axis], strides, strict=False))
    offsets = np.ravel(sum(np.ix_(*steps), start=np.int64(offset_of(start, strides))))
    data = part.reshape(-1).view(np.uint8).data
    length = len(data) // len(offsets)
    for k, offset in enumerate(offsets.tolist()):
        yield offset, data[k * length : (k + 1) * length]
