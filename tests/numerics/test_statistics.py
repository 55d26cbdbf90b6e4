"""Reductions of complex numbers, several in one message, and statistics: the same on all ranks."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numerics.arrays import equal, error_of, make_field, numbers, put
from ranks import check_collective

from anyrank import exact
from anyrank.device.emulated import fake
from anyrank.errors import AnyrankError, UsageError
from anyrank.kernel import BODIES
from anyrank.state import State
from anyrank.world import World

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture(params=["auto", "shim"])
def body(request):
    BODIES.prefer(request.param)
    yield request.param
    BODIES.prefer("auto")


@pytest.mark.ranks(2, 3)
def test_exact_arrays_of_one_rank_are_refused_on_all(world):
    """A dtype, a shape or an axis of one rank raises an error on all ranks, and the next reduction works."""
    last = world.rank == world.size - 1
    text, short, flat = np.array(["1"]), np.zeros((2, 3)), np.zeros(4)
    good = np.ones((2, 4))
    actions = {
        "sum": (lambda: exact.sum(text if last else good, world), "TypeError: exact arithmetic takes"),
        "dot": (lambda: exact.dot(good, short if last else good, world), "ValueError: a sum of products"),
        "norm": (lambda: exact.norms([good, text if last else good], world), "TypeError: exact arithmetic"),
        "max": (lambda: exact.max(good * 1j if last else good, world), "TypeError: exact arithmetic takes"),
        "variance": (lambda: exact.variance(text if last else good, 0, world), "TypeError: exact arithmetic"),
        "axis": (lambda: exact.sum(flat if last else good, world, axis=1), "axis=1 must be one axis"),
        "shape": (lambda: exact.sum(short if last else good, world, axis=0), "axis=0: the sizes of the axes that"),
        "bins": (lambda: exact.histogram(good, 3 if last else 4, (0, 1), world), "must be the same"),
        "edges": (lambda: exact.histogram(good, [0, 1, 2 + last], world=world), "must be the same"),
        "kinds": (lambda: exact.histogram(good, *(([0, 1],) if last else (1, (0, 2))), world=world), "be the same"),
        "range": (lambda: exact.histogram(good, 3, (0, 1 + last), world), "must be the same"),
        "reversed": (lambda: exact.histogram(good, 3, (0, -1 if last else 1), world), "the lower one first"),
        "text": (lambda: exact.histogram(text if last else good, 3, (0, 1), world), "TypeError: exact arithmetic"),
    }
    for name, (action, words) in actions.items():
        error = error_of(action)
        check_collective(world, isinstance(error, AnyrankError) and words in str(error), f"{name}: {error!r}")
        check_collective(world, exact.sum(good, world) == 8 * world.size, name)
    check_collective(world, isinstance(error_of(lambda: exact.sum(text, world)), TypeError), "all ranks")


@given(
    st.lists(
        st.tuples(
            st.complex_numbers(allow_nan=False, allow_infinity=False),
            st.complex_numbers(allow_nan=False, allow_infinity=False, max_magnitude=1e100),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_exact_complex_results_are_rounded_once(pairs):
    x, y = np.array(pairs, complex).T

    def rounded(real, imaginary):
        parts = []
        for part in (real, imaginary):
            try:
                parts.append(float(part))
            except OverflowError:
                parts.append(math.inf if part > 0 else -math.inf)
        return complex(*parts)

    a, b = ([(Fraction(v.real), Fraction(v.imag)) for v in z.tolist()] for z in (x, y))
    real, imaginary = sum(v for v, _ in a), sum(v for _, v in a)
    assert exact.sum(x, local=True) == rounded(real, imaginary)
    assert exact.mean(x, local=True) == rounded(real / len(a), imaginary / len(a))
    products = [(p * r + q * s, p * s - q * r) for (p, q), (r, s) in zip(a, b, strict=True)]
    assert exact.dot(x, y, local=True) == rounded(sum(v for v, _ in products), sum(v for _, v in products))
    flat = np.concatenate([x.real, x.imag])
    assert exact.norm(x, local=True) == exact.norm(flat, local=True)


@pytest.mark.parametrize("dtype", [np.complex128, np.complex64, ">c16", ">c8"])
def test_exact_complex_arrays_match_vdot_on_every_device(body, dtype):
    x, y = numbers((9, 11), dtype), numbers((9, 11), dtype, 5)
    native = [z.astype(z.dtype.newbyteorder("=")) for z in (x, y)]
    a, b = (put(z) for z in native) if body == "shim" else (x, y)
    found = exact.dot(a, b, local=True), exact.dot(a, b.real, local=True), exact.dot(a.real, b, local=True)
    wide = [z.astype(complex) for z in native]
    for value, (p, q) in zip(
        found, ((wide[0], wide[1]), (wide[0], wide[1].real), (wide[0].real, wide[1])), strict=True
    ):
        assert type(value) is complex and value == pytest.approx(np.vdot(p, q), rel=1e-5)
    # On every device and in every byte order, the same bits.
    assert found[0] == exact.dot(*native, local=True)
    assert exact.sum(a, local=True) == exact.sum(native[0], local=True)
    assert exact.norm(a, local=True) == exact.norm(wide[0], local=True) == math.sqrt(exact.dot(a, a, local=True).real)
    assert exact.variance(a, local=True) == exact.variance(wide[0], local=True)


def test_exact_complex_subnormals_of_complex64_count_on_gpu(body, monkeypatch):
    """CuPy's negation flushes those of float32 to zero."""

    def as_cupy_does(call, arguments, named, now=fake._run_now):
        if getattr(call, "__self__", None) is np.negative and arguments[0].dtype == np.float32:
            return np.where(np.abs(arguments[0]) < 2.0**-126, np.float32(0), now(call, arguments, named))
        return now(call, arguments, named)

    monkeypatch.setattr(fake, "_run_now", as_cupy_does)
    x = np.array([1e-40 + 2e-41j, -3e-45j], np.complex64)
    assert exact.sum(put(x), local=True) == exact.sum(x.astype(complex), local=True) != 0
    assert exact.dot(put(x), put(x[::-1]), local=True) == exact.dot(x.astype(complex), x[::-1], local=True) != 0


