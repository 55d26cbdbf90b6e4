"""sin, cos, exp and log with the same bits on every machine, for values that enter the state.

C libraries, NumPy and GPUs differ in the last bit of these functions, as do versions of one library and processors.
This module computes them in double-double arithmetic from IEEE +, −, × and ÷ alone, to a relative error below 2^−99,
and rounds once. The result is correctly rounded, except for about one argument in 2^45, whose exact result is that
close to the middle between two doubles. Its bits are always the same everywhere.

Arguments are float64 arrays of any shape; results are new arrays. No function is collective.

Sources: T. J. Dekker, Numer. Math. 18 (1971) 224–242, and D. Knuth, The Art of Computer Programming 2, 4.2.2,
for sums and products without error; T. Ogita, S. Rump and S. Oishi, SIAM J. Sci. Comput. 26 (2005) 1955–1988,
for the reduced argument; P. T. P. Tang, ACM TOMS 15 (1989) 144–157 and 16 (1990) 378–400, for tables.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from anyrank.kernel import BODIES

#: An unevaluated sum of two doubles; the second is at most half a unit in the last place of the first.
Double: TypeAlias = tuple[Any, Any]

#: The largest absolute value of the arguments of sin and cos.
LARGEST_ANGLE = 2.0**20
#: Elements computed at a time, so that intermediate results stay in the cache.
_CHUNK = 1 << 12


def _elementwise(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[ArrayLike], np.ndarray]:
    @wraps(function)
    def whole(x: ArrayLike) -> np.ndarray:
        device = BODIES.device
        if device.owns(x):  # computed on the host, whose arithmetic is the definition
            return device.from_host(whole(device.to_host(x)))  # type: ignore[no-any-return]
        values = np.asarray(x, np.float64)
        flat, result = values.reshape(-1), np.empty(values.size)
        with np.errstate(all="ignore"):
            for first in range(0, flat.size, _CHUNK):
                result[first : first + _CHUNK] = function(flat[first : first + _CHUNK])
        return result.reshape(values.shape)

    return whole


@_elementwise
def sin(x: np.ndarray) -> np.ndarray:
    """Return the sine, float64 of the same shape. NaN gives NaN.

    Parameters
    ----------
    x : array_like
        Angles in radians, at most LARGEST_ANGLE = 2^20 in absolute value, of any shape.

    Raises
    ------
    ValueError
        If an angle is larger.

    Examples
    --------
    >>> elementary.sin([0.0, 1.0])
    array([0.        , 0.84147098])
    """
    return np.where(np.abs(x) < 2.0**-27, x, _sine(x, 0))


@_elementwise
def cos(x: np.ndarray) -> np.ndarray:
    """Return the cosine, float64 of the same shape. NaN gives NaN.

    Parameters
    ----------
    x : array_like
        Angles in radians, at most LARGEST_ANGLE = 2^20 in absolute value, of any shape.

    Raises
    ------
    ValueError
        If an angle is larger.

    Examples
    --------
    >>> elementary.cos([0.0, 1.0])
    array([1.        , 0.54030231])
    """
    return _sine(x, 64)


@_elementwise
def exp(x: np.ndarray) -> np.ndarray:
    """Return the exponential e^x, float64 of the same shape, also if it is subnormal; ∞ if it overflows. NaN gives NaN.

    Parameters
    ----------
    x : array_like
        Exponents, of any shape.

    Examples
    --------
    >>> elementary.exp([0.0, 1.0])
    array([1.        , 2.71828183])
    """
    bounded = np.where(np.isnan(x), 0.0, np.clip(x, -800.0, 800.0))
    n = np.rint(bounded * (128 / _LN2[0]))
    power, remainder = n.astype(np.int64), _sum([bounded, *(-n * part for part in _LN2_128)])
    high, low = _multiply(_pick(_POWERS, power & 127), _polynomial(remainder, _EXP, 5))
    exponent = power >> 7
    # A subnormal has fewer bits. Adding and subtracting 2^52 of its units in the last place rounds to them, once.
    constant = np.ldexp(1.0, np.maximum(-1022 - exponent, 0))
    rounded, rest = _two_sum(constant, high)
    rounded = rounded + (rest + low) - constant
    subnormal = np.ldexp(high, exponent + 64) < 2.0**-958
    result = np.ldexp(np.where(subnormal, rounded, high), exponent)
    return np.where(np.isnan(x), x, result)


@_elementwise
def log(x: np.ndarray) -> np.ndarray:
    """Return the natural logarithm, float64 of the same shape: −∞ for ±0, ∞ for ∞, NaN below zero. NaN gives NaN.

    Parameters
    ----------
    x : array_like
        Numbers, of any shape.

    Examples
    --------
    >>> elementary.log([1.0, 2.0])
    array([0.        , 0.69314718])
    """
    usual = (x > 0) & (x < math.inf)
    m, exponent = np.frexp(np.where(usual, x, 1.0))
    small = m < 0.7071067811865476
    m, exponent = np.where(small, 2 * m, m), exponent - small
    c = np.rint(128 / m)  # so that m c / 128 = 1 + z with |z| < 2^−7
    product, rest = _two_product(m, c)
    z = _two_sum(product - 128, rest)
    w = _divide(z, _add((256.0, 0.0), z))  # log(1 + z) = 2 artanh(z / (2 + z))
    series = _multiply((2 * w[0], 2 * w[1]), _polynomial(_multiply(w, w), _ARTANH, 3))
    logarithm = _add(_pick(_LOGS, c.astype(np.int64) - 90), series)
    high, _ = _add(_multiply((exponent.astype(np.float64), 0.0), _LN2), logarithm)
    return np.where(usual, high, np.where(x == 0, -math.inf, np.where(x > 0, x, math.nan)))


def _sine(x: np.ndarray, ahead: int) -> np.ndarray:
    """Return sin(x + ahead·π/128), by the addition theorem for the nearest multiple of π/128 and the rest."""
    if (np.abs(x) > LARGEST_ANGLE).any():
        largest = np.nanmax(np.abs(x))
        raise ValueError(f"sin and cos take angles up to 2^20, not {largest}: reduce the angle by 2π first")
    n = np.rint(np.where(np.isnan(x), 0.0, x) * (128 / math.pi))
    index, angle = n.astype(np.int64) + ahead, _sum([x, *(-n * part for part in _PI_128)])
    square = _multiply(angle, angle)
    sine = _multiply(angle, _polynomial(square, _SIN, 3))
    cosine = _polynomial(square, _COS, 3)
    first = _multiply(_pick(_SINES, index & 255), cosine)
    return np.asarray(_add(first, _multiply(_pick(_SINES, (index + 64) & 255), sine))[0])


def _two_sum(a: Any, b: Any) -> Double:
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _quick_two_sum(a: Any, b: Any) -> Double:
    """Return the sum of |a| ≥ |b| as a double and its rounding error."""
    s = a + b
    return s, b - (s - a)


def _split(a: Any) -> Double:
    t = 134217729.0 * a
    high = t - (t - a)
    return high, a - high


def _two_product(a: Any, b: Any) -> Double:
    p, (a1, a2), (b1, b2) = a * b, _split(a), _split(b)
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


def _add(a: Double, b: Double) -> Double:
    s, e = _two_sum(a[0], b[0])
    return _quick_two_sum(s, e + (a[1] + b[1]))


def _multiply(a: Double, b: Double) -> Double:
    p, e = _two_product(a[0], b[0])
    return _quick_two_sum(p, e + (a[0] * b[1] + a[1] * b[0]))


def _divide(a: Double, b: Double) -> Double:
    q = a[0] / b[0]
    p, e = _two_product(q, b[0])
    return _quick_two_sum(q, (((a[0] - p) - e) + a[1] - q * b[1]) / b[0])


def _sum(terms: Sequence[Any]) -> Double:
    """Return the sum of doubles with 159 bits: the rounding errors are summed as well, and those of these sums."""
    high, middle, low = terms[0], 0.0, 0.0
    for term in terms[1:]:
        high, error = _two_sum(high, term)
        middle, error = _two_sum(middle, error)
        low = low + error
    high, middle = _two_sum(high, middle)
    return _quick_two_sum(high, middle + low)


def _polynomial(x: Double, coefficients: Sequence[Double], doubles: int) -> Double:
    """Evaluate a polynomial by Horner's rule; the first `doubles` coefficients in double-double arithmetic."""
    *_, last = coefficients
    tail = last[0]
    for c in reversed(coefficients[doubles:-1]):
        tail = tail * x[0] + c[0]
    result: Double = (tail, 0.0)
    for c in reversed(coefficients[:doubles]):
        result = _add(c, _multiply(x, result))
    return result


