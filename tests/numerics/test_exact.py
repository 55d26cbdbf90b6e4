"""Exact sums, means, products and norms are correctly rounded."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numerics.equality import same

from anyrank import exact
from anyrank.errors import AnyrankError
from anyrank.exact import Accumulator
from anyrank.kernel import BODIES

FINITE = st.floats(allow_nan=False, allow_infinity=False)


CANCELLING = st.lists(FINITE, max_size=30).map(lambda values: values + [-v for v in values[::2]])


LARGEST = 1.7976931348623157e308


FUNCTIONS = (exact.sum, exact.mean, exact.norm, exact.min, exact.max)


def round_fraction(value):
    """A Fraction as the nearest float; ±∞ beyond the largest."""
    try:
        return value.numerator / value.denominator
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def total(values):
    return sum(map(Fraction, values), Fraction(0))


@pytest.fixture(params=["reference", "cython"])
def body(request):
    BODIES.prefer(request.param)
    yield request.param
    BODIES.prefer("auto")


@given(st.one_of(CANCELLING, st.lists(FINITE, max_size=30)))
def test_exact_sum_is_that_of_fsum(values):
    try:
        expected = math.fsum(values)
    except OverflowError:  # also if only an intermediate sum overflows
        expected = round_fraction(total(values))
    assert exact.sum(np.array(values, float), local=True) == expected == round_fraction(total(values))


@given(st.lists(st.one_of(FINITE, st.sampled_from([math.inf, -math.inf, math.nan])), min_size=1, max_size=10))
def test_exact_sum_with_infinities_and_nan(values):
    special = sum(v for v in values if not math.isfinite(v))
    expected = round_fraction(total(values)) if special == 0 else special
    assert same(exact.sum(np.array(values), local=True), expected)
    assert same(
        exact.mean(np.array(values), local=True),
        round_fraction(total(values) / len(values)) if special == 0 else special,
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], 0.0),
        ([-0.0, -0.0], 0.0),
        ([LARGEST, LARGEST, -LARGEST], LARGEST),
        ([LARGEST, 2.0**969], LARGEST),
        ([LARGEST, 2.0**970], math.inf),
        ([-LARGEST, -(2.0**970)], -math.inf),
        ([1.0, 2.0**-53], 1.0),
        ([1.0, 2.0**-53, 5e-324], 1.0 + 2.0**-52),
        ([5e-324, 5e-324], 1e-323),
        ([1e308, 1.0, -1e308, 5e-324, -1.0], 5e-324),
    ],
)
def test_exact_sum_at_the_limits_of_doubles(values, expected):
    assert same(exact.sum(np.array(values, float), local=True), expected)


@pytest.mark.slow
def test_exact_sum_of_ten_million_numbers_of_every_exponent():
    random = np.random.default_rng(20)
    bits = random.integers(0, 1 << 64, 10_000_000, np.uint64)
    x = np.where(bits >> 52 & 0x7FF < 0x7F0, bits, 1).view(np.float64)
    assert exact.sum(x, local=True) == math.fsum(x.tolist())
    assert exact.mean(x, local=True) == round_fraction(Fraction(accumulator_of(x).fixed, 2**2176 * x.size))


def accumulator_of(x):
    accumulator = Accumulator()
    accumulator.add(x)
    return accumulator


@given(st.lists(FINITE, min_size=1, max_size=30))
def test_exact_mean_is_rounded_once(values):
    assert exact.mean(np.array(values), local=True) == round_fraction(total(values) / len(values))


@given(st.lists(st.tuples(FINITE, FINITE), max_size=30))
def test_exact_dot_is_rounded_once(pairs):
    x, y = np.array(pairs, float).reshape(-1, 2).T
    expected = total(Fraction(a) * Fraction(b) for a, b in pairs)
    assert exact.dot(x, y, local=True) == round_fraction(expected)


@given(st.lists(FINITE, max_size=20))
def test_exact_norm_is_rounded_once(values):
    with mpmath.workprec(2500):  # enough for any sum of squares
        square = mpmath.fsum([mpmath.mpf(v) ** 2 for v in values])
        root = mpmath.sqrt(square)
        m, e = mpmath.frexp(root) if root else (mpmath.mpf(0), 0)
        expected = round_fraction(Fraction(int(mpmath.floor(m * 2**2400))) * Fraction(2) ** (int(e) - 2400))
    assert exact.norm(np.array(values, float), local=True) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], 0.0),
        ([3.0, -4.0], 5.0),
        ([-5e-324], 5e-324),
        ([3e-320, 4e-320], 5e-320),
        ([LARGEST], LARGEST),
        ([LARGEST, LARGEST], math.inf),
        ([1.0, -math.inf], math.inf),
        ([1.0, math.nan, math.inf], math.nan),
    ],
)
def test_exact_norm_at_the_limits_of_doubles(values, expected):
    assert same(exact.norm(np.array(values, float), local=True), expected)


def test_exact_norm_half_way_between_doubles_rounds_to_even():
    """The least amount above the middle rounds up."""
    middle = [1.0, 2.0**-26, 2.0**-53]  # (1 + 2^−53)²
    assert exact.norm(np.array(middle), local=True) == 1.0
    assert exact.norm(np.array([*middle, 5e-324]), local=True) == 1.0 + 2.0**-52


INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_exact_results_of_integers_are_exact(dtype):
    info = np.iinfo(dtype)
    ends = np.array([info.min, info.max], dtype)
    x = np.append(np.random.default_rng(1).integers(*ends, 999, dtype, endpoint=True), ends)
    whole = [int(v) for v in x]
    results = [
        exact.sum(x, local=True),
        exact.dot(x, x[::-1], local=True),
        exact.min(x, local=True),
        exact.max(x, local=True),
    ]
    assert results == [sum(whole), sum(a * b for a, b in zip(whole, whole[::-1], strict=True)), info.min, info.max]
    assert all(type(result) is int for result in results)
    assert exact.mean(x, local=True) == round_fraction(Fraction(sum(whole), 1001))
    assert exact.dot(x, np.full(1001, 0.1), local=True) == round_fraction(sum(whole) * Fraction(0.1))


def test_exact_takes_bool_and_narrow_floats():
    assert exact.sum(np.array([[True, False], [True, True]]), local=True) == 3
    assert exact.max(np.array([False, True]), local=True) == 1 and exact.min(np.array([False, True]), local=True) == 0
    for dtype in (np.float16, np.float32):
        x = np.random.default_rng(2).standard_normal((50, 40)).astype(dtype)
        assert exact.sum(x, local=True) == math.fsum(x.ravel().tolist())
        assert exact.norm(x, local=True) == math.sqrt(math.fsum((x.astype(float) ** 2).ravel().tolist()))
        assert exact.min(x, local=True) == float(x.min())
    assert exact.sum(np.array(2.5), local=True) == exact.max(np.array(2.5), local=True) == 2.5


@pytest.mark.parametrize("bad", [np.array([1j]), np.array(["1"]), np.array([1], object), np.zeros(1, np.longdouble)])
def test_exact_other_elements_are_refused(bad):
    for function in FUNCTIONS if bad.dtype.kind != "c" else (exact.min, exact.max):
        with pytest.raises(TypeError, match="not"):
            function(bad, local=True)


@pytest.mark.parametrize("kind", ["<f8", ">f8", ">f4", ">f2", "<u8", ">u8", ">i8", ">i2"])
@pytest.mark.parametrize("offset", [0, 1])
def test_exact_byte_order_and_alignment_do_not_matter(body, kind, offset):
    """Fields of packed records, whose addresses and strides are no multiples of the element's size."""
    values = (np.random.default_rng(5).standard_normal((6, 40)) * 1e4).astype(kind)
    packed = np.zeros(values.shape, np.dtype([("before", f"V{offset}"), ("x", kind)]))["x"]
    packed[...] = values
    native = values.astype(values.dtype.newbyteorder("="))
    for x in (values, packed, packed[::-1, 1:-1]):
        y = native[::-1, 1:-1] if x.shape != values.shape else native
        for function in FUNCTIONS:
            assert same(function(x, local=True), function(y, local=True)), function.__name__
        assert same(exact.dot(x, y, local=True), exact.dot(y, y, local=True))