@pytest.mark.ranks(2, 3)
def test_exact_complex_rank_without_elements_is_the_same(world):
    """A real or empty array on a rank does not change the message or the type of the result."""
    z = np.array([1 + 2j, 3 - 1j])
    for other, total in (([], 0), (np.zeros(0, np.int8), 0), (np.array([2.0, 1.0]), 3), (np.array([1, 1]), 2)):
        mine, ranks = (z if world.rank == 0 else other), world.size - 1
        found = exact.sum(mine, world)
        check_collective(world, repr(found) == repr(4 + 1j + total * ranks), f"{other}: {found}")
        check_collective(world, type(exact.dot(mine, mine, world)) is complex)
    nothing = np.zeros(0, complex) if world.rank else []
    check_collective(world, repr(exact.sum(nothing, world)) == "0j")


@pytest.mark.ranks(1, 3)
def test_exact_dots_and_norms_are_one_message(world):
    x, y, z = numbers((7, 9)), numbers((7, 9), seed=5), numbers((7, 9), complex)
    state = State(world)
    a, b = (make_field(state, name, values) for name, values in (("a", x), ("b", y)))
    c = make_field(state, "c", z)
    hits = make_field(state, "hits", numbers((4, 6), np.int64))
    before = world.timers.traffic["reductions"]
    found = exact.dots([(a, b), (a, a), (c, a), (hits, hits)]), exact.norms([a, c, hits])
    check_collective(world, world.timers.traffic["reductions"] - before == 2)
    pairs = [(x, y), (x, x), (z, x)]
    expected = [exact.dot(p, q, local=True) for p, q in pairs] + [exact.dot(hits, hits)]
    check_collective(world, repr(found[0]) == repr(expected) and type(found[0][3]) is int)
    check_collective(world, found[1] == [exact.norm(v, local=True) for v in (x, z)] + [exact.norm(hits)])
    check_collective(world, exact.dots([(a, a)], local=True)[0] == exact.dot(a.local, a.local, local=True))
    check_collective(world, exact.dots([], world) == exact.norms([]) == [])
    other = World(world.comm)
    d = make_field(State(other), "d", x)
    error = error_of(lambda: exact.norms([a, d]))
    check_collective(world, isinstance(error, UsageError) and "several worlds" in str(error))
    error = error_of(lambda: exact.dots([(a, a), (a, hits)]))
    check_collective(world, isinstance(error, ValueError) and "split differently" in str(error))
    other.close()


