"""Sorting: every body gives NumPy's order, for any keys."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from anyrank.device import open_device
from anyrank.kernel import Kernel
from anyrank.kernels.sort import OPERATIONS, cpu_cython, example

SIZES = (0, 1, 2, 9, 31, 32, 64, 65, 300, 60_001)
DTYPES = (np.int32, np.int64, np.uint32, np.uint64)


def spread(name, size, dtype):
    """Keys of a distribution that is hard for some sorting algorithm."""
    rng, limits = np.random.default_rng(size), np.iinfo(dtype)
    keys = rng.integers(limits.min, limits.max, size, dtype, endpoint=True)
    if name == "equal":
        keys[:] = keys[:1]
    elif name == "few":
        keys = rng.choice(keys[:5] if size else keys, size)
    elif name == "sorted":
        keys.sort()
    elif name == "reversed":
        keys = np.sort(keys)[::-1].copy()
    elif name == "narrow":
        keys = (keys % dtype(1000)) + dtype(limits.max - 1000)
    elif name == "powers":  # half of the keys in every bucket, at every level
        keys = (dtype(1) << (keys % dtype(limits.bits - 1))).astype(dtype) + (keys & dtype(1))
    elif name == "two far apart":
        keys = np.where(keys % 2, keys % dtype(50), limits.max - keys % dtype(50)).astype(dtype)
    return np.ascontiguousarray(keys, dtype)


SPREADS = ("random", "equal", "few", "sorted", "reversed", "narrow", "powers", "two far apart")


@pytest.fixture(params=["reference", "cython", "cython 32", "cython 0"])
def call(request):
    """An operation of one body."""
    body, _, network = request.param.partition(" ")
    device = open_device(body)
    if network:
        cpu_cython.choose(int(network))
        request.addfinalizer(lambda: cpu_cython.choose(64))
    return lambda operation, *arguments: Kernel("sort", operation).load(body, device)(*arguments)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPREADS)
def test_sort_kernel_sort_and_argsort_are_numpys(call, name, dtype):
    for size in SIZES:
        keys = spread(name, size, dtype)
        order = call("argsort", keys)
        np.testing.assert_array_equal(order, np.argsort(keys, kind="stable"))
        assert order.dtype == np.int64
        result = keys.copy()
        call("sort", result)
        np.testing.assert_array_equal(result, np.sort(keys))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPREADS)
def test_sort_kernel_segments_are_merged_in_order(call, name, dtype):
    for size in (0, 1, 2, 50, 3001):
        for cuts in ((0, 1), (0, 0.5, 1), (0, 0.001, 1), (0, 0, 1), (0, 0.3, 0.3, 1), (0.1, 0.2, 0.5, 0.9), None):
            cuts = np.linspace(0, 1, 23) if cuts is None else cuts
            borders = [int(cut * size) for cut in cuts]
            keys = spread(name, size, dtype)
            for a, b in pairwise(borders):
                keys[a:b].sort()
            part, out = keys[borders[0] : borders[-1]], np.empty(borders[-1] - borders[0], dtype)
            before = keys.copy()
            assert call("merge", keys, borders, out) is None
            np.testing.assert_array_equal(out, np.sort(part))
            order = call("merge_order", keys, borders)
            np.testing.assert_array_equal(order, np.argsort(part, kind="stable") + borders[0])
            np.testing.assert_array_equal(keys, before)


@pytest.mark.parametrize("body", ["reference", "cython"])
@pytest.mark.parametrize("width", [1, 3, 8, 13, 16, 40])
def test_sort_kernel_fixed_bytes_are_sorted_by_bytes(body, width):
    argsort, merge_order = (Kernel("sort", name).load(body, open_device(body)) for name in ("argsort", "merge_order"))
    raw = np.random.default_rng(width).integers(0, 256, (1000, width), np.uint8)
    raw[::3] //= 128  # many zeros: NumPy shortens bytes that end in zeros
    raw[1::3] = raw[7]
    keys = raw.view(f"S{width}").ravel()
    expected = sorted(range(1000), key=lambda row: raw[row].tobytes())
    assert argsort(keys).tolist() == expected
    halves = np.concatenate([np.sort(keys[:300]), np.sort(keys[300:])])
    assert merge_order(halves, [0, 300, 1000]).tolist() == np.argsort(halves, kind="stable").tolist()
    assert argsort(keys[:0]).tolist() == argsort(keys[:1])[:0].tolist() == []


@pytest.mark.parametrize("name", SPREADS)
def test_sort_kernel_scratch_and_output_may_be_given(call, name):
    for size in (1, 40, 5000):
        keys, scratch, out = spread(name, size, np.int64), np.ones(6000, np.int64), np.ones(6000, np.int64)
        before, expected = keys.copy(), np.sort(keys)
        call("sort", keys, scratch, out)
        np.testing.assert_array_equal(out[:size], expected)
        np.testing.assert_array_equal(keys, before)
        call("sort", keys, scratch)
        np.testing.assert_array_equal(keys, expected)


def test_sort_kernel_bad_borders_and_outputs_are_refused(call):
    keys = np.arange(10)
    for borders in ([0, 11], [-1, 5], [5, 2]):
        with pytest.raises(ValueError, match="borders"):
            call("merge_order", keys, borders)
    for out in (np.empty(9, np.int64), np.empty(10, np.int32)):
        with pytest.raises(ValueError, match="out is"):
            call("merge", keys, [0, 5, 10], out)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("size", [0, 1, 2, 1000])
def test_sort_kernel_examples_have_their_size(call, operation, size):
    arguments, amount, unit = example(operation, size)
    call(operation, *arguments)
    assert (amount, unit) == (size, "keys")
    if operation == "merge":
        np.testing.assert_array_equal(arguments[2], np.sort(arguments[0]))
