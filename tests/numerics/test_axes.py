"""Sums, means and variances along axes: the same on all ranks, in a few launches on a GPU."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from numerics.arrays import equal, make_field, numbers, put
from ranks import check_collective

from anyrank import exact
from anyrank.device.gpu import GpuModule
from anyrank.errors import AnyrankError, UsageError
from anyrank.kernel import BODIES
from anyrank.numerics import strided, totals
from anyrank.state import State

SHAPE = (5, 7, 3)


AXES = (0, 1, 2, -1, (0, 1), (2, 0), (-1, -2), (0, 1, 2), ())


def along(x, axis, function):
    """The values of a function of all numbers along axes, which gets a row with them."""
    axes = {a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))}
    kept = [k for k in range(x.ndim) if k not in axes]
    rows = x.transpose(*kept, *sorted(axes)).reshape(*(x.shape[k] for k in kept), -1)
    return np.apply_along_axis(function, -1, rows)[()]


def sums_along(x, axis, divide=False):
    """The sums or means along axes from Fractions, each rounded once."""

    def total(values):
        if values.dtype.kind == "c":
            return complex(total(values.real), total(values.imag))
        result = sum(map(Fraction, values.tolist()), Fraction(0)) / (len(values) if divide else 1)
        return float(result) if divide or values.dtype.kind == "f" else int(result)

    return along(x, axis, total)


def variances_along(x, axis, ddof=0):
    """The variances along axes from those of one row, which other tests compare with Fractions."""
    return along(x, axis, lambda values: exact.variance(values, ddof, local=True))


@pytest.fixture(params=["auto", "shim"])
def body(request):
    BODIES.prefer(request.param)
    yield request.param
    BODIES.prefer("auto")


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8, np.complex128, np.complex64])
def test_exact_sum_along_axes_is_rounded_once(body, dtype):
    x = numbers(SHAPE, dtype)
    for axis in AXES if body == "auto" else (0, (-1, 1), (0, 1, 2)):  # launches of the emulated GPU are slow
        expected, means = sums_along(x, axis), sums_along(x, axis, divide=True)
        for array in (put(x), put(x.T.copy()).T, put(np.repeat(x, 2, 1))[:, ::2]):
            assert equal(exact.sum(array, axis=axis, local=True), expected)
            assert equal(exact.mean(array, axis=axis, local=True), means)
            if axis != ():
                assert equal(exact.variance(array, 0, axis=axis, local=True), variances_along(x, axis))


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.complex64])
@pytest.mark.parametrize("most", [1, 7, 50])
def test_exact_sum_along_axes_in_small_blocks_is_the_same(body, dtype, most, monkeypatch):
    """Sums of more terms than are copied at a time are added one by one."""
    monkeypatch.setattr(strided, "_COPIED" if body == "auto" else "_COPIED_ON_GPU", most)
    x = numbers((3, 4, 6), dtype)
    for axis in (0, (1, 2)):
        array = put(np.repeat(x, 2, 2))[..., ::2]
        assert equal(exact.sum(array, axis=axis, local=True), sums_along(x, axis))
        assert equal(exact.variance(array, 1, axis=axis, local=True), variances_along(x, axis, 1))


@pytest.mark.parametrize("body", ["shim"], indirect=True)
def test_exact_sum_along_axes_on_gpu_is_one_launch(body, monkeypatch):
    """One for each sum would be 40, 30 and 1200 launches."""
    launches = []

    def launch(module, function, *arguments, now=GpuModule.launch):
        launches.append(function)
        now(module, function, *arguments)

    monkeypatch.setattr(GpuModule, "launch", launch)
    x = numbers((32, 42))
    whole = put(x)
    for array, host in ((whole, x), (whole[1:-1, 1:-1], x[1:-1, 1:-1])):
        for axis in (0, 1, ()):
            launches.clear()
            assert equal(exact.sum(array, axis=axis, local=True), sums_along(host, axis))
            assert launches == ["accumulate"]
    launches.clear()
    assert equal(exact.variance(whole, axis=0, local=True), variances_along(x, 0))
    assert launches == ["accumulate", "accumulate_products"]


def test_exact_variance_along_axes_of_special_and_few_values():
    x = np.array([[1.0, math.inf, 3.0], [2.0, 4.0, math.nan]])
    assert repr(exact.variance(x, axis=0, local=True).tolist()) == "[0.25, nan, nan]"
    assert exact.variance(x[:, :1], 1, axis=(0, 1), local=True) == 0.5
    assert exact.variance([[1, 2], [5, 2]], axis=0, local=True).tolist() == [4.0, 0.0]
    with pytest.raises(AnyrankError, match="the variance of 2 numbers with ddof=2 is not defined"):
        exact.variance(x, 2, axis=0, local=True)


def test_exact_sum_along_axes_of_special_values():
    x = np.array([[1.0, math.inf, 1e308], [math.nan, -math.inf, 1e308], [2.0, 1.0, -0.0]])
    assert repr(exact.sum(x, axis=0, local=True).tolist()) == "[nan, nan, inf]"
    assert repr(exact.sum(x, axis=1, local=True).tolist()) == "[inf, nan, 3.0]"
    assert exact.sum(np.zeros((0, 2)), axis=0, local=True).tolist() == [0.0, 0.0]
    assert exact.sum(np.zeros((0, 2)), axis=1, local=True).shape == (0,)
    with pytest.raises(AnyrankError, match="at least one"):
        exact.mean(np.zeros((0, 2)), axis=0, local=True)


def test_exact_sum_of_integers_beyond_int64_is_refused():
    x = np.full((3, 2), 2**62)
    assert exact.sum(x, local=True) == 6 * 2**62
    with pytest.raises(AnyrankError, match="axis 0 exceeds int64"):
        exact.sum(x, axis=0, local=True)
    assert exact.mean(x, axis=0, local=True).tolist() == [2.0**62] * 2


@pytest.mark.parametrize("axis", [2, -3, (0, 0), (0, -2), (0, 5)])
def test_exact_axis_that_does_not_exist_is_refused(axis):
    for function in (exact.sum, exact.mean, exact.variance):
        with pytest.raises(UsageError, match=r"axis=.* of an array of 2 axes, from -2 to 1"):
            function(np.zeros((2, 3)), axis=axis, local=True)
    with pytest.raises(TypeError):
        exact.sum(np.zeros(2), axis=0.5, local=True)


@pytest.mark.ranks(1, 2, 3, 4)
def test_exact_sums_along_axes_of_fields_match_one_rank(world, monkeypatch):
    monkeypatch.setattr(totals, "_SUMS", 10)  # several messages
    kinds = ((np.float64, "rows"), (np.int32, "columns"), (np.complex128, "auto"))
    for body, dtype, split in [("auto", *kind) for kind in kinds] + [("shim", np.float64, "auto")]:
        BODIES.prefer(body)
        state, x = State(world, split), numbers((4, 6, 5), dtype)
        for name, axes in (("u", AXES[::2]), ("components", AXES[1::2])):
            field = make_field(state, name, x, components=name != "u")
            for axis in axes if body == "auto" else (0, (1, 2)):
                expected = sums_along(x, axis), sums_along(x, axis, divide=True)
                found = exact.sum(field, axis=axis), exact.mean(field, axis=axis)
                check_collective(world, all(map(equal, found, expected)), f"{body}, {split}, {dtype}, {axis}")
                if axis != ():
                    variances = exact.variance(field, axis=axis)
                    check_collective(world, equal(variances, variances_along(x, axis)), f"{body}, {split}, {axis}")
            mine = exact.sum(field, axis=1, local=True)
            check_collective(world, equal(mine, sums_along(x[field.layout.slices], 1)))
    BODIES.prefer("auto")


@pytest.mark.ranks(1, 2, 3, 4)
def test_exact_sums_along_axes_of_arrays_go_over_the_ranks(world):
    x = numbers((3, 4, world.size + 1))
    mine = x[world.rank :: world.size]  # some ranks have no rows
    check_collective(world, equal(exact.sum(mine, world, axis=0), sums_along(x, 0)))
    check_collective(world, equal(exact.sum(mine, world, axis=(0, 2)), sums_along(x, (0, 2))))
    check_collective(world, equal(exact.mean(mine, world, axis=0), sums_along(x, 0, divide=True)))
    hits = np.array([[1, 2]]) if world.rank == 0 else np.zeros((0, 2))  # the dtype of no elements does not count
    check_collective(world, equal(exact.sum(hits, world, axis=0), np.array([1, 2])))
    whole = np.array([[1.0, 2.0], [3.0, 4.0]]) * (world.rank + 1)
    ranks = world.size * (world.size + 1) / 2
    check_collective(world, equal(exact.sum(whole, world, axis=1), np.array([3.0, 7.0]) * ranks))
    check_collective(world, equal(exact.sum(whole, world, axis=()), np.array([[1.0, 2.0], [3.0, 4.0]]) * ranks))
