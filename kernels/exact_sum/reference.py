"""Exact sums in plain NumPy: every mantissa is an integer that is shifted and added to its limbs."""

import numpy as np

from anyrank.kernels.exact_sum import LIMBS, MINUS, NANS, ORIGIN, PLUS

_CHUNK = 1 << 16
_WORD = np.int64(0xFFFFFFFF)
#: The positions of the lowest bit of a mantissa and of a product of mantissas, for exponent 0: x = m 2^(e − 1075).
_NUMBER_UNIT, _PRODUCT_UNIT = ORIGIN - 1075, ORIGIN - 2 * 1075


def accumulate(x: np.ndarray, limbs: np.ndarray) -> None:
    """Add every element of `x` to `limbs`, or each row to its row of `limbs`."""
    if limbs.ndim == 2:
        for row, own in zip(x, limbs, strict=True):
            accumulate(row, own)
        return
    _propagate_carries(limbs)
    flat = np.ravel(x)
    for first in range(0, flat.size, _CHUNK):
        part = flat[first : first + _CHUNK]
        part = part[_count_specials(part, limbs)]
        mantissa, exponent = _split(part)
        _add(mantissa, exponent + _NUMBER_UNIT, limbs)
        _propagate_carries(limbs)


def accumulate_products(x: np.ndarray, y: np.ndarray, limbs: np.ndarray) -> None:
    """Add the products of the elements of `x` and `y` to `limbs`."""
    if x.shape != y.shape:
        raise ValueError(f"products of shapes {x.shape} and {y.shape}")
    if limbs.ndim == 2:
        for left, right, own in zip(x, y, limbs, strict=True):
            accumulate_products(left, right, own)
        return
    _propagate_carries(limbs)
    xs, ys = np.ravel(x), np.ravel(y)
    for first in range(0, xs.size, _CHUNK):
        a, b = xs[first : first + _CHUNK], ys[first : first + _CHUNK]
        with np.errstate(all="ignore"):
            special = np.where(np.isfinite(a) & np.isfinite(b), 0.0, a * b)
        finite = _count_specials(special, limbs)
        _add_products(a[finite], b[finite], limbs)
        _propagate_carries(limbs)


def _count_specials(x: np.ndarray, limbs: np.ndarray) -> np.ndarray:
    """Count the infinities and NaNs, and return a mask of the finite elements."""
    finite = np.isfinite(x)
    limbs[PLUS] += np.count_nonzero(x == np.inf)
    limbs[MINUS] += np.count_nonzero(x == -np.inf)
    limbs[NANS] += np.count_nonzero(np.isnan(x))
    return finite


def _split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the signed integers m and e with x = m 2^(e − 1075), |m| < 2^53, e ≥ 1."""
    bits = np.ascontiguousarray(x).view(np.int64)
    biased = (bits >> 52) & 0x7FF
    mantissa = (bits & ((1 << 52) - 1)) | ((biased != 0).astype(np.int64) << 52)
    return np.where(bits < 0, -mantissa, mantissa), np.maximum(biased, 1)


def _add(integers: np.ndarray, position: np.ndarray, limbs: np.ndarray) -> None:
    """Add integers · 2^(position − ORIGIN), |integers| < 2^54: two unsigned low words and a signed high word each.

    `integers << shift` has lost its upper bits; the high word is therefore taken from `integers` itself.
    """
    shift, limb = position & 31, position >> 5
    low = integers << shift
    np.add.at(limbs, limb, low & _WORD)
    np.add.at(limbs, limb + 1, (low >> 32) & _WORD)
    np.add.at(limbs, limb + 2, (integers >> 32) >> (32 - shift))


def _add_products(x: np.ndarray, y: np.ndarray, limbs: np.ndarray) -> None:
    """Add products of mantissas, split at bit 27 so that no partial product exceeds 2^54."""
    (a, i), (b, j) = _split(x), _split(y)
    position = i + j + _PRODUCT_UNIT
    a_high, a_low, b_high, b_low = a >> 27, a & 0x7FFFFFF, b >> 27, b & 0x7FFFFFF
    _add(a_low * b_low, position, limbs)
    _add(a_low * b_high + a_high * b_low, position + 27, limbs)
    _add(a_high * b_high, position + 54, limbs)


def _propagate_carries(limbs: np.ndarray) -> None:
    """Propagate carries, so that all limbs but the last are in [0, 2^32)."""
    carry = 0
    for k, limb in enumerate(limbs[:LIMBS].tolist()):
        carry += limb
        if k < LIMBS - 1:
            limbs[k] = carry & 0xFFFFFFFF
            carry >>= 32
    limbs[LIMBS - 1] = carry
