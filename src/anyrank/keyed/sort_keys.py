"""Sort keys: encode keys as integers or bytes that sort like the keys."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The supported key types as NumPy type strings, and in words for messages.
TYPES = ("i4", "i8", "u4", "u8", "f4", "f8")
SUPPORTED = "int32, int64, uint32, uint64, float32, float64 or bytes of a fixed length"


def sortable(dtype: np.dtype[Any]) -> bool:
    """Return whether keys of this type can be sorted."""
    return dtype.str[1:] in TYPES or (dtype.kind == "S" and dtype.itemsize > 0)


def encode(keys: NDArray[Any]) -> NDArray[Any]:
    """Encode keys as codes that sort like the keys. Integers and byte strings over 8 bytes are returned uncopied.

    Floating-point numbers become unsigned integers of the same size: −0 sorts before 0, and every NaN after +∞. Byte
    strings of up to 8 bytes become big-endian uint64 numbers, padded with zeros.
    """
    keys = np.ascontiguousarray(keys, keys.dtype.newbyteorder("="))
    if keys.dtype.kind == "f":
        bits, top, lowest = _float(keys.dtype)
        # Negative numbers flip all bits, others only the sign bit: then unsigned order is numeric order.
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
    """Decode codes to keys, bit for bit, in native byte order."""
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
    """Return the number of bits of a floating-point type, its sign bit, and the code of −∞ before the subtraction.

    `encode` subtracts this code. Only negative NaNs have lower codes: they wrap around to the end.
    """
    bits = 8 * dtype.itemsize
    kind = np.dtype(f"u{dtype.itemsize}").type
    infinity = np.array(-np.inf, dtype.newbyteorder("=")).view(kind)[()]
    return bits, kind(1 << (bits - 1)), ~infinity