VIEWS = {
    "transposed": lambda x: x.T,
    "reversed": lambda x: x[::-1, :, ::-1],
    "strided": lambda x: x[:, 1::2, ::3],
    "inside": lambda x: x[1:-1, 2:-2, 1:-1],
    "a column": lambda x: x[:, :, 3],
    "repeated": lambda x: np.broadcast_to(x[0], (3, *x.shape[1:])),
    "empty": lambda x: x[:, :0],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_exact_does_not_depend_on_the_layout_in_memory(body, view, dtype):
    x = view((np.random.default_rng(3).standard_normal((7, 80, 90)) * 1e6).astype(dtype))
    flat = np.ravel(x).astype(float).tolist()
    assert exact.sum(x, local=True) == math.fsum(flat)
    y = np.random.default_rng(4).standard_normal(x.shape)
    assert (
        exact.dot(x, y, local=True) == exact.dot(x.copy(), y, local=True) == exact.dot(x.ravel(), y.ravel(), local=True)
    )
    assert exact.dot(x, x, local=True) == exact.dot(x.ravel(), x.copy().ravel(), local=True)


def test_exact_dot_of_other_shapes_is_refused():
    with pytest.raises(ValueError, match="shape"):
        exact.dot(np.zeros(3), np.zeros(4), local=True)


@pytest.mark.parametrize("function", [exact.mean, exact.min, exact.max])
def test_exact_mean_and_extremes_of_no_elements_are_refused(function):
    with pytest.raises(AnyrankError, match="at least one"):
        function(np.zeros((0, 3)), local=True)


@given(st.lists(FINITE, max_size=20), st.lists(FINITE, max_size=20))
def test_accumulator_continues_from_saved_limbs(first, second):
    a, b = np.array(first, float), np.array(second, float)
    saved = accumulator_of(a).limbs.copy()
    resumed = Accumulator(saved)
    resumed.add(b)
    resumed.add_product(a, a)
    whole = accumulator_of(np.append(a, b))
    whole.add_product(a, a)
    np.testing.assert_array_equal(saved, whole.limbs)
    assert resumed.count == 2 * len(first) + len(second)
    assert resumed.value() == round_fraction(total(first) + total(second) + sum(Fraction(v) ** 2 for v in first))


@given(st.lists(st.lists(st.floats(), max_size=8), max_size=5))
def test_accumulator_merge_does_not_depend_on_the_order(parts):
    merged = Accumulator()
    for part in reversed(parts):
        merged.merge(accumulator_of(np.array(part, float)))
    np.testing.assert_array_equal(
        merged.limbs, accumulator_of(np.array([v for part in parts for v in part], float)).limbs
    )


def test_accumulator_root_of_a_negative_sum_is_nan():
    assert math.isnan(accumulator_of(np.array([-1.0])).root())
    assert accumulator_of(np.array([2.0])).root() == math.sqrt(2)


@pytest.mark.parametrize(
    "limbs", [np.zeros(5, np.int64), np.zeros(Accumulator.SIZE), np.zeros(2 * Accumulator.SIZE, np.int64)[::2]]
)
def test_accumulator_other_limbs_are_refused(limbs):
    with pytest.raises(ValueError, match="contiguous int64"):
        Accumulator(limbs)
