"""Philox4x32-10 in plain NumPy."""

import numpy as np

from anyrank.kernels.philox import MULTIPLIER_0, MULTIPLIER_1, ROUNDS, WEYL_0, WEYL_1

_M0, _M1 = np.uint64(MULTIPLIER_0), np.uint64(MULTIPLIER_1)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def words(seed: int, stream: int, step: int, index: np.ndarray, out: np.ndarray) -> None:
    """Write the four words of each index into a row of `out`."""
    key_0, key_1 = seed & 0xFFFFFFFF, seed >> 32
    c0, c1, c2, c3 = index & _LOW, index >> _HALF, np.uint64(step), np.uint64(stream)
    for r in range(ROUNDS):
        p0, p1 = c0 * _M0, c2 * _M1
        c0 = p1 >> _HALF ^ c1 ^ np.uint64((key_0 + r * WEYL_0) & 0xFFFFFFFF)
        c2 = p0 >> _HALF ^ c3 ^ np.uint64((key_1 + r * WEYL_1) & 0xFFFFFFFF)
        c1, c3 = p1 & _LOW, p0 & _LOW
    out[:, 0], out[:, 1], out[:, 2], out[:, 3] = c0, c1, c2, c3
