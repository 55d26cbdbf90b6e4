"""The shallow-water step on a GPU: one thread a cell."""

from typing import Any

import numpy as np

_COLUMNS, _ROWS = 64, 4  # of a block of threads: neighbours along a row read neighbouring numbers
_MOST_BLOCKS = 65535


def shallow_water(gpu: Any, *arguments: Any) -> None:
    """See the package."""
    arrays, (tdt, alpha, dx, dy, first) = arguments[:9], arguments[9:]
    rows, columns = arrays[0].shape
    grid = (-(-columns // _COLUMNS), min(-(-rows // _ROWS), _MOST_BLOCKS))
    steps = (np.int64(array.strides[0] // array.dtype.itemsize) for array in arrays)
    numbers = (np.float64(tdt), np.float64(alpha), np.float64(dx), np.float64(dy), np.int32(bool(first)))
    shape = (np.int64(rows), np.int64(columns))
    gpu.launch("shallow_water", grid, (_COLUMNS, _ROWS), (*arrays, *steps, *shape, *numbers))
