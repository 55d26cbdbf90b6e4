"""Checkpoints of a GPU: copied while the steps go on, with the same bytes as a CPU's."""

from __future__ import annotations

import gc
import logging
import os
import threading
from contextlib import suppress
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from ranks import check_collective
from storage.samples import SHAPES, checkpoints, declare, fill, whole, write

from anyrank.device.emulated import fake
from anyrank.device.gpu import Gpu
from anyrank.errors import CheckpointError
from anyrank.kernel import BODIES
from anyrank.numerics import strided
from anyrank.storage import staging
from anyrank.storage.device_to_host import DeviceToHostCopy
from anyrank.world import World

ORDERS = ("late", "random:1", "random:2")


@pytest.fixture
def machine(monkeypatch):
    """`machine(description, node_rank)` lets this process compute on a fake GPU; pieces are small."""

    def use(described: str = "", node_rank: int = 0) -> Gpu:
        monkeypatch.setenv("ANYRANK_SHIM", described)
        monkeypatch.setattr(fake, "_ORDER", described.rpartition("order=")[2] or "late")
        BODIES.prefer("shim", node_rank)
        return BODIES.device

    monkeypatch.setattr(strided, "PIECE", 100)
    yield use
    BODIES.prefer("auto")


def overwrite_with_step(state, step: int) -> None:
    """Overwrite the current values in place with those of another step."""
    fill(state, step)
    for field in state.fields():
        field.local[...] = field.local


def same(path, step: int) -> bool:
    with h5py.File(path, "r", locking=False) as file:
        return all(file[f"fields/{name}"][...].tobytes() == whole(name, step).tobytes() for name in SHAPES)


def holds(state, step: int) -> bool:
    """Whether this rank's part of the state on its device is that of the step."""
    return all(
        state.device.to_host(field.local).tobytes() == whole(field.name, step)[field.layout.slices].tobytes()
        for field in state.fields()
    )


def write_during_steps(folder, state, monkeypatch, *steps: int):
    """Write checkpoints of the steps; during each, the state changes, also on the GPU if the step's number is odd.

    Returns the outcome of the last.
    """
    writer, write, enter = checkpoints(folder, state), os.pwrite, DeviceToHostCopy.enter
    with monkeypatch.context() as patch:
        for step in steps:
            gate = threading.Event()
            patch.setattr(os, "pwrite", lambda *arguments, gate=gate: (gate.wait(60), write(*arguments))[1])
            patch.setattr(
                DeviceToHostCopy, "enter", lambda *arguments, gate=gate: (gate.wait(60), enter(*arguments))[1]
            )
            fill(state, step)
            writer.begin()
            overwrite_with_step(state, step + 100)
            if step % 2:
                state.device.synchronize()
            gate.set()
            saved = writer.finish()
    return saved


@pytest.mark.ranks(1, 3)
@pytest.mark.parametrize("split", ["rows", "columns"])
def test_gpu_checkpoint_has_the_bytes_of_the_cpus(world, tmp_path, monkeypatch, machine, split):
    digests = write(tmp_path / "cpu", declare(world, split), 5).digests
    for order in ORDERS:
        machine(f"gpus=2 order={order}", world.rank)
        state = declare(world, split)
        saved = write_during_steps(tmp_path / order, state, monkeypatch, 3, 4, 5)
        check_collective(world, not saved.error and saved.digests == digests, f"{order}: {saved}")
        check_collective(world, same(saved.path, 5) and holds(state, 105), order)
        other = declare(world, "bricks")
        restored = checkpoints(tmp_path / "cpu", other).restore()
        check_collective(world, not restored.refused and holds(other, 5), "what a CPU wrote, on a GPU")
    gathered = write(tmp_path / "gather", declare(world, split), 5, io="gather")
    check_collective(world, gathered.digests == digests and same(gathered.path, 5))
    BODIES.prefer("reference")
    state = declare(world)
    restored = checkpoints(tmp_path / "late", state).restore()
    check_collective(world, restored.step == 5 and holds(state, 5), "what a GPU wrote, on a CPU")


