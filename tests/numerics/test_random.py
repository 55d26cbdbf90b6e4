"""Random numbers by global index: their values, their distributions, and their independence of splits."""

from __future__ import annotations

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyrank.device import GPU_BODIES
from anyrank.device.emulated import fake
from anyrank.errors import UsageError
from anyrank.kernel import BODIES
from anyrank.kernels.philox import gpu as kernel_on_gpu
from anyrank.kernels.philox import reference
from anyrank.numerics.random import CHUNK, Philox, quantile

N = 100_000
METHODS = {
    "words": lambda rng, index, step: rng.words(index, step),
    "uniform": lambda rng, index, step: rng.uniform(index, step, -2.0, 3.5),
    "pair": lambda rng, index, step: rng.pair(index, step),
    "normal": lambda rng, index, step: rng.normal(index, step),
    "integers": lambda rng, index, step: rng.integers(index, -3 * 2**61, 3 * 2**61, step),
}


@pytest.fixture(params=METHODS)
def draw(request):
    return METHODS[request.param]


def words_of(seed, stream, index, step=0, attempt=0):
    """The words of one index as Python integers, from the reference body."""
    out = np.zeros((1, 4), np.uint32)
    reference.words(seed, stream + (attempt << 24), step, np.array([index], np.uint64), out)
    return out[0].tolist()


# The values of the numbers


@pytest.mark.parametrize("index", [0, 5, 2**32 - 1, 2**32, 2**53 + 1, 2**64 - 1])
def test_philox_numbers_are_made_of_the_kernels_words(index):
    rng, step, indices = Philox(2**64 - 3, 2**24 - 1), 2**32 - 1, np.array([index], np.uint64)
    w = words_of(rng.seed, rng.stream, index, step)
    k = [(w[0] | w[1] << 32) >> 11, (w[2] | w[3] << 32) >> 11]
    assert rng.words(indices, step).tolist() == [w]
    assert rng.uniform(indices, step).tolist() == [k[0] / 2**53]
    assert rng.uniform(indices, step, -1.0, 3.0).tolist() == [-1.0 + 4.0 * (k[0] / 2**53)]
    assert rng.pair(indices, step).tolist() == [[k[0] / 2**53, k[1] / 2**53]]
    assert rng.normal(indices, step).tolist() == quantile(np.array(k[:1], np.uint64)).tolist()


def lemire(rng, index, low, high):
    """One number by the method's description, in Python integers, and the number of words it used."""
    span, candidates = high - low, 0
    while True:
        w = words_of(rng.seed, rng.stream, index, attempt=candidates // 2)
        for x in (w[0] | w[1] << 32, w[2] | w[3] << 32):
            candidates += 1
            if x * span % 2**64 >= 2**64 % span:
                return low + (x * span >> 64), candidates


@pytest.mark.parametrize(
    ("low", "high", "most"),
    [(0, 1, 1), (-5, 5, 1), (-3 * 2**61, 3 * 2**61, 4), (-1, 2**63, 5), (-(2**63), 2**63, 1), (7, 2**63, 1)],
)
def test_philox_integers_follow_lemires_method(low, high, most):
    rng = Philox(11, 4)
    expected = [lemire(rng, index, low, high) for index in range(600)]
    assert rng.integers(np.arange(600), low, high).tolist() == [value for value, _ in expected]
    assert max(candidates for _, candidates in expected) >= most  # rejection occurs as expected


@pytest.mark.parametrize("body", ["reference", "cython", "shim", pytest.param("cupy", marks=pytest.mark.gpu)])
def test_philox_bodies_give_the_same_numbers(body, draw):
    index = np.arange(2**32 - N // 2, 2**32 + N // 2)
    expected = draw(Philox(9, 1), index, 6)
    try:
        BODIES.prefer(body)
        device = BODIES.device
        values = draw(Philox(9, 1), device.from_host(index), 6)
        assert device.owns(values) is (body in GPU_BODIES)
        assert device.to_host(values).tobytes() == expected.tobytes()
    finally:
        BODIES.prefer("auto")


# On a GPU


@pytest.fixture(params=["shim", pytest.param("cupy", marks=pytest.mark.gpu)])
def gpu(request):
    BODIES.prefer(request.param)
    yield BODIES.device
    BODIES.prefer("auto")


def test_philox_numbers_of_host_indices_are_on_the_host(gpu, draw):
    values = draw(Philox(9, 1), [3, 2**40], 6)
    assert type(values) is np.ndarray
    assert values.tobytes() == gpu.to_host(draw(Philox(9, 1), gpu.from_host(np.array([3, 2**40])), 6)).tobytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64])
def test_philox_indices_on_gpu_have_any_shape(gpu, draw, dtype):
    index = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    on_gpu = gpu.from_host(index)
    for part in (np.s_[...], np.s_[:, ::2, 1:], np.s_[:, :, 2], np.s_[1, 2, ::-3], np.s_[:0], np.s_[1, 1, 1]):
        values, expected = gpu.to_host(draw(Philox(5), on_gpu[part], 1)), draw(Philox(5), index[part], 1)
        assert (values.shape, values.dtype) == (expected.shape, expected.dtype)
        assert values.tobytes() == expected.tobytes()


