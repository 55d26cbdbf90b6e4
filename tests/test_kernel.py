"""Kernels: the choice of a body, and its reason."""

from __future__ import annotations

import numpy as np
import pytest

from anyrank.device import open_device
from anyrank.device.select import gpu_missing
from anyrank.errors import UsageError
from anyrank.kernel import BODIES, FILES, Kernel, installed_kernels
from anyrank.kernels import Declined


@pytest.fixture(autouse=True)
def auto():
    yield
    BODIES.prefer("auto")


def multiply_by(factor):
    def sweep(x):
        return factor * x

    return sweep


def test_kernels_of_one_name_keep_their_own_bodies():
    double, triple = Kernel(multiply_by(2)), Kernel(multiply_by(3))
    assert (double(1), triple(1), double(1)) == (2, 3, 2)

    def digest(x):
        return -x

    assert Kernel(digest)(5) == -5 and Kernel("digest").body().name == "cython"


def test_kernel_auto_chooses_the_compiled_body():
    body = Kernel("digest").body()
    assert (body.name, body.reason) == ("cython", "the fastest here")
    assert BODIES.chosen["digest"] is body


def test_kernel_requested_body_is_used_or_the_reason_given():
    BODIES.prefer("numba")
    own = Kernel(multiply_by(2))
    assert own(2) == 4
    assert own.body().name == "reference"
    assert own.body().reason == "numba: the program gives no such body; cython: the program gives no such body"
    weather, digest = Kernel("shallow_water").body(), Kernel("digest").body()
    assert (weather.name, weather.reason) == ("numba", "as requested")
    assert (digest.name, digest.reason) == ("cython", "numba: no such body here")
    BODIES.prefer("reference")
    assert Kernel("digest").body().name == "reference"


def test_kernel_chooses_again_after_another_preference():
    kernel = Kernel(multiply_by(2), numba=multiply_by(5))
    BODIES.prefer("reference")
    assert kernel(1) == 2
    BODIES.prefer("numba")
    assert kernel(1) == 5


def test_kernel_bad_requests_are_refused():
    with pytest.raises(UsageError, match="--body 'fortran' must be one of auto"):
        BODIES.prefer("fortran")
    with pytest.raises(TypeError, match=r"\['fortran'\] are not bodies"):
        Kernel(multiply_by(1), fortran=multiply_by(1))
    with pytest.raises(Declined, match="has no operation nothing"):
        Kernel("digest", "nothing").load("reference", open_device("reference"))
    with pytest.raises(UsageError, match="has no body that works here: cython: cannot be imported"):
        Kernel("no_such_folder")()


@pytest.mark.skipif(not gpu_missing(), reason="there is a GPU")
def test_kernel_missing_gpu_is_refused_with_the_cause():
    with pytest.raises(UsageError, match=r"--body cupy: there is no NVIDIA driver \(.*\)\. Use --body auto"):
        BODIES.prefer("cupy")


def test_kernel_every_installed_one_has_a_working_reference():
    kernels = list(installed_kernels())
    assert {"digest", "exact_sum.accumulate", "philox.words", "quarter_circle", "shallow_water"} <= {
        kernel.name for kernel in kernels
    }
    for kernel in kernels:
        for name in FILES:
            if name in ("reference", "cython") or (name, kernel.folder) == ("numba", "shallow_water"):
                assert callable(kernel.load(name, open_device(name))), (kernel.name, name)


def test_kernel_runs_on_plain_arrays():
    x = np.arange(3.0)
    assert np.array_equal(Kernel(multiply_by(2))(x), 2 * x)
