"""Halos on GPUs: their values, the copies, and that each wait is necessary. The GPU is emulated."""

from __future__ import annotations

import gc
import random
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import product

import numpy as np
import pytest
from halos import ghost_values, layouts, make
from mpi4py import MPI
from ranks import check_collective

from anyrank.device.emulated import fake
from anyrank.exchange import Halo, packing
from anyrank.exchange.advance import advance
from anyrank.kernel import BODIES, Kernel
from anyrank.state import State
from anyrank.world import World

#: A real GPU in `make gpu-test`, and always the fake one, the only one whose memory any MPI may access.
GPU = pytest.mark.parametrize("name", ["shim", pytest.param("cupy", marks=pytest.mark.gpu)])
TRANSFERS = {"shim": ("staged", "direct"), "cupy": ("staged",)}
ORDERS = ("late", "random:1", "random:2", "random:3")
SHAPE, STEPS = (13, 14), 4


@pytest.fixture
def body():
    """`prefer` for one test."""
    yield BODIES.prefer
    BODIES.prefer("auto")


@pytest.fixture
def order(monkeypatch):
    def choose(name):
        monkeypatch.setattr(fake, "_ORDER", name)
        monkeypatch.setattr(fake, "_RANDOM", random.Random(name))

    return choose


@GPU
@pytest.mark.ranks(1, 2, 3, 4)
def test_gpu_ghosts_hold_their_owners_values_in_any_type(world, name, body, order):
    """Fields of all element sizes are exchanged together; both arrays of a field, as `advance` swaps them."""
    body(name, world.rank)
    kinds, wrong = (np.uint8, np.int16, np.float32, np.float64, np.complex128), []
    for shape, halo in (((17,), 1), ((9, 11), 2), ((8, 9, 10), 1)):
        whole = np.random.default_rng(5).integers(0, 256, shape)
        mixed = tuple(("fixed", "periodic")[axis % 2] for axis in range(len(shape)))
        for number, (layout, transfer) in enumerate(product(layouts(shape, world, halo), TRANSFERS[name])):
            order(ORDERS[number // 2 % len(ORDERS)])
            world.transfer = transfer
            boundary = ("periodic", "fixed", mixed)[number % 3]
            fields = [make(layout, halo, boundary, kind, kind.__name__, 7, BODIES.device) for kind in kinds]
            exchange = Halo(fields, world.tag())
            for turn in range(3):
                for field in fields:
                    _ = field.next_storage
                    field.swap()
                    field[...] = whole[layout.slices] // (turn + 1)
                exchange.start()
                exchange.finish()
                for field in fields:
                    expected = ghost_values(field, whole // (turn + 1)).astype(field.dtype)
                    if not np.array_equal(BODIES.device.to_host(field.array), expected):
                        wrong.append((layout.cuts, field.name, boundary, turn))
    check_collective(world, not wrong, str(wrong))


def mix(new, old, weight):
    """A stencil that reads corner points, and a weight that it changes; it causes no synchronization."""
    m, n = new.shape
    new[...] = weight
    for a, b in np.ndindex(3, 3):
        new *= 0.5 + 0.1 * a - 0.07 * b
        new += old[a : a + m, b : b + n]
    new *= 0.25
    weight *= 0.5
    weight += new


MIX = Kernel(mix)


def compute_steps(world, split="auto", halo_steps=1, boundary="periodic", last=nullcontext):
    """A state, and its fields' blocks on the host after some steps, the last of them within a context."""
    state = State(world, split, halo_steps=halo_steps)
    state.field("T", SHAPE, halo=1, boundary=boundary, boundary_value=3.0)
    state.field("weight", SHAPE, boundary=boundary)
    for field in state.fields():
        field[...] = np.random.default_rng(7).normal(size=SHAPE)[field.layout.slices]
    for _ in range(2):  # exchange both arrays of a field
        advance([state.T], MIX, state.weight)
    state.device.synchronize()
    with last():
        for _ in range(STEPS - 2):
            advance([state.T], MIX, state.weight)
        return state, [state.device.to_host(field.local) for field in state.fields()]


@contextmanager
def with_patches(monkeypatch, patches):
    with monkeypatch.context() as context:
        for patch in patches:
            context.setattr(*patch)
        yield


def is_right(world, expected, *case):
    state, result = compute_steps(world, *case)
    mine = [whole[state.T.layout.slices] for whole in expected]
    return world.all(all(map(np.array_equal, result, mine)))


@GPU
@pytest.mark.ranks(1, 2, 3, 4)
def test_gpu_bits_are_the_cpus_in_any_order(world, name, body, order):
    boundaries, wrong = ("periodic", ("fixed", "periodic")), []
    expected = {kind: compute_steps(World(MPI.COMM_SELF), boundary=kind)[1] for kind in boundaries}
    splits = (("rows", 1), ("columns", 2), ("bricks", 1), ("bricks", 3))
    for bodies in (name, f"{name},reference"):
        body(bodies, world.rank)
        for number, ((split, halo_steps), kind) in enumerate(product(splits, boundaries)):
            order(ORDERS[number % len(ORDERS)])
            world.transfer = TRANSFERS[name][number // 4 % len(TRANSFERS[name])]
            if not is_right(world, expected[kind], split, halo_steps, kind):
                wrong.append((bodies, split, halo_steps, kind))
    check_collective(world, not wrong, str(wrong))


@pytest.mark.ranks(2, 4)
def test_gpu_every_wait_is_necessary(world, body, order, monkeypatch):
    """All waits that `DeviceBuffers` lists: without any one of them the bits differ."""
    expected = compute_steps(World(MPI.COMM_SELF))[1]
    body("shim", world.rank)
    order("late")
    wait, compute, wrong = fake.Stream.wait_event, BODIES.device.compute, []
    waits = {
        ("copies wait for packing", "staged"): (
            (fake.Stream, "wait_event", lambda stream, event: stream is compute and wait(stream, event)),
        ),
        ("the computing waits for ghosts", "staged", "direct"): (
            (fake.Stream, "wait_event", lambda stream, event: stream is compute or wait(stream, event)),
        ),
        ("the host waits for what it sends", "staged", "direct"): ((fake.Event, "synchronize", lambda event: None),),
        ("none", "staged", "direct"): (),
    }
    for (name, *ways), patches in waits.items():
        for world.transfer in ways:
            same = is_right(world, expected, "rows", 1, "periodic", partial(with_patches, monkeypatch, patches))
            fake.Device().synchronize()
            if same == bool(patches):
                wrong.append((name, world.transfer))
    check_collective(world, not wrong, f"nobody sees that these waits are gone: {wrong}")


@pytest.mark.ranks(2, 4)
def test_gpu_steps_copy_only_halos(world, body):
    body("shim", world.rank)
    for transfer in ("staged", "direct"):
        world.transfer = transfer
        state, _ = compute_steps(world, "bricks")
        before = fake.copied.copy()
        for _ in range(3):
            advance([state.T], MIX, state.weight)
        rows, columns = state.T.layout.local_shape
        # With two ranks only rows are split, and they are sent with their ghosts; parts begin at multiples of 16 bytes.
        edges = {2: 2 * [columns + 2], 4: [*2 * [columns], *2 * [rows], *4 * [1]]}[world.size]
        halo = 3 * sum(-(-8 * n // 16) * 16 for n in edges) if transfer == "staged" else 0
        result = fake.copied - before
        check_collective(world, (result["out"], result["in"]) == (halo, halo), f"{transfer}: {result}, not {halo}")


@pytest.mark.ranks(2)
def test_gpu_fields_read_and_write_arrays_of_the_host(world, body):
    body("shim", world.rank)
    whole = np.arange(182.0).reshape(SHAPE)
    state = State(world, "rows")
    field = state.field("T", SHAPE, halo=1)
    mine = whole[field.layout.slices].copy()
    field[...] = whole[field.layout.slices]
    field[0], mine[0] = 5, 5
    field[1, [1, 3]], mine[1, [1, 3]] = (7.0, 8.0), (7.0, 8.0)
    field[mine > 150], mine[mine > 150] = np.float64(-1), -1
    check_collective(world, np.array_equal(BODIES.device.to_host(field[...]), mine))
    check_collective(world, np.array_equal(BODIES.device.to_host(field[2:, np.array([0, 2])]), mine[2:, [0, 2]]))
    before = fake.copied["out"]
    gathered = field.gather(4)
    expected = np.concatenate(world.comm.allgather(mine))[::4, ::4]
    check_collective(world, gathered is None if world.rank else np.array_equal(gathered, expected))
    check_collective(
        world, fake.copied["out"] - before == 8 * 4 * (2 - 0 * world.rank), str(fake.copied["out"] - before)
    )
    check_collective(world, field.nbytes == field.storage.nbytes >= 8 * (len(mine) + 2) * 16)


def test_packing_any_number_of_axes_and_elements(body, monkeypatch):
    """More elements than threads in a launch, and enough axes for any field."""
    body("shim")
    monkeypatch.setattr(packing, "MOST_BLOCKS", 2)
    world = World(MPI.COMM_SELF)
    whole = np.random.default_rng(1).normal(size=(6, 5, 4, 3, 40))
    layout = next(layouts(whole.shape, world, 1))
    field = make(layout, device=BODIES.device)
    field[...] = whole
    field.exchange()
    assert np.array_equal(BODIES.device.to_host(field.array), np.pad(whole, 1, mode="wrap"))
    world.close()


def test_gpu_field_is_freed_after_its_launches_are_done(body):
    body("shim")
    world = World(MPI.COMM_SELF)
    field = make(next(layouts((9, 11), world, 1)), device=BODIES.device)
    field.exchange()
    stream = BODIES.device.compute
    assert stream.completed < stream.length
    del field
    gc.collect()
    assert stream.completed == stream.length
    world.close()