@pytest.mark.parametrize("gpu", ["shim"], indirect=True)
def test_philox_on_gpu_copies_only_the_smallest_signed_index(gpu, draw):
    unsigned, signed = gpu.from_host(np.arange(999, dtype=np.uint64)), gpu.from_host(np.arange(999))
    draw(Philox(5), unsigned, 0)
    before = fake.copied["out"]
    draw(Philox(5), unsigned, 1)
    assert fake.copied["out"] == before
    draw(Philox(5), signed, 1)
    assert fake.copied["out"] == before + 8


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-5, 5), (-1, 2**63), (-(2**63), 2**63), (7, 2**63), (2**63 - 3, 2**63)]
)
def test_philox_integers_of_any_span_are_the_same_on_gpu(gpu, low, high):
    index = np.arange(10_000, dtype=np.uint64) << np.uint64(40)
    values = gpu.to_host(Philox(11, 4).integers(gpu.from_host(index), low, high, 3))
    assert np.array_equal(values, Philox(11, 4).integers(index, low, high, 3))


def test_philox_normal_is_the_same_with_many_per_thread(gpu, monkeypatch):
    monkeypatch.setattr(kernel_on_gpu, "ENOUGH", 100)
    for n in (99, 1000, 3333, 100_000):
        index = np.arange(n, dtype=np.uint64)
        values = gpu.to_host(Philox(2**63, 4).normal(gpu.from_host(index)))
        assert values.tobytes() == Philox(2**63, 4).normal(index).tobytes()


def test_philox_indices_on_gpu_are_checked(gpu):
    with pytest.raises(UsageError, match=r"Philox: index -4 is out of range"):
        Philox(1).normal(gpu.from_host(np.array([3, -4])))
    with pytest.raises(UsageError, match=r"Philox: indices of type float32 are not whole numbers"):
        Philox(1).words(gpu.from_host(np.zeros(3, np.float32)))


# The numbers belong to indices


@given(st.lists(st.integers(0, 2 * CHUNK), max_size=4), st.integers(0, 2**32 - 1))
def test_philox_numbers_do_not_depend_on_split_or_order(cuts, step):
    rng, index = Philox(5, 2), np.arange(2 * CHUNK + 10) * 3 + 2**32 - CHUNK
    cuts = [0, *sorted(cuts), index.size]
    for draw in METHODS.values():
        whole = draw(rng, index, step)
        parts = [draw(rng, index[a:b], step) for a, b in pairwise(cuts)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
        assert draw(rng, index[::-1], step).tobytes() == whole[::-1].tobytes()


@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3), (2, 0, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64])
def test_philox_shape_is_that_of_the_indices(draw, shape, dtype):
    index = np.arange(math.prod(shape), dtype=dtype).reshape(shape)
    values, flat = draw(Philox(5), index, 1), draw(Philox(5), index.reshape(-1), 1)
    assert values.shape[: len(shape)] == shape
    assert values.tobytes() == flat.tobytes()
    assert values.dtype == flat.dtype


def test_philox_depends_on_seed_stream_step_and_index(draw):
    index = np.arange(50)
    drawn = [
        draw(Philox(1), index, 0),
        draw(Philox(2), index, 0),
        draw(Philox(1 + 2**32), index, 0),
        draw(Philox(1, 1), index, 0),
        draw(Philox(1), index, 1),
        draw(Philox(1), index + 50, 0),
    ]
    assert len(np.unique(np.concatenate(drawn), axis=0)) == 300


# The distributions of the numbers


def kolmogorov(sample, distribution):
    """√n times the largest distance between the distribution functions; above 1.95 for one sample in a thousand."""
    expected = np.array([distribution(x) for x in np.sort(sample).tolist()])
    ranks = np.arange(sample.size + 1) / sample.size
    return math.sqrt(sample.size) * max((ranks[1:] - expected).max(), (expected - ranks[:-1]).max())


def normal_distribution(x):
    return math.erfc(-x / math.sqrt(2)) / 2


@pytest.mark.parametrize(("seed", "step"), [(1, 0), (2, 77)])
def test_philox_uniform_and_normal_have_their_distributions(seed, step):
    rng, index = Philox(seed), np.arange(N)
    pair = rng.pair(index, step)
    assert pair.min() >= 0.0 and pair.max() < 1.0
    assert kolmogorov(pair[:, 0], float) < 1.95
    assert kolmogorov(pair[:, 1], float) < 1.95
    assert kolmogorov(rng.normal(index, step), normal_distribution) < 1.95


def test_philox_moments_of_normal_numbers():
    z = Philox(3).normal(np.arange(N))
    for power, variance in [(1, 1), (2, 2), (3, 15), (4, 96)]:  # of the mean of zᵖ, times N
        expected = 0 if power % 2 else math.prod(range(1, power, 2))
        assert abs((z**power).mean() - expected) < 4 * math.sqrt(variance / N)