def test_exact_dots_of_arrays_without_world_are_refused():
    with pytest.raises(UsageError, match=r"exact\.dots\(\[\(x, y\)\], local=True\)"):
        exact.dots([(np.zeros(2), np.zeros(2))])
    with pytest.raises(UsageError, match=r"exact\.histogram\(x, bins, range, world=state.world\)"):
        exact.histogram(np.zeros(2), 2, (0, 1))


@given(st.lists(FINITE, min_size=2, max_size=20), st.integers(0, 1))
def test_exact_variance_is_rounded_once(values, ddof):
    x = list(map(Fraction, values))
    mean = sum(x) / len(x)
    expected = sum((v - mean) ** 2 for v in x) / (len(x) - ddof)
    try:
        rounded = float(expected)
    except OverflowError:
        rounded = math.inf
    assert exact.variance(np.array(values), ddof, local=True) == rounded


def test_exact_variance_of_integers_special_and_few_numbers(body):
    assert exact.variance(put(np.array([2**63 + 1, 2**63 + 3], np.uint64)), local=True) == 1.0
    assert exact.variance(put(np.array([1j, -1j, 1.0, -1.0])), local=True) == 1.0
    for values in ([1.0, math.inf], [math.nan, 1.0], [math.inf, -math.inf]):
        assert math.isnan(exact.variance(put(np.array(values)), local=True))
    for values, ddof in (([], 0), ([1.0], 1), ([1.0, 2.0], 3)):
        with pytest.raises(AnyrankError, match=f"variance of {len(values)} numbers with ddof={ddof}"):
            exact.variance(np.array(values), ddof, local=True)
    with pytest.raises(UsageError, match="ddof=-1"):
        exact.variance(np.zeros(3), -1, local=True)


RANGES = ((-2.0, 2.0), (0.1, 0.7), (-1e-3, 5), (3.0, 4.0))


@pytest.mark.ranks(1, 2, 3, 4)
def test_exact_histogram_has_the_counts_of_numpy(world):
    x = np.random.default_rng(8).standard_normal((40, 30)).round(1)  # many on edges
    x[3, 4:9] = math.nan, math.inf, -math.inf, 2.0, 0.7
    whole = np.random.default_rng(9).integers(-5, 6, (40, 30))
    for body in ("auto", "shim"):
        BODIES.prefer(body)
        state = State(world)
        field, hits = make_field(state, "x", x), make_field(state, "hits", whole)
        for bins in (1, 40, 2000):
            for ends in RANGES if body == "auto" else RANGES[:1]:
                for found, values in (
                    (exact.histogram(field, bins, ends), x),
                    (exact.histogram(hits, bins, ends), whole),
                ):
                    counts, edges = np.histogram(values, bins, ends)
                    check_collective(world, equal(found[0], counts) and equal(found[1], edges), f"{body} {bins} {ends}")
        mine = exact.histogram(field, 7, (-1, 1), local=True)[0]
        expected = np.histogram(x[field.layout.slices], 7, (-1, 1))[0]
        check_collective(world, equal(mine, expected) and equal(world.allreduce(mine), np.histogram(x, 7, (-1, 1))[0]))
    BODIES.prefer("auto")
    check_collective(world, exact.histogram([], 2, (0, 1), world)[0].tolist() == [0, 0])


