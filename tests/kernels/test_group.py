"""Aggregation by group: every body gives the bits of integers and fractions, for any order of the rows."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import anyrank.kernels.group as definition
from anyrank.device import open_device
from anyrank.kernel import Kernel
from anyrank.kernels.group import EMPTY, MINUS, NANS, PLUS, example

BODIES = ("reference", "cython")
LARGEST, TINY = 1.7976931348623157e308, 5e-324
FLOATS = st.one_of(
    st.floats(), st.floats(-1, 1), st.sampled_from([0.0, -0.0, TINY, -TINY, 2.0**-1022, LARGEST, -LARGEST])
)


def load(body, operation):
    return Kernel("group", operation).load(body, open_device(body))


@pytest.fixture(params=BODIES)
def run(request):
    return lambda operation, *arguments: load(request.param, operation)(*arguments)


def whole(row):
    return int.from_bytes(row.tobytes(), "little", signed=True)


def limbs_of(totals, words):
    return np.array([[total >> 64 * k & 2**64 - 1 for k in range(words)] for total in totals], np.uint64).view(np.int64)


def window(x, power=1, words=0):
    """An origin and a number of words that hold the sum of the powers of x."""
    low, high = load("reference", "span")(x)
    needed = power * (high - low + 1) + x.size.bit_length() + 1 if low <= high else 2
    return power * min(low, high + 1), words or max(2, -(-needed // 64))


def round_fraction(value):
    """A Fraction as the nearest double."""
    try:
        return value.numerator / value.denominator
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def hostile(random, n):
    bits = random.integers(0, 1 << 64, n, np.uint64).view(np.float64)
    some = np.array([0.0, -0.0, TINY, -TINY, LARGEST, -LARGEST, 1.0, -1.0, 2.0**-1022, 1e-300])
    return np.where(random.random(n) < 0.3, random.choice(some, n), bits)


FAMILIES = {
    "uniform": lambda r, n: r.random(n),
    "normal": lambda r, n: r.standard_normal(n),
    "prices": lambda r, n: r.integers(1, 100_000, n) / 100,
    "whole": lambda r, n: r.integers(-(2**53), 2**53, n).astype(float),
    "spread by 2^200": lambda r, n: r.standard_normal(n) * 2.0 ** r.integers(-100, 100, n),
    "cancelling": lambda r, n: np.where(np.arange(n) % 2, 1e200, -1e200) + r.standard_normal(n) * 1e190,
    "subnormal": lambda r, n: r.integers(0, 1 << 52, n).view(np.float64) * r.choice([-1, 1], n),
    "any finite bits": lambda r, n: np.nan_to_num(hostile(r, n), nan=1.5, posinf=-2.0, neginf=3e-300),
    "any bits": hostile,
    "zeros": lambda r, n: r.choice([0.0, -0.0], n),
}


@pytest.fixture(params=FAMILIES)
def numbers(request):
    return FAMILIES[request.param](np.random.default_rng(5), 400)


def gids_of(n, groups=7, seed=3):
    return np.random.default_rng(seed).integers(0, groups, n).astype(np.uint32)


def aggregate(run, operation, x, gids, groups, words=0):
    power = 1 + (operation == "squares")
    origin, words = window(x, power, words) if x.dtype.kind == "f" else (0, words or 3)
    limbs, specials = np.zeros((groups, words), np.int64), np.zeros(groups, np.uint8)
    run(operation, limbs, specials, gids, x, origin)
    return limbs, specials, origin


@pytest.mark.parametrize("operation", ["limbs", "squares"])
def test_group_sums_are_those_of_fractions(run, numbers, operation):
    power, gids = 1 + (operation == "squares"), gids_of(numbers.size)
    limbs, specials, origin = aggregate(run, operation, numbers, gids, 8)
    for group in range(8):
        terms = numbers[gids == group]
        finite = [Fraction(v) ** power for v in terms.tolist() if math.isfinite(v)]
        assert whole(limbs[group]) * Fraction(2) ** origin == sum(finite)
        marks = PLUS * (math.inf in terms) | MINUS * (-math.inf in terms) | NANS * bool(np.isnan(terms).any())
        assert specials[group] == marks


@pytest.mark.parametrize("operation", ["limbs", "squares"])
@pytest.mark.parametrize("words", [2, 3, 4, 5, 34, 68])
def test_group_any_number_of_words_takes_terms_of_any_size(run, operation, words):
    random, power = np.random.default_rng(words), 1 + (operation == "squares")
    top = min(64 * words // power, 1000)
    x = np.ldexp(random.standard_normal(300), random.integers(-20, top - 12, 300) - top // 2)
    x = np.append(x, [2.0 ** (top // 2 - 12), -(2.0 ** (-(top // 2) + 20)), 0.0, -0.0])
    x = np.round(np.ldexp(x, top // 2 - 10)) * 2.0 ** (10 - top // 2)
    origin = power * (10 - top // 2)
    limbs, specials = np.full((1, words), -1, np.int64), np.zeros(1, np.uint8)
    run(operation, limbs, specials, np.zeros(x.size, np.uint32), x, origin)
    assert (
        whole(limbs[0]) * Fraction(2) ** origin == sum(Fraction(v) ** power for v in x.tolist()) - Fraction(2) ** origin
    )


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize("operation", ["limbs", "squares"])
def test_group_sums_of_integers_are_exact(run, operation, dtype):
    info, power = np.iinfo(dtype), 1 + (operation == "squares")
    x = np.random.default_rng(1).integers(info.min, info.max, 300, dtype, endpoint=True)
    x[:3] = info.min, info.max, 0
    gids = gids_of(x.size)
    for words in (3, 4) if power == 2 else (2, 3):
        limbs, _, _ = aggregate(run, operation, x, gids, 7, words)
        assert [whole(row) for row in limbs] == [sum(v**power for v in x[gids == g].tolist()) for g in range(7)]
    with pytest.raises(ValueError, match="integers have the origin 0, not 3"):
        run(operation, limbs, np.zeros(7, np.uint8), gids, x, 3)


@given(st.lists(st.tuples(st.integers(0, 4), FLOATS), max_size=40), st.randoms(use_true_random=False))
def test_group_sums_do_not_depend_on_order_or_parts(run, rows, random):
    gids, x = np.array([g for g, _ in rows], np.uint32), np.array([v for _, v in rows], np.float64)
    limbs, specials, origin = aggregate(run, "limbs", x, gids, 5)
    order = np.array(random.sample(range(len(rows)), len(rows)), int)
    cut = random.randint(0, len(rows))
    parts = []
    for part in (order[:cut], order[cut:]):
        parts.append((np.zeros_like(limbs), np.zeros_like(specials)))
        run("limbs", *parts[-1], gids[part], x[part], origin)
    run("merge", parts[0][0], np.arange(5, dtype=np.uint32), parts[1][0])
    np.testing.assert_array_equal(parts[0][0], limbs)
    np.testing.assert_array_equal(parts[0][1] | parts[1][1], specials)


@pytest.mark.parametrize("words", [2, 3, 34])
def test_group_merge_of_limbs_carries(run, words):
    random = np.random.default_rng(words)
    ours, theirs = ([int(random.integers(-(2**57), 2**57)) << 64 * (words - 1) for _ in range(n)] for n in (5, 60))
    ours, theirs = [v - 1 for v in ours], [v // 3 for v in theirs]
    limbs, gids = limbs_of(ours, words), gids_of(60, 5)
    run("merge", limbs, gids, limbs_of(theirs, words))
    expected = [ours[g] + sum(t for t, h in zip(theirs, gids.tolist(), strict=True) if h == g) for g in range(5)]
    assert [whole(row) for row in limbs] == expected
    with pytest.raises(ValueError, match="limbs of"):
        run("merge", limbs, gids, np.zeros((60, words + 1), np.int64))


def test_group_sums_and_means_are_correctly_rounded(run, numbers):
    gids = gids_of(numbers.size)
    limbs, specials, origin = aggregate(run, "limbs", numbers, gids, 8)
    counts = np.bincount(gids, minlength=8)
    sums = run("quotient", limbs, np.ones(8, np.int64), origin, specials)
    means = run("quotient", limbs, counts, origin, specials)
    for g in range(8):
        terms = numbers[gids == g].tolist()
        if all(map(math.isfinite, terms)):
            total = sum(map(Fraction, terms), Fraction(0))
            expected = [round_fraction(total), round_fraction(total / len(terms)) if terms else math.nan]
        else:
            expected = [sum(v for v in terms if not math.isfinite(v))] * 2
        np.testing.assert_array_equal([sums[g], means[g]], expected)
    assert not np.signbit(sums[7]) and not counts[7]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=30))
def test_group_sum_is_that_of_fsum(run, values):
    x = np.array(values, np.float64)
    limbs, specials, origin = aggregate(run, "limbs", x, np.zeros(x.size, np.uint32), 1)
    result = run("quotient", limbs, np.ones(1, np.int64), origin, specials)[0]
    try:
        assert result == math.fsum(values)
    except OverflowError:
        assert result == round_fraction(sum(map(Fraction, values)))


@given(st.integers(2, 5), st.data())
def test_group_quotients_round_to_even(run, words, data):
    total = data.draw(st.integers(-(2 ** (64 * words - 1)), 2 ** (64 * words - 1) - 1))
    count = data.draw(st.one_of(st.integers(1, 2**63 - 1), st.integers(0, 62).map(lambda k: 1 << k)))
    total = data.draw(st.sampled_from([total, total >> 70, (2**54 + 2 * (total & 255) + 1) * count, count, -1, 1]))
    total = max(min(total, 2 ** (64 * words - 1) - 1), -(2 ** (64 * words - 1)))
    origin = data.draw(st.one_of(st.integers(-1200, 1024), st.integers(-1140, -1060)))
    result = run("quotient", limbs_of([total], words), np.array([count]), origin, np.zeros(1, np.uint8))
    expected = round_fraction(Fraction(total) * Fraction(2) ** origin / count)
    np.testing.assert_array_equal(result, [expected])
    if total:
        assert np.signbit(result[0]) == (total < 0)


def test_group_non_finite_values_determine_the_result(run):
    specials = np.array([0, PLUS, MINUS, PLUS | MINUS, NANS, NANS | PLUS, 7], np.uint8)
    result = run("quotient", limbs_of([5] * 7, 2), np.ones(7, np.int64), 0, specials)
    np.testing.assert_array_equal(result, [5, np.inf, -np.inf] + [np.nan] * 4)
    assert np.isnan(
        run("variance", limbs_of([5] * 7, 2), limbs_of([25] * 7, 2), np.full(7, 2), 0, specials, 1)[1:]
    ).all()


@pytest.mark.parametrize("ddof", [0, 1])
def test_group_variances_are_correctly_rounded(run, numbers, ddof):
    x, gids = np.nan_to_num(numbers, posinf=1.0, neginf=2.0), gids_of(numbers.size)
    gids[:2] = 7, 8
    gids[1] = 8
    limbs, specials, origin = aggregate(run, "limbs", x, gids, 10)
    squares, _, twice = aggregate(run, "squares", x, gids, 10)
    assert twice == 2 * origin
    result = run("variance", limbs, squares, np.bincount(gids, minlength=10), origin, specials, ddof)
    for g in range(10):
        terms = [Fraction(v) for v in x[gids == g].tolist()]
        n = len(terms)
        expected = math.nan
        if n > ddof:
            expected = round_fraction((sum(t * t for t in terms) - sum(terms, Fraction(0)) ** 2 / n) / (n - ddof))
        np.testing.assert_array_equal(result[g], expected)


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=6), st.integers(1, 2**40), st.integers(2, 4))
def test_group_variances_of_repeated_values_are_exact(run, values, times, words):
    """As if every value occurred `times` times."""
    n, total, square = len(values) * times, sum(values) * times, sum(v * v for v in values) * times
    result = run(
        "variance", limbs_of([total], words), limbs_of([square], words + 1), np.array([n]), 0, np.zeros(1, np.uint8), 0
    )
    mean = Fraction(total, n)
    assert result[0] == round_fraction(sum((v - mean) ** 2 for v in values) / len(values))


@given(st.lists(FLOATS, max_size=40))
def test_group_span_is_the_narrowest(run, values):
    low, high = run("span", np.array(values, np.float64))
    finite = [Fraction(v) for v in values if math.isfinite(v) and v]
    assert (low, high) == EMPTY or finite
    if finite:
        unit = Fraction(2) ** low
        assert all((v / unit).denominator == 1 for v in finite) and any((v / unit).numerator % 2 for v in finite)
        assert 2 ** Fraction(high) <= max(map(abs, finite)) < 2 ** Fraction(high + 1)


@given(st.lists(FLOATS, max_size=6), st.integers(-1080, 20), st.integers(-40, 1030))
def test_group_within_agrees_with_the_span(values, least, greatest):
    x = np.array(values)
    low, high = load("reference", "span")(x)
    for span in ((least, greatest), (low, high), (low + 1, high), (low, high - 1), EMPTY):
        inside = (low, high) == EMPTY or (span[0] <= low and high <= min(span[1], span[0] + 1023))
        expected = bool(np.isfinite(x).all()) and -1023 <= span[0] <= 0 and inside
        assert [load(body, "within")(x, *span) for body in BODIES] == [expected] * 2


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.uint64])
@pytest.mark.parametrize("largest", [False, True])
def test_group_extremes_of_every_type(run, dtype, largest):
    random, gids = np.random.default_rng(2), gids_of(300)
    x = random.integers(0, 1 << 64, 300, np.uint64).view(dtype)
    info = np.finfo(dtype) if dtype == np.float64 else np.iinfo(dtype)
    first = (
        -np.inf
        if dtype == np.float64 and largest
        else np.inf
        if dtype == np.float64
        else (info.min if largest else info.max)
    )
    x = np.where(np.isnan(x), 1.0, x) if dtype == np.float64 else x
    values = np.full(8, first, dtype)
    run("greatest" if largest else "least", values, gids, x)
    pick = np.max if largest else np.min
    np.testing.assert_array_equal(values, [pick(x[gids == g], initial=first) for g in range(8)])


def test_group_extremes_of_zeros_and_nans(run):
    rows = [(0, 0.0), (0, -0.0), (1, -0.0), (2, -1.0), (2, np.nan), (2, -3.0), (3, -np.nan)]
    for order in (rows, rows[::-1]):
        gids, x = np.array([g for g, _ in order], np.uint32), np.array([v for _, v in order])
        low, high = np.full(4, np.inf), np.full(4, -np.inf)
        run("least", low, gids, x)
        run("greatest", high, gids, x)
        assert low.tobytes() == np.array([-0.0, -0.0, np.nan, np.nan]).tobytes()
        assert high.tobytes() == np.array([0.0, -0.0, np.nan, np.nan]).tobytes()


def test_group_counts_and_sums_of_integers(run):
    gids, x = gids_of(500), np.random.default_rng(0).integers(-(2**62), 2**62, 500)
    counts, sums = np.full(8, 2), np.zeros(8, np.int64)
    run("add", counts, gids, None)
    run("add", sums, gids, x)
    np.testing.assert_array_equal(counts, np.bincount(gids, minlength=8) + 2)
    expected = [sum(x[gids == g].tolist()) for g in range(8)]
    assert [(v - w) % 2**64 for v, w in zip(sums.tolist(), expected, strict=True)] == [0] * 8


@pytest.mark.parametrize("operation", ["add", "least", "greatest", "limbs", "squares", "merge"])
def test_group_unknown_group_is_refused_and_changes_nothing(run, operation):
    arguments, _, _ = example(operation, 50)
    gids = next(a for a in arguments if getattr(a, "dtype", None) == np.uint32)
    gids[7] = len(arguments[0])
    before = arguments[0].copy()
    with pytest.raises(IndexError, match=f"group {gids[7]} of {len(before)}"):
        run(operation, *arguments)
    np.testing.assert_array_equal(arguments[0], before)
    with pytest.raises(ValueError, match="49 values of 50 rows"):
        run(operation, *[a[1:] if a is arguments[-1 - (operation in ("limbs", "squares"))] else a for a in arguments])


@pytest.mark.parametrize("operation", definition.OPERATIONS)
@pytest.mark.parametrize("size", [0, 1, 10, 3000])
def test_group_bodies_give_the_references_bits(operation, size):
    (mine, amount, _), (theirs, _, _) = example(operation, size), example(operation, size)
    result, expected = load("cython", operation)(*mine), load("reference", operation)(*theirs)
    np.testing.assert_array_equal(result, expected)
    for ours, their in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(ours, their)
    assert amount >= size
