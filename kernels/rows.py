"""What the GPU bodies tell CUDA of rows: see rows.h."""

from typing import Any

import numpy as np

THREADS = 256
_BATCH = 8
#: Sixteen blocks for each multiprocessor of an H200, four at a time: each thread then takes many elements.
_MOST_BLOCKS = 16 * 132


def walk(arrays: tuple[Any, ...], blocks: int | None = None) -> tuple[tuple[int], tuple[Any, ...]]:
    """The grid, and the arguments by which a kernel walks over arrays of one shape, of one or two axes.

    The last axis is contiguous and has at most 2^31 elements. The arguments are the arrays, how many elements their
    rows are apart, the columns and the elements. Rows that are no whole elements apart are copied.
    """
    arrays = tuple(array.copy() if array.strides[0] % array.itemsize else array for array in arrays)
    size, columns = arrays[0].size, arrays[0].shape[-1]
    pitches = (np.int64(array.strides[0] // array.itemsize) for array in arrays)
    grid = blocks or min(-(-size // (THREADS * _BATCH)), _MOST_BLOCKS)
    return (grid,), (*arrays, *pitches, np.uint32(columns), np.uint64(size))