EDGE = st.one_of(st.sampled_from([-1.0, 0.0, 0.1, 0.5, 2.0, 1e300]), FINITE)
EDGES = st.lists(EDGE, min_size=2, max_size=8).map(sorted)


@given(st.lists(st.floats(), max_size=20), EDGES)
def test_exact_histogram_of_edges_is_that_of_numpy(values, edges):
    """Elements on edges, NaN and infinities; edges may be equal."""
    x = np.array([*values, *edges, *np.nextafter(edges, math.inf)])
    counts, same_edges = exact.histogram(x, edges, local=True)
    assert equal(counts, np.histogram(x, edges)[0]) and equal(same_edges, np.array(edges))


@given(st.lists(st.floats(-3, 3), max_size=20), st.integers(1, 9), st.floats(-2, 0), st.floats(0.1, 3))
def test_exact_histogram_of_a_float_range_is_that_of_numpy(values, bins, low, high):
    edges = np.linspace(low, high, bins + 1)
    x = np.array([*values, *edges, math.nan])
    counts, same_edges = exact.histogram(x, bins, (low, high), local=True)
    assert equal(counts, np.histogram(x, bins, (low, high))[0]) and equal(same_edges, edges)


@pytest.mark.ranks(1, 2, 3)
def test_exact_histogram_of_edges_does_not_depend_on_the_ranks(world):
    x = np.random.default_rng(8).standard_normal((20, 30)).round(1)
    x[3, 4:7] = math.nan, math.inf, -math.inf
    for body in ("auto", "shim"):
        BODIES.prefer(body)
        field = make_field(State(world), "x", x)
        for edges in ([-0.5, 0.0, 0.1, 2.0], (-1, 0, 0, 1), np.array([-math.inf, -0.0, math.inf])):
            found, expected = exact.histogram(field, edges), np.histogram(x, edges)
            check_collective(world, equal(found[0], expected[0]) and (found[1] == edges).all(), f"{body} {edges}")
    BODIES.prefer("auto")


@pytest.mark.parametrize(
    ("bins", "ends", "words"),
    [
        (0, (0, 1), "bins=0 must be at least 1"),
        (-3, (0, 1), "bins=-3 must"),
        (2, (1, 0), "lower one first"),
        (2, (1, 1), "lower one first"),
        (2, (0, math.inf), "two finite numbers"),
        (2, (math.nan, 1), "two finite numbers"),
        (2, (-1.7e308, 1.7e308), "far enough apart|two finite"),
        (8, (1.0, 1.0 + 2**-51), "far enough apart for bins=8"),
        (8, None, r"bins=8 needs a range=\(low, high\), or give the edges"),
        ([0.0, 1.0], (0, 1), r"range=\(0, 1\) is for a number of bins"),
        ([0.0, 2.0, 1.0], None, r"bins = \[0.0, 2.0, 1.0\] must be two edges or more, of which none is below the last"),
        ([0.0, math.nan, 1.0], None, "must be two edges or more"),
        ([1.0], None, "must be two edges or more"),
        ([[0.0, 1.0]], None, "must be two edges or more"),
    ],
)
def test_exact_histogram_of_other_bins_is_refused(bins, ends, words):
    with pytest.raises(UsageError, match=words):
        exact.histogram(np.zeros(3), bins, ends, local=True)


def test_exact_histogram_of_other_arguments_is_refused():
    with pytest.raises(TypeError):
        exact.histogram(np.zeros(3), 2.5, (0, 1), local=True)
    with pytest.raises(TypeError, match="not complex128"):
        exact.histogram(np.array([1j]), 2, (0, 1), local=True)
