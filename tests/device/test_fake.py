"""The fake GPU's own rules: it must fail where a GPU would, or tests on it prove nothing."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from anyrank.device import open_device
from anyrank.device.emulated import fake, machine

SCALE = """extern "C" __global__ void twice(double* a) { a[threadIdx.x] *= 2; }"""


@pytest.fixture
def gpu():
    return open_device("shim")


def test_fake_module_has_numpys_functions(gpu):
    mine = gpu.full((2,), 4.0, float)
    stacked = fake.stack([fake.sqrt(mine), fake.where(mine > 5, mine, 0.0)])
    assert gpu.owns(stacked) and gpu.to_host(stacked).tolist() == [[2.0, 2.0], [0.0, 0.0]]
    assert fake.float32 is np.float32 and fake.pi == np.pi
    with pytest.raises(AttributeError, match="the emulated GPU has no nothing"):
        _ = fake.nothing
    with pytest.raises(TypeError, match="do not mix"):
        fake.stack([mine, np.ones(2)])


def test_fake_arrays_and_numpys_do_not_mix(gpu):
    mine, theirs = gpu.full((4,), 2.0, float), np.ones(4)
    with pytest.raises(TypeError, match=r"device\.to_host"):
        np.asarray(mine)
    for mixed in (lambda: mine + theirs, lambda: np.add(theirs, mine), lambda: mine.__setitem__(..., theirs)):
        with pytest.raises(TypeError, match="do not mix"):
            mixed()
    mine.fill(1.0)
    assert gpu.to_host(np.where(mine > 0.5, mine, 0.0)).sum() == 4 * int(mine[0]) == 4 * float(mine[1])
    np.add(mine, mine, out=mine)
    mine *= 2.0
    assert gpu.to_host(np.sqrt(mine[1:]) * 3).tolist() == [6.0] * 3
    assert gpu.owns(mine) and not gpu.owns(theirs)
    with pytest.raises(AttributeError, match="have no tolist"):
        mine.tolist()
    with pytest.raises(ValueError, match="a list is not an array"):
        mine[...] = [1.0, 2.0, 3.0, 4.0]


def test_fake_views_share_memory_of_the_array(gpu):
    mine = gpu.from_host(np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    assert mine.flags.f_contiguous and not mine.flags.c_contiguous and not hasattr(mine.flags, "writeable")
    mine.T[0] = 7.0
    mine.reshape(3, 2)[...] = 8.0  # a copy, as in NumPy
    assert gpu.to_host(mine).tolist() == [[7.0, 1.0, 2.0], [7.0, 4.0, 5.0]]
    assert [gpu.to_host(part).tolist() for part in np.divmod(mine[0], 2.0)] == [[3.0, 0.0, 1.0], [1.0, 1.0, 0.0]]


def test_fake_values_are_missing_without_a_wait(gpu, monkeypatch):
    monkeypatch.setattr(fake, "_ORDER", "late")
    mine = gpu.full((8,), 5.0, float)
    gpu.compute.synchronize()
    mine[...] = 6.0
    gpu.cupy.RawModule(code=SCALE).get_function("twice")((1,), (8,), (mine,))
    values, beside = gpu.pinned(64).view(float), gpu.stream()
    with beside:
        mine.get(out=values, blocking=False)
        event = beside.record()
    assert values[0] == 0, "the copy has not run"
    event.synchronize()
    assert values[0] == 5, "and no event set it after the computing"
    with beside:
        beside.wait_event(gpu.compute.record())
        mine.get(out=values, blocking=False)
    beside.synchronize()
    assert values[0] == 12 and fake.get_current_stream() is gpu.compute
    beside.use()
    with gpu.stream():
        pass
    assert fake.get_current_stream() is gpu.compute, "what is entered comes back, and not what is used"


def test_fake_host_is_only_a_few_steps_ahead(gpu, monkeypatch):
    monkeypatch.setattr(fake, "_ORDER", "late")
    mine, begun = gpu.full((1,), 0, int), gpu.compute.length
    for _ in range(10):
        mine += 1
        gpu.pace()
    assert gpu.compute.completed - begun == 10 - gpu.ahead


def test_fake_random_order_differs_between_repetitions(gpu, monkeypatch):
    monkeypatch.setattr(fake, "_ORDER", "random:1")
    mine, values = gpu.full((1,), 0, int), gpu.pinned(8).view(int)
    seen = set()
    for number in range(1, 41):
        mine[...] = number
        with gpu.stream():
            mine.get(out=values, blocking=False)
        seen.add(number - int(values[0]))
    assert {0, 1} < seen, "sometimes the copy is in time, sometimes late"


def test_fake_asynchronous_copies_need_pinned_memory(gpu):
    mine = gpu.full((4,), 1.0, float)
    with pytest.raises(ValueError, match="pinned"):
        mine.get(out=np.zeros(4), blocking=False)
    with pytest.raises(ValueError, match="pinned"):
        mine.set(np.zeros(4), stream=gpu.stream())
    pinned = gpu.pinned(64)
    for host, part in ((pinned[:32], mine), (pinned.view(float)[::2], mine), (pinned[:16].view(float), mine[::2])):
        for crossing in (lambda: part.set(host), lambda: part.get(out=host, blocking=False)):  # noqa: B023
            with pytest.raises(ValueError, match=r"copied to or from|contiguous"):
                crossing()
    mine.set(gpu.pinned(40)[8:].view(float), stream=gpu.compute)
    assert not gpu.to_host(mine).any()


def test_fake_memory_is_counted_and_freed(monkeypatch):
    monkeypatch.setenv("ANYRANK_SHIM", "gpus=2 memory=1e6")
    gpu = open_device("shim", 1)
    gc.collect()
    before, _ = gpu.free_memory()
    mine = gpu.full((1000,), 1.0, float)
    rows = mine[10:20]
    copied = fake.copied["out"]
    assert gpu.free_memory() == (before - 8000, 10**6)
    assert gpu.to_host(rows).tolist() == [1.0] * 10 and fake.copied["out"] == copied + 80
    with pytest.raises(fake.OutOfMemoryError):
        gpu.full((125_000,), 0.0, float)
    del mine
    gc.collect()
    assert gpu.free_memory() == (before - 8000, 10**6), "a view keeps it"
    del rows
    gc.collect()
    assert gpu.free_memory() == (before, 10**6)


def test_fake_thread_uses_the_first_device_until_enter(monkeypatch):
    monkeypatch.setenv("ANYRANK_SHIM", "gpus=2")
    gpu, result = open_device("shim", 1), []

    def work():
        with pytest.raises(fake.CUDARuntimeError, match="resource handle"):
            gpu.compute.use()
        gpu.enter()
        gpu.compute.use()
        result.append(gpu.to_host(gpu.full((2,), 3, int)).tolist())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert result == [[3, 3]]


def test_fake_device_that_fails_is_lost_from_then_on(monkeypatch, tmp_path):
    fault_file = tmp_path / "fault_file"
    monkeypatch.setattr(machine, "_LAUNCHES", iter(range(1, 100)))
    monkeypatch.setenv("ANYRANK_SHIM", f"gpus=2 fails=3 fault_file={fault_file}")
    gpu = open_device("shim")  # launches once
    mine, twice = gpu.full((8,), 1.0, float), gpu.cupy.RawModule(code=SCALE).get_function("twice")
    for _ in range(2):
        twice((1,), (8,), (mine,))
    with pytest.raises(fake.CUDARuntimeError, match="ECC"):
        twice((1,), (8,), (mine,))
    with pytest.raises(fake.CUDARuntimeError, match="Unavailable"):
        gpu.full((1,), 0, int)
    assert open_device("shim").name == "shim:1"
