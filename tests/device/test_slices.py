"""Values of the host are copied to a GPU in slices: as CuPy would copy them, through two small buffers."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from anyrank.device import Device, gpu, open_device
from anyrank.device.emulated import fake, machine
from anyrank.field import Field
from anyrank.kernel import BODIES
from anyrank.layout import Layout
from anyrank.world import World

GPU = pytest.mark.parametrize("body", ["shim", pytest.param("cupy", marks=pytest.mark.gpu)])
NUMBERS = np.random.default_rng(1).integers(-99, 99, (6, 10, 14)).astype(float)
ARRAYS = {
    "C": NUMBERS,
    "Fortran": np.asfortranarray(NUMBERS),
    "turned": NUMBERS.transpose(1, 2, 0),
    "strided": NUMBERS[:, ::-2, 1::3],
    "repeated": np.broadcast_to(NUMBERS[0], (3, 10, 14)),
    "one axis": NUMBERS.ravel(),
    "one axis reversed": NUMBERS.ravel()[::-1],
    "one long row": NUMBERS.reshape(1, 1, -1),
    "swapped bytes": NUMBERS.astype(">f8"),
    "swapped bytes, Fortran": np.asfortranarray(NUMBERS.astype(">i2")),
    "bytes": NUMBERS.astype(np.int8),
    "bool": NUMBERS > 0,
    "complex": NUMBERS * 1j,
    "a subclass": NUMBERS.view(type("Mine", (np.ndarray,), {})),
    "no axis": np.array(3.5),
    "empty": NUMBERS[:, :0],
    "small": NUMBERS[0, 0, :3],
}


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    monkeypatch.setattr(gpu, "SLICE", 200)
    yield
    BODIES.prefer("auto")


@GPU
@pytest.mark.parametrize("name", ARRAYS)
def test_from_host_any_array_is_as_cupy_makes_it(body, name):
    device, array = open_device(body), ARRAYS[name].view()
    array.flags.writeable = False
    result, whole = device.from_host(array), device.cupy.asarray(array)
    assert (result.dtype, result.shape) == (whole.dtype, whole.shape)
    assert (
        result.flags.c_contiguous is whole.flags.c_contiguous and result.flags.f_contiguous is whole.flags.f_contiguous
    )
    assert device.to_host(result).tobytes() == device.to_host(whole).tobytes() == array.astype(result.dtype).tobytes()


@pytest.mark.parametrize("order", ["late", "random:1", "random:2"])
def test_from_host_array_changed_after_return_keeps_values(monkeypatch, order):
    device = open_device("shim")
    monkeypatch.setattr(fake, "_ORDER", order)
    mine, expected = NUMBERS.copy(), NUMBERS.copy()
    copy = device.full(mine.shape, 0, float)
    result = device.from_host(mine)
    copy[...] = result
    mine[...] = 0
    assert device.to_host(copy).tobytes() == expected.tobytes()


def test_from_host_without_waiting_for_buffers_is_wrong(monkeypatch):
    """The test above can fail: a buffer that is refilled while its values are still being copied is corrupted."""
    device = open_device("shim")
    monkeypatch.setattr(fake, "_ORDER", "late")
    monkeypatch.setattr(fake.Event, "synchronize", lambda self: None)
    assert device.to_host(device.from_host(NUMBERS)).tobytes() != NUMBERS.tobytes()


def test_from_host_pins_two_slices_and_no_more():
    device = open_device("shim")
    gc.collect()
    before = sum(machine._PINNED.values())
    for array in ARRAYS.values():
        device.from_host(array)
    assert sum(machine._PINNED.values()) - before == 2 * gpu.SLICE


def test_from_host_type_without_a_gpu_type_is_refused(monkeypatch):
    device = open_device("shim")
    with pytest.raises((TypeError, ValueError)):
        device.from_host(np.array([None] * 100))


def fields(body: str, dtype: str) -> list[Field]:
    """A field on the host and one on the device, with a halo, so that their rows are not adjacent."""
    BODIES.prefer(body)
    layout = Layout.bricks((12, 20), World())
    return [Field("f", layout, dtype, device, dims=("y", "x"), halo=(1, 1)) for device in (Device(), BODIES.device)]


MASK = np.arange(240).reshape(12, 20) % 3 == 0
KEYS = {
    "all": (..., (12, 20)),
    "rows": (slice(2, 9), (7, 20)),
    "columns": ((slice(None), slice(1, 18, 2)), (12, 9)),
    "backwards": ((slice(None, None, -1), slice(None)), (12, 20)),
    "a row": (3, (20,)),
    "an element": ((3, 4), ()),
    "a new axis": ((None, slice(0, 10)), (1, 10, 20)),
    "one column for all": (..., (12, 1)),
    "one row for all": (..., (20,)),
    "a mask": (MASK, (80,)),
    "a list": ([1, 3, 8], (3, 20)),
    "an array and a slice": ((np.array([0, 5]), slice(2, 12)), (2, 10)),
}


@GPU
@pytest.mark.parametrize("dtype", ["f8", "f4", "i4"])
@pytest.mark.parametrize("key", KEYS)
def test_field_written_from_host_is_as_on_host(body, dtype, key):
    """Values of a wider type are converted as the host does it: subnormals stay."""
    key, shape = KEYS[key]
    values = np.random.default_rng(2).standard_normal(shape) * (1e-40 if dtype == "f4" else 1e6)
    here, result = fields(body, dtype)
    for field in (here, result):
        field[...] = 7
        field[key] = values
    assert result.device.to_host(result.array).tobytes() == here.array.tobytes()


def test_field_written_from_host_needs_one_slice_of_memory(monkeypatch):
    """A slice has two rows here, and its temporary memory on the GPU is reused for the next slice."""
    monkeypatch.setattr(gpu, "SLICE", 400)
    here, result = fields("shim", "f8")
    gc.collect()
    values, slice_ = np.random.default_rng(3).standard_normal((12, 20)), 2 * 20 * 8
    assert here.storage.shape == result.storage.shape  # each array allocates its memory on first use
    result.device.synchronize()
    monkeypatch.setenv("ANYRANK_SHIM", f"memory={fake.in_use[0] + slice_ - 1}")
    with pytest.raises(fake.OutOfMemoryError):
        result[...] = values
    gc.collect()
    monkeypatch.setenv("ANYRANK_SHIM", f"memory={fake.in_use[0] + slice_}")
    for field in (here, result):
        field[...] = values
    assert result.device.to_host(result.local).tobytes() == here.local.tobytes()
