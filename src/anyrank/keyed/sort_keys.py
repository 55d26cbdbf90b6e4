"""Codes of keys: integers or bytes whose plain order is the order in which keys are sorted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: What keys may be, as NumPy writes types; and the words for it.
TYPES = ("i4", "i8", "u4", "u8", "f4", "f8")
SUPPORTED = "int32, int64, uint32, uint64, float32, float64 or bytes of a fixed length"


def sortable(dtype: np.dtype[Any]) -> bool:
    """Whether keys may be of this type."""
    return dtype.str[1:] in TYPES or (dtype.kind == "S" and dtype.itemsize > 0)


def encode(keys: NDArray[Any]) -> NDArray[Any]:
    """The codes of keys, one to one; integers, and bytes beyond eight, are their own and are not copied.

    Floating-point numbers become unsigned integers of their size, such that −0 comes before 0 and every NaN after
    +∞, whatever its bits. Up to eight bytes become the uint64 that has them as its leading digits, zeros behind them.
    """
    keys = np.ascontiguousarray(keys, keys.dtype.newbyteorder("="))
    if keys.dtype.kind == "f":
        bits, top, lowest = _float(keys.dtype)
        codes: NDArray[Any] = (keys.view(f"i{keys.itemsize}") >> (bits - 1)).view(f"u{keys.itemsize}")
        codes |= top
        codes ^= keys.view(codes.dtype)
        codes -= lowest
        return codes
    if keys.dtype.kind == "S" and keys.itemsize <= 8:
        digits: NDArray[Any] = keys.astype("S8").view(">u8").astype(np.uint64)
        return digits
    return keys


def decode(codes: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The keys of codes, bit for bit, in the machine's order of bytes."""
    if dtype.kind == "f":
        bits, top, lowest = _float(dtype)
        keys: NDArray[Any] = codes + lowest
        mask = ~(keys.view(f"i{keys.itemsize}") >> (bits - 1)).view(keys.dtype)
        mask |= top
        keys ^= mask
        return keys.view(dtype.newbyteorder("="))
    if dtype.kind == "S" and dtype.itemsize <= 8:
        text: NDArray[Any] = codes.astype(">u8").view("S8").astype(dtype)
        return text
    return codes


def _float(dtype: np.dtype[Any]) -> tuple[int, Any, Any]:
    """The bits of a type of floating-point numbers, the sign, and the code of −∞ before it became 0.

    Codes below it would be those of negative NaNs: the subtraction wraps them round to the end.
    """
    bits = 8 * dtype.itemsize
    kind = np.dtype(f"u{dtype.itemsize}").type
    infinity = np.array(-np.inf, dtype.newbyteorder("=")).view(kind)[()]
    return bits, kind(1 << (bits - 1)), ~infinity