def _pick(table: np.ndarray, index: np.ndarray) -> Double:
    return table[0, index], table[1, index]


# The tables are computed with integers only, as fixed-point numbers with _BITS bits after the binary point.
_BITS = 320
_ONE = 1 << _BITS


def _arc(n: int, sign: int) -> int:
    """Return artanh(1/n), or arctan(1/n) where sign is −1, by the power series."""
    total, power, k = 0, _ONE // n, 1
    while power:
        total += power // k * (sign if k & 2 else 1)
        power, k = power // (n * n), k + 2
    return total


def _table(numbers: Iterable[int]) -> np.ndarray:
    """Return the numbers as Doubles: an array of high parts and one of low parts."""
    pairs = []
    for number in numbers:
        high = number / _ONE
        pairs.append((high, (number - int(math.ldexp(high, _BITS))) / _ONE))
    table: np.ndarray = np.array(pairs).T
    return table


def _parts(number: int) -> Iterator[float]:
    """Yield a number in seven parts of 27 bits, whose products with integers below 2^26 are exact."""
    for _ in range(7):
        shift = number.bit_length() - 27
        yield (number >> shift << shift) / _ONE
        number &= (1 << shift) - 1


def _sines() -> Iterator[int]:
    """Yield the sines of kπ/128, k = 0 … 255: halve π/2 six times, then rotate."""
    cosine = sine = 0
    for _ in range(6):
        sine, cosine = (math.isqrt((_ONE + sign * cosine) * _ONE // 2) for sign in (-1, 1))
    s, c = 0, _ONE
    for _ in range(256):
        yield s
        s, c = (s * cosine + c * sine) >> _BITS, (c * cosine - s * sine) >> _BITS


def _powers() -> Iterator[int]:
    """Yield the powers 2^(k/128), k = 0 … 127."""
    root, power = 2 * _ONE, _ONE
    for _ in range(7):
        root = math.isqrt(root * _ONE)
    for _ in range(128):
        yield power
        power = power * root >> _BITS


def _logs() -> list[int]:
    """Return the logarithms −log(k/128), k = 90 … 182, by log(k) − log(k − 1) = 2 artanh(1/(2k − 1))."""
    logs = [*accumulate((2 * _arc(2 * k - 1, 1) for k in range(91, 183)), operator.sub, initial=0)]
    return [log - logs[128 - 90] for log in logs]


_LN2_FIXED, _PI_FIXED = 2 * _arc(3, 1), 16 * _arc(5, -1) - 4 * _arc(239, -1)
_LN2_128, _PI_128 = [*_parts(_LN2_FIXED >> 7)], [*_parts(_PI_FIXED >> 7)]
_LN2: Double = tuple(_table([_LN2_FIXED])[:, 0])
_SINES, _POWERS, _LOGS = _table(_sines()), _table(_powers()), _table(_logs())
_EXP = _table(_ONE // math.factorial(k) for k in range(11)).T
_SIN = _table((-1) ** k * _ONE // math.factorial(2 * k + 1) for k in range(7)).T
_COS = _table((-1) ** k * _ONE // math.factorial(2 * k) for k in range(7)).T
_ARTANH = _table(_ONE // (2 * k + 1) for k in range(7)).T

#: The constants of `log` for its version in CUDA C: the coefficients, log 2, and the logarithms, as Doubles.
LOG_TABLE = np.concatenate([_ARTANH, [_LN2], _LOGS.T]).ravel()
