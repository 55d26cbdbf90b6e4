"""sin, cos, exp and log: correctly rounded, compared with mpmath."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from anyrank import elementary
from anyrank.elementary import LARGEST_ANGLE, cos, exp, log, sin

RANDOM = np.random.default_rng(2026)
N = 20_000


def numbers_between(low, high, n=N):
    """Numbers of random sign whose logarithms are uniform between 2^low and 2^high."""
    return RANDOM.choice([-1.0, 1.0], n) * 2.0 ** RANDOM.uniform(low, high, n)


def as_double(x):
    """An mpf rounded to the nearest double, ties to even, also if it is subnormal or infinite."""
    sign, mantissa, exponent, _ = x._mpf_
    whole = int(-mantissa if sign else mantissa)
    try:
        return float(whole << exponent) if exponent >= 0 else whole / (1 << -exponent)
    except OverflowError:
        return math.copysign(math.inf, whole)


def near_multiples_of_half_pi(n):
    with mpmath.workprec(200):
        points = np.array([float(k * mpmath.pi / 2) for k in RANDOM.integers(1, 667_000, n).tolist()])
    return np.concatenate([points, np.nextafter(points, 0), np.nextafter(points, 2e6)])


ANGLES = {
    "a turn": RANDOM.uniform(-6.3, 6.3, N),
    "all": RANDOM.uniform(-LARGEST_ANGLE, LARGEST_ANGLE, N),
    "near multiples of π/2": near_multiples_of_half_pi(2000),
    "every size": numbers_between(-1074, 20, 4000),
    "where reductions meet": np.arange(-300, 300) * (math.pi / 256),
    "ends": np.array([-LARGEST_ANGLE, LARGEST_ANGLE, 2.0**-27, -(2.0**-27), 2.0**-26]),
}
EXPONENTS = {
    "usual": RANDOM.uniform(-3, 3, N),
    "all": RANDOM.uniform(-746, 710, N),
    "subnormal results": RANDOM.uniform(-745.2, -708, N),
    "the least normal results": RANDOM.uniform(-708.4, -707.0, 2000),
    "the largest results": RANDOM.uniform(709, 709.8, 2000),
    "every size": numbers_between(-1074, 9, 4000),
    "where reductions meet": np.arange(-2000, 2000) * (math.log(2) / 256),
}
POSITIVE = {
    "usual": RANDOM.uniform(0, 3, N),
    "every size": np.abs(numbers_between(-1074, 1023.9)),
    "subnormal": RANDOM.integers(1, 1 << 52, 2000).view(np.float64),
    "near one": 1 + numbers_between(-53, -3, 10_000),
    "where reductions meet": np.append(256 / np.arange(181, 364), np.sqrt(0.5) * np.array([1, 1 + 2e-16, 1 - 2e-16])),
    "powers of two": 2.0 ** np.arange(-1074, 1024),
}
CASES = [
    *((function, name, points) for function in (sin, cos) for name, points in ANGLES.items()),
    *((exp, name, points) for name, points in EXPONENTS.items()),
    *((log, name, points) for name, points in POSITIVE.items()),
]


def test_elementary_has_more_than_200000_points():
    assert sum(points.size for _, _, points in CASES) > 200_000


@pytest.mark.parametrize(("function", "name", "points"), CASES, ids=[f"{f.__name__} {name}" for f, name, _ in CASES])
def test_elementary_results_are_correctly_rounded(function, name, points):
    exactly = getattr(mpmath, function.__name__)
    with mpmath.workprec(140):
        expected = np.array([as_double(exactly(mpmath.mpf(x))) for x in points.tolist()])
    result = function(points)
    wrong = np.flatnonzero(result.view(np.int64) != expected.view(np.int64))
    assert wrong.size == 0, [(points[i].hex(), result[i].hex(), expected[i].hex()) for i in wrong[:5]]


@pytest.mark.parametrize(
    ("function", "points", "expected"),
    [
        (sin, [0.0, -0.0, 5e-324, math.nan], [0.0, -0.0, 5e-324, math.nan]),
        (cos, [0.0, -0.0, 5e-324, math.nan], [1.0, 1.0, 1.0, math.nan]),
        (
            exp,
            [0.0, -0.0, math.inf, -math.inf, math.nan, 710, -746, 1e300],
            [1, 1, math.inf, 0, math.nan, math.inf, 0, math.inf],
        ),
        (
            log,
            [0.0, -0.0, math.inf, -math.inf, math.nan, -5e-324, 1],
            [-math.inf, -math.inf, math.inf, *[math.nan] * 3, 0],
        ),
    ],
)
def test_elementary_special_values(function, points, expected):
    result = function(np.array(points))
    np.testing.assert_array_equal(result, np.array(expected, float))
    signs = ~np.isnan(result)
    np.testing.assert_array_equal(np.signbit(result)[signs], np.signbit(np.array(expected, float))[signs])


@pytest.mark.parametrize("function", [sin, cos])
@pytest.mark.parametrize("angle", [np.nextafter(LARGEST_ANGLE, np.inf), -2e6, math.inf])
def test_elementary_angles_too_large_are_refused(function, angle):
    with pytest.raises(ValueError, match="up to 2\\^20"):
        function(np.array([0.0, angle]))


@pytest.mark.parametrize("function", [sin, cos, exp, log])
def test_elementary_any_shape_and_part_gives_the_same(function):
    x = RANDOM.uniform(0.1, 5, 3 * 4096 + 5)
    whole = function(x)
    np.testing.assert_array_equal(np.concatenate([function(x[:77]), function(x[77:])]), whole)
    np.testing.assert_array_equal(function(x[::-3]), whole[::-3])
    np.testing.assert_array_equal(function(x[:-5].reshape(3, 64, 64)), whole[:-5].reshape(3, 64, 64))
    assert function(x[0]).shape == () and function(x[0]) == whole[0]
    assert function(np.zeros((0, 2)) + 1).shape == (0, 2)
    assert function(3).dtype == np.float64


def test_elementary_angles_of_ncars_cells_equal_libms():
    """NCAR's reference for the shallow-water equations used the C library: our initial state must agree."""
    pi = 4 * math.atan(1)
    step = (pi + pi) / 64
    halves = np.array([(i + 0.5) * step for i in range(65)])
    evens = np.array([(2 * i) * step for i in range(65)])
    assert sin(halves).tolist() == [math.sin(x) for x in halves]
    assert cos(evens).tolist() == [math.cos(x) for x in evens]


def test_elementary_tables_are_correct_to_double_double():
    with mpmath.workprec(300):
        for table, exact in (
            (elementary._SINES, [mpmath.sin(k * mpmath.pi / 128) for k in range(256)]),
            (elementary._POWERS, [mpmath.mpf(2) ** (mpmath.mpf(k) / 128) for k in range(128)]),
            (elementary._LOGS, [-mpmath.log(mpmath.mpf(k) / 128) for k in range(90, 183)]),
        ):
            for high, low, value in zip(*table.tolist(), exact, strict=True):
                assert abs(mpmath.mpf(high) + low - value) <= abs(value) * mpmath.mpf(2) ** -105 + mpmath.mpf(2) ** -290
        for parts, value in ((elementary._LN2_128, mpmath.log(2) / 128), (elementary._PI_128, mpmath.pi / 128)):
            assert abs(mpmath.fsum(parts) - value) < mpmath.mpf(2) ** -188
            assert all(part.as_integer_ratio()[0] < 2**27 for part in parts)