WAITS = {"of the copying stream": (fake.Stream, "wait_event"), "of the writing thread": (fake.Event, "synchronize")}


@pytest.mark.parametrize("wait", WAITS)
def test_gpu_checkpoint_without_either_wait_is_wrong(tmp_path, monkeypatch, machine, wait):
    world = World()
    digests = write(tmp_path / "cpu", declare(world), 2).digests
    machine()
    state = declare(world)
    monkeypatch.setattr(*WAITS[wait], lambda *_: None)
    saved = write_during_steps(tmp_path / "gpu", state, monkeypatch, 2)
    assert not same(saved.path, 2)
    restored = None
    with suppress(CheckpointError):
        restored = checkpoints(tmp_path / "gpu", declare(world)).restore()
    assert saved.digests != digests or restored is None


def test_gpu_checkpoint_thread_uses_the_ranks_own_gpu(tmp_path, monkeypatch, machine):
    machine("gpus=2", 1)
    state = declare(World())
    monkeypatch.setattr(Gpu, "enter", lambda self: None)
    assert "invalid resource handle" in write_during_steps(tmp_path, state, monkeypatch, 2).error


def test_gpu_failure_during_restore_is_not_blamed_on_the_file(tmp_path, monkeypatch, machine):
    machine()
    state = declare(World())
    write(tmp_path, state, 1)
    monkeypatch.setenv("ANYRANK_SHIM", "lost=0")
    with pytest.raises(fake.CUDARuntimeError, match="Unavailable"):
        checkpoints(tmp_path, state).restore()


def test_gpu_checkpoint_after_a_failed_one_is_written(tmp_path, monkeypatch, machine):
    machine("order=random:3")
    state = declare(World())
    writer = checkpoints(tmp_path, state)
    fill(state, 1)
    with monkeypatch.context() as patch:
        patch.setattr(staging, "write_all", lambda *_: os.pwrite(-1, b"", 0))
        writer.begin()
        overwrite_with_step(state, 2)
        assert "Bad file descriptor" in writer.finish().error
    writer.begin()
    overwrite_with_step(state, 7)
    saved = writer.finish()
    assert not saved.error and same(saved.path, 2)


@pytest.mark.parametrize(
    ("spare", "where"), [(50_000, "on the GPU, and goes"), (6_000, "on the host while steps wait")]
)
def test_gpu_checkpoint_copies_stay_on_the_gpu_if_they_fit(tmp_path, machine, monkeypatch, caplog, spare, where):
    logger = logging.getLogger("anyrank.rank0")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(logger, "propagate", False)
    caplog.set_level(logging.INFO, "anyrank.rank0")
    gpu = machine("memory=1e5")
    state = declare(World())
    state.allocate()
    gc.collect()
    others = gpu.full((gpu.free_memory()[0] - spare,), 1, np.uint8)
    assert write_during_steps(tmp_path, state, monkeypatch, 1).error == ""
    copies = sum(field.local.nbytes for field in state.fields()) if spare > 6_000 else 0
    assert gpu.free_memory() == (spare - copies, 10**5)
    saved = write_during_steps(tmp_path, state, monkeypatch, 2, 3)
    assert same(saved.path, 3)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2 * len(SHAPES) and "the copy of count takes 1144 bytes, and shim:0 has" in lines[1]
    assert all("free of 100000: it is made " + where in line for line in lines) and others.nbytes


def test_staging_frees_cached_memory_once_for_all_fields(tmp_path, monkeypatch, machine):
    """Before the first copy is made; later checkpoints allocate none."""
    machine()
    state, done = declare(World()), []
    state.allocate()
    pool = SimpleNamespace(free_all_blocks=lambda: done.append("freed"))
    monkeypatch.setattr(fake, "get_default_memory_pool", lambda: pool)
    full = Gpu.full
    monkeypatch.setattr(Gpu, "full", lambda *arguments: (done.append("copy"), full(*arguments))[1])
    assert not write_during_steps(tmp_path, state, monkeypatch, 1, 2).error
    assert done == ["freed"] + ["copy"] * len(SHAPES) and len(SHAPES) > 1
