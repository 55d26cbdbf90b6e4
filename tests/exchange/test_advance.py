"""Kernels that `advance` refuses: those that return their result, and those that read more than the halo has."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ranks import check_collective

from anyrank import Kernel, State, UsageError, advance
from anyrank.kernel import BODIES
from anyrank.world import World


def returned(*arrays):
    return arrays[-1][1:-1, 1:-1] * 0.5


def written_and_returned(new, old):
    new[...] = old[1:-1, 1:-1]
    return new


def distant(new, old):
    new[...] = old[:-4, 2:-2] + old[4:, 2:-2]


def plate(world):
    return State(world, "rows").field("T", (9, 10), halo=1)


@pytest.fixture(params=["reference", "numba", "shim"])
def body(request):
    BODIES.prefer(request.param)
    yield request.param
    BODIES.prefer("auto")


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize("function", [returned, written_and_returned])
def test_advance_kernel_that_returns_its_result_is_refused(world, body, function):
    """It would change nothing, without an error."""
    kernel = Kernel(function, numba=function)
    message = rf"kernel {function.__name__} returned a value of type ndarray, .* into its first argument, such as new"
    with pytest.raises(UsageError, match=message):
        plate(world).advance(kernel)


def test_advance_kernel_of_two_fields_that_returns_is_refused():
    grid = State(World()).grid((9, 10))
    with pytest.raises(UsageError, match="Write the new values into its first 2 arguments"):
        advance([grid.field("u"), grid.field("v")], Kernel(returned))


@pytest.mark.ranks(1, 3)
def test_advance_kernel_that_reads_beyond_the_halo_is_refused(world, body):
    message = (
        r"kernel distant at test_advance.py:\d+: .*shape.* Its first argument has the shape \(\d, 10\) in this call; "
        r"T has a halo of 1x1. A kernel that reads neighbours at a distance of k needs fields with halo=k or more; "
    )
    with pytest.raises(UsageError, match=message):
        plate(world).advance(Kernel(distant))


def test_advance_other_error_of_a_kernel_is_not_changed():
    def fail(new, old):
        raise ValueError("the density is negative")

    with pytest.raises(ValueError, match="the density is negative"):
        plate(World()).advance(Kernel(fail))


@pytest.mark.ranks(1, 2, 3)
def test_field_values_of_another_shape_are_refused(world, body):
    T = plate(world)
    keys = [(..., (9, 11)), (0, (9,)), ((slice(None), slice(1, 3)), (1, 3))]
    if T.device.on_host:  # the emulated GPU runs other indices later
        keys.append(((slice(None), [1, 2]), (9, 7)))
    for key, shape in keys:
        with pytest.raises(UsageError, match=rf"field T: values of shape {re.escape(str(shape))} cannot be stored in "):
            T[key] = np.zeros(shape)
    check_collective(world, not T.device.to_host(T.local).any())


@pytest.mark.ranks(1, 2)
@pytest.mark.parametrize("body", ["reference", "shim"], indirect=True)
def test_field_index_outside_the_block_is_refused(world, body):
    f = State(world, "rows").grid((9, 10)).field("f", components=9)
    with pytest.raises(
        UsageError, match=r"field f: .*index 9 .* of shape \(9, \d, \d+\), the components first\. Use state"
    ):
        f[9] = 1.0
    with pytest.raises(UsageError, match="field f: too many indices"):
        f[0, 0, 0, 0]
    T = plate(world)
    with pytest.raises(UsageError, match=r"field T: .* within the block of this rank, of shape \(\d, 10\)\. Use"):
        T[20]