def test_philox_neighbouring_numbers_are_not_correlated():
    index = np.arange(N)
    u = Philox(3).pair(index)
    others = [np.roll(u[:, 0], 1), u[:, 1], Philox(3).uniform(index, 1), Philox(3, 1).uniform(index)]
    for other in others:
        assert abs(np.corrcoef(u[:, 0], other)[0, 1]) < 4 / math.sqrt(N)


def test_philox_integers_of_a_large_span_are_not_biased():
    """Without rejection, one residue modulo 3 of [0, 3·2⁶²) would occur twice as often as another."""
    values = Philox(8).integers(np.arange(N), 0, 3 * 2**61)
    more = Philox(8, 1).integers(np.arange(N), -(2**62), 2**63)  # a span of 3·2⁶²
    for numbers in (values, more):
        counts = np.bincount(numbers % 3, minlength=3)
        assert np.abs(counts - N / 3).max() < 4 * math.sqrt(N * 2 / 9)
    thirds = np.bincount(more // 2**62 + 1, minlength=3)
    assert np.abs(thirds - N / 3).max() < 4 * math.sqrt(N * 2 / 9)


@pytest.mark.parametrize(("low", "high"), [(-2, 3), (0, 1), (2**63 - 3, 2**63), (-(2**63), -(2**63) + 3)])
def test_philox_integers_reach_low_but_not_high(low, high):
    values = Philox(8).integers(np.arange(1000), low, high)
    assert values.dtype == np.int64
    assert np.unique(values).tolist() == list(range(low, high))


def test_quantiles_are_correct_and_antisymmetric():
    rng = np.random.default_rng(1)
    centre = (Philox(1).words(np.arange(300)) @ [2**21, 0, 0, 0]).astype(np.uint64)
    tails = (2.0 ** rng.uniform(0, 52, 300)).astype(np.uint64)
    edges = np.array([0, 1, 2, 2**52 - 1, 2**52, *(int(2**53 * p) for p in (0.075, 0.925, math.exp(-25)))], np.uint64)
    k = np.concatenate([centre, tails, edges])
    z = quantile(k)
    with mpmath.workprec(160):
        for number, value in zip(k.tolist(), z.tolist(), strict=True):
            exact = mpmath.sqrt(2) * mpmath.erfinv(mpmath.mpf(2 * number + 1 - 2**53) / 2**53)
            assert abs(value - exact) <= 8e-16 * abs(exact), number
    assert np.array_equal(quantile(np.uint64(2**53 - 1) - k), -z)
    assert z.min() == pytest.approx(-8.292361075813595, abs=2e-15)


# Errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Philox(-1), r"seed -1 .* \[0, 18446744073709551616\).*modulo"),
        (lambda: Philox(2**64), r"seed 18446744073709551616 is out of range.*modulo"),
        (lambda: Philox(1.5), r"seed 1\.5 is not a whole number.*modulo"),
        (lambda: Philox(1, 2**24), r"stream 16777216 .* \[0, 16777216\).*Number streams from 0"),
        (lambda: Philox(1, -1), r"stream -1 is out of range.*Number streams from 0"),
        (lambda: Philox(1).words([0], 2**32), r"step 4294967296 .* \[0, 4294967296\).*another stream"),
        (lambda: Philox(1).normal([0], -1), r"step -1 is out of range.*another stream"),
        (lambda: Philox(1).words([3, -4]), r"index -4 is out of range.*from 0"),
        (lambda: Philox(1).words([0.5]), r"indices of type float64 are not whole numbers.*np\.arange"),
        (lambda: Philox(1).words([True]), r"indices of type bool are not whole numbers.*np\.arange"),
        (lambda: Philox(1).uniform([0], 0, 1.0, 1.0), r"low 1\.0 and high 1\.0 bound no interval.*Exchange"),
        (
            lambda: Philox(1).uniform([0], 0, -1e308, 1e308),
            r"low -1e\+308 and high 1e\+308 bound no interval: high - low must be .* finite",
        ),
        (lambda: Philox(1).uniform([0], 0, math.nan, 1.0), r"low nan and high 1\.0 bound no interval"),
        (lambda: Philox(1).integers([0], 3, 3), r"high 3 .* \[4, 9223372036854775809\).*not to be drawn"),
        (lambda: Philox(1).integers([0], 0, 2**63 + 1), r"high 9223372036854775809 is out of range"),
        (lambda: Philox(1).integers([0], -(2**63) - 1, 0), r"low -9223372036854775809 is out of range.*int64"),
        (lambda: Philox(1).integers([0], 0, 2.0), r"high 2\.0 is not a whole number"),
    ],
)
def test_philox_bad_arguments_give_name_value_rule_and_fix(call, message):
    with pytest.raises(UsageError, match=f"Philox: {message}"):
        call()


def test_philox_arguments_may_be_numpy_integers():
    rng = Philox(np.uint64(2**64 - 1), np.int32(3))
    assert (rng.seed, rng.stream) == (2**64 - 1, 3)
    assert type(rng.seed) is int
    expected = rng.integers([1, 2], -9, 9, 7)
    assert np.array_equal(rng.integers(np.array([1, 2]), np.int64(-9), np.int8(9), np.uint32(7)), expected)
