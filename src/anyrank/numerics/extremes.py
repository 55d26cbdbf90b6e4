"""The smallest or largest element of an array, and its encoding as an integer for the reduction over ranks."""

from __future__ import annotations

from typing import Any

import numpy as np

_HIGHEST, LOWEST = (1 << 63) - 1, -(1 << 63)
#: The number of elements along an axis of an array on a GPU that one block of threads reduces.
_PER_BLOCK = 1 << 12


def extreme(array: Any, largest: bool) -> Any:
    """Return the smallest or largest element, or NaN if there is one.

    CuPy reduces a non-contiguous array with one block of threads per result, so that one block would reduce the whole
    array. Therefore this function first reduces parts of the longest axis, and then their results, which are
    contiguous.
    """

    def reduce(part: Any, **axis: int) -> Any:
        return part.max(**axis) if largest else part.min(**axis)

    if isinstance(array, np.ndarray) or array.flags.c_contiguous or array.flags.f_contiguous:
        return reduce(array)
    rows = array.swapaxes(max(range(array.ndim), key=lambda axis: (array.shape[axis], axis)), -1)
    *others, columns = rows.shape
    divisible = columns // _PER_BLOCK * _PER_BLOCK
    partial = []
    if divisible:
        shape = *others, divisible // _PER_BLOCK, _PER_BLOCK
        partial.append(reduce(rows[..., :divisible].reshape(shape), axis=-1).ravel())
    if divisible < columns:
        partial.append(reduce(rows[..., divisible:], axis=-1).ravel())
    return reduce(np.concatenate(partial))


def encode(value: float, dtype: np.dtype[Any], largest: bool) -> int:
    """Return an int64 that increases with the order of the values, or decreases; NaN has the largest code."""
    if value != value:
        return _HIGHEST
    code = int(value) - _offset(dtype) if dtype.kind != "f" else _ordered(int(np.float64(value).view(np.int64)))
    return code if largest else ~code


def decode(code: int, dtype: np.dtype[Any], largest: bool) -> float:
    """Return the value of a code."""
    code = code if largest else ~code
    if dtype.kind != "f":
        return code + _offset(dtype)
    return float(np.int64(_ordered(code)).view(np.float64))


def _offset(dtype: np.dtype[Any]) -> int:
    return 1 << 63 if dtype == np.uint64 else 0


def _ordered(bits: int) -> int:
    """Map the bits of a double to an integer with the order of the doubles, and back.

    The bits of negative doubles, as an integer, decrease with the value; flipping all bits except the sign reverses it.
    """
    return bits if bits >= 0 else bits ^ _HIGHEST
