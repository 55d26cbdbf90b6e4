"""The digest in plain NumPy."""

import numpy as np

from anyrank.kernels.digest import GOLDEN, ROUND_1, ROUND_2

_MODULUS = 1 << 64


def digest(bits: np.ndarray, first: int, row_step: int) -> int:
    """Return the digest: the sum of the mixed elements mod 2^64."""
    rows = np.arange(bits.shape[0], dtype=np.uint64)[:, None] * np.uint64(row_step % _MODULUS)
    index_plus_1 = rows + np.arange(bits.shape[1], dtype=np.uint64) + np.uint64((first + 1) % _MODULUS)
    h = bits ^ index_plus_1 * np.uint64(GOLDEN)
    h = (h ^ h >> np.uint64(30)) * np.uint64(ROUND_1)
    h = (h ^ h >> np.uint64(27)) * np.uint64(ROUND_2)
    h = h ^ h >> np.uint64(31)
    return int(h.sum(dtype=np.uint64))
