"""Extremes: the smallest or largest element of an array, and its code, an integer that ranks compare."""

from __future__ import annotations

from typing import Any

import numpy as np

_HIGHEST, LOWEST = (1 << 63) - 1, -(1 << 63)
#: Elements of a GPU along an axis whose extreme one block of threads finds.
_EACH = 1 << 12


def reduced(array: Any, largest: bool) -> Any:
    """The smallest or largest element, or NaN.

    Where a GPU's elements have gaps between them, CuPy gives every result one block of threads, and so the whole
    array to one. Therefore parts of the longest axis come first, and then what is left, which has no gaps.
    """

    def extreme(part: Any, **axis: int) -> Any:
        return part.max(**axis) if largest else part.min(**axis)

    if isinstance(array, np.ndarray) or array.flags.c_contiguous or array.flags.f_contiguous:
        return extreme(array)
    rows = array.swapaxes(max(range(array.ndim), key=lambda axis: (array.shape[axis], axis)), -1)
    *others, columns = rows.shape
    whole = columns // _EACH * _EACH
    found = []
    if whole:
        found.append(extreme(rows[..., :whole].reshape(*others, whole // _EACH, _EACH), axis=-1).ravel())
    if whole < columns:
        found.append(extreme(rows[..., whole:], axis=-1).ravel())
    return extreme(np.concatenate(found))


def code_of(value: float, dtype: np.dtype[Any], largest: bool) -> int:
    """An int64 that is larger for what is more extreme, whose largest value is NaN's."""
    if value != value:
        return _HIGHEST
    code = int(value) - _offset(dtype) if dtype.kind != "f" else _ordered(int(np.float64(value).view(np.int64)))
    return code if largest else ~code


def decoded(code: int, dtype: np.dtype[Any], largest: bool) -> float:
    """The value of a code; NaN of NaN's."""
    code = code if largest else ~code
    if dtype.kind != "f":
        return code + _offset(dtype)
    return float(np.int64(_ordered(code)).view(np.float64))


def _offset(dtype: np.dtype[Any]) -> int:
    return 1 << 63 if dtype == np.uint64 else 0


def _ordered(bits: int) -> int:
    """The bits of a double as an integer in the doubles' order, and back: negative ones count downwards."""
    return bits if bits >= 0 else bits ^ _HIGHEST
