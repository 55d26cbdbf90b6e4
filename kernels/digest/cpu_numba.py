"""The digest for the CPU, compiled by Numba when first called."""

from typing import Any

import numpy as np
from numba import njit
from numpy.lib.stride_tricks import as_strided

from anyrank.kernels.digest import GOLDEN, ROUND_1, ROUND_2

_GOLDEN, _ROUND_1, _ROUND_2 = np.uint64(GOLDEN), np.uint64(ROUND_1), np.uint64(ROUND_2)
_ONE, _30, _27, _31 = np.uint64(1), np.uint64(30), np.uint64(27), np.uint64(31)
_MODULUS = 1 << 64


def digest(bits: np.ndarray, first: int, row_step: int) -> int:
    """The sum of the mixed elements mod 2^64."""
    rows, columns = bits.shape
    if bits.size == 0:
        return 0
    if bits.strides[0] < 0 or bits.strides[0] % 8:
        bits = np.ascontiguousarray(bits)
    # The memory from the first element to the last, read-only: one type for all arrays, with contiguous rows.
    pitch = bits.strides[0] // 8
    memory = as_strided(bits, ((rows - 1) * pitch + columns,), (8,), writeable=False)
    return int(_digest(memory, rows, columns, pitch, np.uint64(first % _MODULUS), np.uint64(row_step % _MODULUS)))


@njit(cache=True, nogil=True)
def _digest(memory: Any, rows: int, columns: int, pitch: int, first: Any, row_step: Any) -> Any:
    total = np.uint64(0)
    for r in range(rows):
        row = memory[r * pitch : r * pitch + columns]
        for c in range(columns):
            h = row[c] ^ (first + np.uint64(c) + _ONE) * _GOLDEN
            h = (h ^ (h >> _30)) * _ROUND_1
            h = (h ^ (h >> _27)) * _ROUND_2
            total += h ^ (h >> _31)
        first += row_step
    return total
