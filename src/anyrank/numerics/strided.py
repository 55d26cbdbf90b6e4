"""Iteration over strided arrays: merged axes, blocks for kernels, and contiguous runs for files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

#: The number of elements that are copied at a time if a kernel needs another dtype or order: on the host, and on a GPU.
#: And the largest number of columns that a kernel takes.
_COPIED, _COPIED_ON_GPU, _WIDEST = 1 << 15, 1 << 24, 1 << 31
#: Bytes that are copied, digested or written at a time.
PIECE = 1 << 24


def contiguous_strides(shape: Sequence[int], item: int = 1) -> list[int]:
    """Return the strides of a contiguous array in C order, with `item` as the stride of its elements."""
    return [item * prod(shape[axis + 1 :]) for axis in range(len(shape))]


def offset_of(index: Sequence[int], strides: Sequence[int]) -> int:
    """Return the offset of the element at an index."""
    return sum(i * stride for i, stride in zip(index, strides, strict=True))


def merge_axes(shape: Sequence[int], *strides: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """Merge adjacent axes that are one axis of constant stride in each of the `strides`.

    Axis i merges with axis i + 1 if its stride is the length times the stride of axis i + 1. Returns the shape and the
    strides of the merged axes.
    """
    last = len(shape) - 1
    #: The last axis of each group of axes that become one.
    kept = [i for i in range(last + 1) if i == last or any(s[i] != shape[i + 1] * s[i + 1] for s in strides)]
    return [prod(shape[i + 1 : j + 1]) for i, j in pairwise([-1, *kept])], [[s[i] for i in kept] for s in strides]


def most_copied(array: Any) -> int:
    """Return the number of elements of an array, of the host or of a GPU, that are copied at a time."""
    return _COPIED if isinstance(array, np.ndarray) else _COPIED_ON_GPU


def tiles(array: Any, whole: bool) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Cut an array into blocks for kernels: two axes, the last one contiguous.

    Yields the index of the first element of each block (after leading zeros if the array has fewer than two axes) and
    the block: a view, or a copy if the last axis is not contiguous. Blocks are as large as possible if `whole`, and
    small if the caller or this function copies them.
    """
    array = array.reshape((1,) * (2 - array.ndim) + array.shape)
    *lead, rows, columns = array.shape
    whole = whole and (array.strides[-1] == array.itemsize or columns == 1)
    copied = most_copied(array)
    wide = max(1, min(columns, _WIDEST if whole else copied))
    high = max(1, sys.maxsize if whole else copied // wide)
    for index in np.ndindex(*lead):
        for row in range(0, rows, high):
            for column in range(0, columns, wide):
                block = array[index][row : row + high, column : column + wide]
                yield (*index, row, column), block if whole or block.flags.c_contiguous else block.copy()


def flat_tiles(array: Any, whole: bool, *strides: Sequence[int]) -> Iterator[Any]:
    """Cut an array into blocks for kernels, the same blocks for the same `strides`: see `merge_axes` and `blocks`.

    If an array on a GPU has more than two axes, many planes are copied at a time, because the host waits for each
    block.
    """
    array = array.reshape(merge_axes(array.shape, *strides)[0])
    parts: Iterable[Any] = (array,)
    if array.ndim > 2 and array.size and not isinstance(array, np.ndarray):
        planes = max(1, _COPIED_ON_GPU * len(array) // array.size)
        parts = (array[first : first + planes].copy().reshape(-1) for first in range(0, len(array), planes))
    return (block for part in parts for _, block in tiles(part, whole))


def has_contiguous_rows(array: Any) -> bool:
    """Return whether the last axis is contiguous."""
    return not array.ndim or bool(array.shape[-1] == 1 or array.strides[-1] == array.itemsize)


def extent_axis(brick: Sequence[int], shape: Sequence[int]) -> int:
    """Return the first axis of the longest runs of a brick that are contiguous in the global array."""
    axis = len(shape) - 1
    while axis > 0 and brick[axis] == shape[axis]:
        axis -= 1
    return axis


def extents(part: np.ndarray, shape: Sequence[int], start: Sequence[int]) -> Iterator[tuple[int, memoryview]]:
    """Yield the contiguous runs of a C-contiguous brick at `start` of a global array: the byte offset and the bytes."""
    if part.size == 0:
        return
    axis, strides = extent_axis(part.shape, shape), contiguous_strides(shape, part.itemsize)
    steps = (np.arange(n) * stride for n, stride in zip(part.shape[:axis], strides, strict=False))
    offsets = np.ravel(sum(np.ix_(*steps), start=np.int64(offset_of(start, strides))))
    data = part.reshape(-1).view(np.uint8).data
    length = len(data) // len(offsets)
    for k, offset in enumerate(offsets.tolist()):
        yield offset, data[k * length : (k + 1) * length]


def row_slices(block: Any) -> list[slice]:
    """Return the rows of a block in pieces of about PIECE bytes, or `block.piece`; no piece if the block is empty."""
    rows = max(1, getattr(block, "piece", PIECE) * len(block) // max(1, block.nbytes))
    return [slice(row, row + rows) for row in range(0, len(block) if block.size else 0, rows)]
