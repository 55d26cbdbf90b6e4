"""Points in the quarter circle for the CPU, compiled by Numba when first called."""

from typing import Any

import numpy as np
from numba import njit

from anyrank.kernels.philox.cpu_numba import block

_ZERO, _ONE, _TWO, _62 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(62)


def quarter_circle(seed: int, stream: int, first: int, count: int) -> int:
    """The number of hits among the points first … first + count − 1."""
    return int(_hits(np.uint64(seed), np.uint64(stream), np.uint64(first), np.uint64(first + count)))


@njit(cache=True, nogil=True, inline="always")
def _misses(seed: Any, stream: Any, index: Any) -> Any:
    c0, c1, c2, c3 = block(seed, stream, _ZERO, index)
    x, y, u, v = c0 >> _ONE, c1 >> _ONE, c2 >> _ONE, c3 >> _ONE
    return (x * x + y * y) >> _62, (u * u + v * v) >> _62


@njit(cache=True, nogil=True)
def _hits(seed: Any, stream: Any, first: Any, end: Any) -> Any:
    begin, last = first >> _ONE, (end + _ONE) >> _ONE
    hits = _TWO * (last - begin)
    for index in range(begin, last):
        even, odd = _misses(seed, stream, index)
        hits -= even + odd
    if first & _ONE:  # the point before the first shares its block
        hits -= _ONE - _misses(seed, stream, begin)[0]
    if end & _ONE:
        hits -= _ONE - _misses(seed, stream, end >> _ONE)[1]
    return hits
