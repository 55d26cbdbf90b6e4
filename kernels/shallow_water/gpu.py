"""The shallow-water step on a GPU: each thread block processes part of a strip of columns row by row."""

from typing import Any

import numpy as np

#: Threads per block, one per column: the last is WIDTH in gpu.cu, the others are for narrow border regions.
_WIDTHS = (32, 64, 128, 256)
#: Target number of blocks, minimum and maximum rows per block (with more rows, the two halo rows that a block also
#: reads cost less), and maximum blocks along the second axis of a grid.
_BLOCKS, _DEPTHS, _MOST_BLOCKS = 2048, (8, 64), 65535


def shallow_water(gpu: Any, *arguments: Any) -> None:
    """See the package."""
    arrays, (tdt, alpha, dx, dy, first) = arguments[:9], arguments[9:]
    rows, columns = arrays[0].shape
    width = next((width for width in _WIDTHS if width >= columns), _WIDTHS[-1])
    strips = -(-columns // width)
    depth = max(min(max(rows * strips // _BLOCKS, _DEPTHS[0]), _DEPTHS[1]), -(-rows // _MOST_BLOCKS))
    steps = (np.int64(array.strides[0] // array.itemsize) for array in arrays)
    shape = (np.int64(rows), np.int64(columns), np.int64(depth))
    numbers = (np.float64(x) for x in (tdt / 8.0, tdt / dx, tdt / dy, 4.0 / dx, 4.0 / dy, alpha))
    grid = (strips, -(-rows // depth))
    gpu.launch("shallow_water", grid, (width,), (*arrays, *steps, *shape, *numbers, np.int32(bool(first))))
