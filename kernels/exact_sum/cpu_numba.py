"""Exact sums for the CPU, compiled by Numba when first called.

The mantissas of every exponent are summed as integers in a slot of their own, low word and high part apart
(Neal's large superaccumulator), and the slots are emptied into the limbs. Products are split into numbers
without error (T. J. Dekker, Numer. Math. 18 (1971) 224-242), or multiplied as integers where that is unsafe.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.lib.stride_tricks import as_strided

from anyrank.kernels.exact_sum import LIMBS, MINUS, NANS, PLUS

_SPECIAL = 0x7FF
_WORD = 0xFFFFFFFF
_SETTLE = 1 << 28
_BLOCK = 1024
_SPLITTER = 2.0**27 + 1.0


def accumulate(x: np.ndarray, limbs: np.ndarray) -> None:
    """Add every element of `x` to `limbs`."""
    rows, columns = np.atleast_2d(x).shape
    _accumulate(*_memory(x.view(np.int64)), rows, columns, limbs)


def accumulate_products(x: np.ndarray, y: np.ndarray, limbs: np.ndarray) -> None:
    """Add the product of every element of `x` with that of `y` to `limbs`."""
    if x.shape != y.shape:
        raise ValueError(f"products of shapes {x.shape} and {y.shape}")
    rows, columns = np.atleast_2d(x).shape
    _accumulate_products(*_memory(x), *_memory(y), rows, columns, limbs)


def _memory(x: np.ndarray) -> tuple[np.ndarray, int]:
    """The memory from the first element to the last, read-only, and the distance of rows in it.

    So all arrays have one type, for which the loops are compiled once, and know that rows are contiguous.
    """
    x = np.atleast_2d(x)
    if x.strides[0] < 0 or x.strides[0] % 8:
        x = np.ascontiguousarray(x)
    pitch = x.strides[0] // 8
    length = (x.shape[0] - 1) * pitch + x.shape[1] if x.size else 0
    return as_strided(x, (length,), (8,), writeable=False), pitch


@njit(cache=True, nogil=True)
def _accumulate(bits: Any, pitch: int, rows: int, columns: int, limbs: Any) -> None:
    slots = np.zeros((_SPECIAL, 2), np.int64)
    _carry(limbs)
    pending = 0
    for row in range(rows):
        for first in range(0, columns, _SETTLE):
            count = min(columns - first, _SETTLE)
            pending += count
            if pending > _SETTLE:
                _settle(slots, limbs)
                pending = count
            start = row * pitch + first
            _add_numbers(bits[start : start + count], slots, limbs)
    _settle(slots, limbs)


@njit(cache=True, nogil=True)
def _accumulate_products(x: Any, x_pitch: int, y: Any, y_pitch: int, rows: int, columns: int, limbs: Any) -> None:
    slots = np.zeros((_SPECIAL, 2), np.int64)
    parts = np.empty((2, _BLOCK))
    _carry(limbs)
    pending = 0
    for row in range(rows):
        for first in range(0, columns, _BLOCK):
            count = min(columns - first, _BLOCK)
            a = x[row * x_pitch + first :][:count]
            b = y[row * y_pitch + first :][:count]
            if _multiply(a, b, parts):
                for part in parts:
                    _add_numbers(part[:count].view(np.int64), slots, limbs)
            else:
                _add_products(a, b, limbs)
            pending += 2 * count
            if pending > _SETTLE - 2 * _BLOCK:
                _settle(slots, limbs)
                pending = 0
    _settle(slots, limbs)


@njit(cache=True, nogil=True)
def _multiply(x: Any, y: Any, parts: Any) -> bool:
    """parts[0] + parts[1] = x y without error, unless False is returned: something is too large or too small."""
    safe = True
    for i in range(x.size):
        a, b = x[i], y[i]
        p = a * b
        t, u = _SPLITTER * a, _SPLITTER * b
        a_high, b_high = t - (t - a), u - (u - b)
        a_low, b_low = a - a_high, b - b_high
        parts[0, i] = p
        parts[1, i] = a_low * b_low - (((p - a_high * b_high) - a_low * b_high) - a_high * b_low)
        small = (abs(p) < 2.0**-900) & (a != 0.0) & (b != 0.0)
        safe &= (abs(p) < 2.0**900) & (abs(a) < 2.0**900) & (abs(b) < 2.0**900) & (not small)
    return safe


@njit(cache=True, nogil=True)
def _add_numbers(bits: Any, slots: Any, limbs: Any) -> None:
    for i in range(bits.size):
        exponent = (bits[i] >> 52) & _SPECIAL
        if exponent == _SPECIAL:
            _count_special(bits[i], limbs)
            continue
        m = _mantissa(bits[i])
        slots[exponent, 0] += m & _WORD
        slots[exponent, 1] += m >> 32


@njit(cache=True, nogil=True)
def _add_products(x: Any, y: Any, limbs: Any) -> None:
    """Products of mantissas halved at bit 27, so that no partial product passes 2^54."""
    factors = np.empty(3)
    bits = factors.view(np.int64)
    for i in range(x.size):
        factors[0], factors[1], factors[2] = x[i], y[i], x[i] * y[i]
        e, f = (bits[0] >> 52) & _SPECIAL, (bits[1] >> 52) & _SPECIAL
        if e == _SPECIAL or f == _SPECIAL:
            _count_special(bits[2], limbs)
            continue
        a, b = _mantissa(bits[0]), _mantissa(bits[1])
        a_high, a_low, b_high, b_low = a >> 27, a & 0x7FFFFFF, b >> 27, b & 0x7FFFFFF
        position = max(e, 1) + max(f, 1) + 26
        _add_integer(a_low * b_low, position, limbs)
        _add_integer(a_low * b_high + a_high * b_low, position + 27, limbs)
        _add_integer(a_high * b_high, position + 54, limbs)


@njit(cache=True, nogil=True)
def _mantissa(bits: int) -> int:
    """The signed integer m with |x| = |m| 2^(max(exponent, 1) − 1075)."""
    m = bits & 0xFFFFFFFFFFFFF
    if (bits >> 52) & _SPECIAL:
        m |= 1 << 52
    sign = bits >> 63
    return (m ^ sign) - sign


@njit(cache=True, nogil=True)
def _count_special(bits: int, limbs: Any) -> None:
    if bits & 0xFFFFFFFFFFFFF:
        limbs[NANS] += 1
    elif bits < 0:
        limbs[MINUS] += 1
    else:
        limbs[PLUS] += 1


@njit(cache=True, nogil=True)
def _add_integer(v: int, position: int, limbs: Any) -> None:
    """Add v 2^(position − ORIGIN): the low and middle words unsigned, the high one signed."""
    shift, limb = position & 31, position >> 5
    low = v << shift
    limbs[limb] += low & _WORD
    limbs[limb + 1] += (low >> 32) & _WORD
    limbs[limb + 2] += (v >> 32) >> (32 - shift)


@njit(cache=True, nogil=True)
def _settle(slots: Any, limbs: Any) -> None:
    """Empty the slots into the limbs and carry."""
    for e in range(_SPECIAL):
        if slots[e, 0] | slots[e, 1]:
            _add_integer(slots[e, 0], max(e, 1) + 1101, limbs)
            _add_integer(slots[e, 1], max(e, 1) + 1133, limbs)
    slots[:] = 0
    _carry(limbs)


@njit(cache=True, nogil=True)
def _carry(limbs: Any) -> None:
    """Bring all limbs but the last into [0, 2^32)."""
    for k in range(LIMBS - 1):
        limbs[k + 1] += limbs[k] >> 32
        limbs[k] &= _WORD
