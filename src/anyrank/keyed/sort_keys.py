"""Sort keys: encode keys as integers or bytes that sort like the keys.

Several keys become one code: the codes of all keys as big-endian digits, one after another. Codes of up to 8 bytes are
integers, longer ones are bytes of a fixed length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The supported key types, in words for messages.
SUPPORTED = "numbers of at most 8 bytes, bool, times, or bytes or Unicode text of a fixed length"
#: The code of times: their int64, so that the least number (NaT) becomes the largest code.
_TIME = np.uint64((1 << 63) - 1)


@dataclass(frozen=True)
class Key:
    """A key to sort by: the name of a column, and its direction."""

    name: str
    descending: bool = False


def sortable(dtype: np.dtype[Any]) -> bool:
    """Return whether keys of this type can be sorted."""
    if dtype.kind in "biufmM":
        return dtype.itemsize <= 8
    return dtype.kind in "SU" and dtype.itemsize > 0


def encode_keys(keys: Sequence[NDArray[Any]], descending: Sequence[bool]) -> NDArray[Any]:
    """Encode the columns of keys, primary key first, as one column of codes; see `encode`."""
    if len(keys) == 1:
        return encode(keys[0], descending[0])
    digits = np.concatenate([_digits(key, down) for key, down in zip(keys, descending, strict=True)], axis=1)
    return encode(digits.view(f"S{digits.shape[1]}").reshape(-1))


def decode_keys(codes: NDArray[Any], types: Sequence[np.dtype[Any]], descending: Sequence[bool]) -> list[NDArray[Any]]:
    """Decode codes to the columns of keys, bit for bit, in native byte order."""
    if len(types) == 1:
        return [decode(codes, types[0], descending[0])]
    kinds = [_code_type(dtype) for dtype in types]
    ends = np.cumsum([kind.itemsize for kind in kinds])
    digits = decode(codes, np.dtype(f"S{ends[-1]}")).view(np.uint8).reshape(len(codes), ends[-1])
    parts = [np.ascontiguousarray(part) for part in np.split(digits, ends[:-1], axis=1)]
    return [
        _decode(part.view(kind).reshape(-1), dtype, down)
        for part, kind, dtype, down in zip(parts, kinds, types, descending, strict=True)
    ]


def _digits(keys: NDArray[Any], descending: bool) -> NDArray[np.uint8]:
    """Return codes as rows of digits, the most significant byte first."""
    codes = _encode(keys, descending)
    codes = np.ascontiguousarray(codes, _code_type(keys.dtype))
    return codes.view(np.uint8).reshape(len(keys), codes.itemsize)


def encode(keys: NDArray[Any], descending: bool = False) -> NDArray[Any]:
    """Encode keys as codes that sort like the keys: integers of 4 or 8 bytes, or bytes of more than 8.

    −0 sorts before 0, every NaN after +∞, and NaT after all times; NaN and NaT are the last in descending order, too.
    Ascending integers of 4 or 8 bytes, and byte strings over 8 bytes, are returned uncopied.
    """
    if keys.dtype.kind == "i" and keys.dtype.itemsize >= 4:
        keys = np.ascontiguousarray(keys, keys.dtype.newbyteorder("="))
        return ~keys if descending else keys
    codes = _encode(keys, descending)
    if codes.dtype.kind == "S":
        if codes.itemsize > 8:
            return codes
        digits: NDArray[Any] = codes.astype("S8").view(">u8").astype(np.uint64)
        return digits
    return codes.astype(np.uint32) if codes.itemsize < 4 else codes


def decode(codes: NDArray[Any], dtype: np.dtype[Any], descending: bool = False) -> NDArray[Any]:
    """Decode codes to keys, bit for bit, in native byte order."""
    kind = _code_type(dtype)
    if dtype.kind == "i" and dtype.itemsize >= 4:
        return ~codes if descending else codes
    if kind.kind == "S" and kind.itemsize <= 8:
        codes = codes.astype(">u8").view("S8").astype(kind)
    return _decode(codes, dtype, descending)


def _code_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of `_encode`, in big-endian byte order."""
    return np.dtype(f"S{dtype.itemsize}" if dtype.kind in "SU" else f">u{dtype.itemsize}")


def _encode(keys: NDArray[Any], descending: bool) -> NDArray[Any]:
    """Return unsigned integers of the size of the keys, or bytes, that sort like the keys."""
    keys = np.ascontiguousarray(keys, keys.dtype.newbyteorder("="))
    if keys.dtype.kind == "U":
        keys = keys.view(np.uint32).astype(">u4").view(f"S{keys.itemsize}").reshape(-1)
    if keys.dtype.kind == "S":
        return (~keys.view(np.uint8)).view(keys.dtype) if descending else keys
    codes: NDArray[Any] = keys.view(f"u{keys.itemsize}")
    if keys.dtype.kind == "f":
        bits, top, lowest = _float(keys.dtype)
        # Negative numbers flip all bits, others only the sign bit: then unsigned order is numeric order.
        numbers, codes = codes, (keys.view(f"i{keys.itemsize}") >> (bits - 1)).view(codes.dtype)
        codes |= top
        codes ^= numbers
        codes -= lowest
    elif keys.dtype.kind in "mM":
        codes = codes + _TIME
    elif keys.dtype.kind == "i":
        codes = codes ^ _sign(codes.dtype)
    return _reversed(codes, keys.dtype) if descending else codes


def _decode(codes: NDArray[Any], dtype: np.dtype[Any], descending: bool) -> NDArray[Any]:
    """Return the keys that `_encode` encoded; the codes may have a larger type or another byte order."""
    dtype = dtype.newbyteorder("=")
    if dtype.kind in "SU":
        plain = (~codes.view(np.uint8)).view(codes.dtype) if descending else codes
        return plain.view(">u4").astype(np.uint32).view(dtype).reshape(-1) if dtype.kind == "U" else plain
    codes = codes.astype(f"u{dtype.itemsize}", copy=False)
    if descending:
        codes = _reversed(codes, dtype)
    if dtype.kind == "f":
        bits, top, lowest = _float(dtype)
        codes = codes + lowest
        mask = ~(codes.view(f"i{codes.itemsize}") >> (bits - 1)).view(codes.dtype)
        mask |= top
        codes ^= mask
    elif dtype.kind in "mM":
        codes = codes - _TIME
    elif dtype.kind == "i":
        codes = codes ^ _sign(codes.dtype)
    return codes.view(dtype)


def _reversed(codes: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return codes in descending order of the keys; the codes of NaN and NaT stay, so that they are still the last."""
    if dtype.kind not in "fmM":
        return ~codes
    last = _encode(np.array([np.inf], dtype), False)[0] if dtype.kind == "f" else ~codes.dtype.type(1)
    return np.where(codes <= last, last - codes, codes)


def _sign(dtype: np.dtype[Any]) -> Any:
    return dtype.type(1 << (8 * dtype.itemsize - 1))


def _float(dtype: np.dtype[Any]) -> tuple[int, Any, Any]:
    """Return the number of bits of a floating-point type, its sign bit, and the code of −∞ before the subtraction.

    `_encode` subtracts this code. Only negative NaNs have lower codes: they wrap around to the end.
    """
    kind = np.dtype(f"u{dtype.itemsize}")
    infinity = np.array(-np.inf, dtype.newbyteorder("=")).view(kind)[()]
    return 8 * dtype.itemsize, _sign(kind), ~infinity
