"""Philox4x32-10 for the CPU, compiled by Numba when first called."""

from typing import Any

import numpy as np
from numba import njit

from anyrank.kernels.philox import MULTIPLIER_0, MULTIPLIER_1, ROUNDS, WEYL_0, WEYL_1

_M0, _M1 = np.uint64(MULTIPLIER_0), np.uint64(MULTIPLIER_1)
_W0, _W1 = np.uint64(WEYL_0), np.uint64(WEYL_1)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def words(seed: int, stream: int, step: int, index: np.ndarray, out: np.ndarray) -> None:
    """Write the four words of each index into a row of `out`."""
    _words(np.uint64(seed), np.uint64(stream), np.uint64(step), index, out)


@njit(cache=True, nogil=True, inline="always")
def block(seed: Any, stream: Any, step: Any, index: Any) -> Any:
    """The four words of one index, in uint64."""
    k0, k1 = seed & _LOW, seed >> _HALF
    c0, c1, c2, c3 = index & _LOW, index >> _HALF, step, stream
    for _ in range(ROUNDS):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c2 = p1 >> _HALF ^ c1 ^ k0, p0 >> _HALF ^ c3 ^ k1
        c1, c3 = p1 & _LOW, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@njit(cache=True, nogil=True)
def _words(seed: Any, stream: Any, step: Any, index: Any, out: Any) -> None:
    for i in range(index.size):
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = block(seed, stream, step, index[i])
