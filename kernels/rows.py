"""Launch arguments for CUDA functions that iterate over strided rows: see rows.h."""

from typing import Any

import numpy as np

THREADS = 256
_BATCH = 8
#: At most sixteen blocks for each multiprocessor of an H200, four at a time, so that a thread processes many elements.
_MOST_BLOCKS = 16 * 132


def walk(arrays: tuple[Any, ...], blocks: int | None = None, parts: int = 1) -> tuple[tuple[int, int], tuple[Any, ...]]:
    """Return the grid and the arguments for a kernel that iterates over arrays of one shape with one or two axes.

    The last axis must be contiguous and have at most 2^31 elements. The arguments are the arrays, their row strides in
    elements, the number of columns and the number of elements. An array whose row stride is not a multiple of its
    element size is copied. If the rows are `parts` of which each is reduced by itself, the blocks (i, k) of the grid
    iterate over row k, and the number of elements is that of a row.
    """
    arrays = tuple(array.copy() if array.strides[0] % array.itemsize else array for array in arrays)
    size, columns = arrays[0].size // parts, arrays[0].shape[-1]
    pitches = (np.int64(array.strides[0] // array.itemsize) for array in arrays)
    grid = blocks or min(-(-size // (THREADS * _BATCH)), -(-_MOST_BLOCKS // parts))
    return (grid, parts), (*arrays, *pitches, np.uint32(columns), np.uint64(size))
