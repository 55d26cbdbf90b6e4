"""Exact arithmetic of arrays on a GPU: the same numbers, and the elements are not copied to the host."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anyrank import exact
from anyrank.device.emulated import fake
from anyrank.errors import AnyrankError
from anyrank.exact import Accumulator
from anyrank.kernel import BODIES
from anyrank.numerics import strided

FUNCTIONS = (exact.sum, exact.mean, exact.norm, exact.min, exact.max)
VIEWS = {
    "reversed": lambda x: x[::-1, :, ::-1],
    "strided": lambda x: x[:, 1::2, ::3],
    "inside": lambda x: x[1:-1, 2:-2, 1:-1],
    "a column": lambda x: x[:, :, 3],
}


def describe(values):
    """A text that distinguishes −0 from 0, an int from a float, and NaN from other values."""
    return [repr(value) for value in values]


@pytest.fixture(params=["shim", pytest.param("cupy", marks=pytest.mark.gpu)])
def gpu(request):
    """A GPU as this process's device."""
    BODIES.prefer(request.param)
    yield BODIES.device
    BODIES.prefer("auto")


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.uint64, np.int32, np.bool_])
def test_exact_on_gpu_copies_no_elements_to_the_host(gpu, view, dtype):
    numbers = np.random.default_rng(3).standard_normal((7, 80, 90)) * 1e4
    whole = numbers.astype(dtype) if dtype != np.uint64 else numbers.astype(np.int64).view(dtype)
    x, on_gpu = view(whole), view(gpu.from_host(whole))
    expected = [function(x, local=True) for function in FUNCTIONS]
    expected += [exact.dot(x, other, local=True) for other in (x, x.astype(float))]
    half = on_gpu.astype(np.float64)
    before = fake.copied.copy()
    result = [function(on_gpu, local=True) for function in FUNCTIONS]
    result += [exact.dot(on_gpu, other, local=True) for other in (on_gpu, half)]
    assert describe(result) == describe(expected)
    if gpu.cupy is not fake:
        return  # CuPy does not count copies
    assert fake.copied["in"] == before["in"]
    # The limbs of at most seven planes for five sums, more if integers are split into two numbers; and extremes.
    parts = 14 if np.dtype(dtype).kind in "iu" and x.itemsize == 8 else 5
    assert fake.copied["out"] - before["out"] <= 7 * parts * 8 * (Accumulator.SIZE - 1) + 4 * 8


@pytest.mark.parametrize("gpu", ["shim"], indirect=True)
def test_exact_sum_on_gpu_is_one_launch(gpu, monkeypatch):
    on_gpu = gpu.full((6, 50, 70), 1.5, np.float64)
    for x in (on_gpu, on_gpu[2:5], on_gpu[:, 1:-1], on_gpu[0, :, 3:9], on_gpu[1], on_gpu[1:, 1:-1, 1:-1]):
        before = fake.copied["out"]
        assert exact.sum(x, local=True) == 1.5 * x.size and exact.dot(x, x, local=True) == 2.25 * x.size
        assert fake.copied["out"] - before == 2 * 8 * (Accumulator.SIZE - 1)
    monkeypatch.setattr(strided, "_COPIED_ON_GPU", 2 * 48 * 68)
    before = fake.copied["out"]
    assert exact.sum(x, local=True) == 1.5 * x.size
    assert fake.copied["out"] - before == 3 * 8 * (Accumulator.SIZE - 1)  # five planes, two at a time


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.complex128])
def test_exact_sums_along_axes_on_gpu_are_those_of_the_host(gpu, dtype):
    x = (np.random.default_rng(3).standard_normal((4, 6, 40)) * 1e4).astype(dtype)
    for index in (np.s_[:], np.s_[:, 1:-1, 1:-1]):
        for axis in (0, 2, (0, 1), (1, 2)):
            found, expected = (
                [function(array[index], axis=axis, local=True) for function in (exact.sum, exact.mean, exact.variance)]
                for array in (gpu.from_host(x), x)
            )
            assert all(map(np.array_equal, found, expected))


def test_exact_sums_host_arrays_on_host_and_copies_for_products(gpu):
    x, y = np.random.default_rng(6).standard_normal((2, 30, 40))
    before = fake.copied.copy()
    assert exact.sum(x, local=True) == math.fsum(x.ravel().tolist())
    assert fake.copied == before
    assert (
        exact.dot(gpu.from_host(x), y, local=True)
        == exact.dot(x, gpu.from_host(y), local=True)
        == exact.dot(x, y, local=True)
    )


@pytest.mark.parametrize("function", [exact.min, exact.max])
def test_exact_extremes_on_gpu_of_zeros_nan_and_no_elements(gpu, function):
    for values in ([0.0, -0.0], [-0.0, -1.0], [0.0, 1.0], [math.nan, 1.0], [-math.inf, math.inf]):
        for x in (np.array(values), np.array(values[::-1], np.float32)):
            assert repr(function(gpu.from_host(x), local=True)) == repr(function(x, local=True))
    nothing = gpu.full((0, 3), 1, float)
    assert exact.sum(nothing, local=True) == exact.norm(nothing, local=True) == 0.0
    with pytest.raises(AnyrankError, match="at least one"):
        function(nothing, local=True)
    with pytest.raises(TypeError, match="not complex128"):
        function(gpu.full((3,), 1, complex), local=True)


def test_exact_subnormals_of_float32_count_on_gpu(gpu, monkeypatch):
    """CuPy's own conversions flush them to zero."""

    def as_cupy_does(call, arguments, named, now=fake._run_now):
        x = getattr(call, "__self__", None)
        if isinstance(x, np.ndarray) and x.dtype == np.float32:
            call = getattr(np.where(np.abs(x) < 2.0**-126, np.copysign(np.float32(0), x), x), call.__name__)
        return now(call, arguments, named)

    monkeypatch.setattr(fake, "_run_now", as_cupy_does)
    small = np.array([1e-40, 3e-45, 2e-40, 1e-39], np.float32)
    for x in (small, -small, small * [[1], [-1]], [0.0, -1e-45], [-0.0, 1e-45], [1.0, -1e-40], [math.inf, 1e-40]):
        x = np.array(x, np.float32)
        on_gpu = gpu.from_host(x)
        assert describe(function(on_gpu, local=True) for function in FUNCTIONS) == describe(
            function(x, local=True) for function in FUNCTIONS
        )
        assert exact.dot(on_gpu, on_gpu, local=True) == exact.dot(x, x, local=True)
