"""A state with every kind of member, whose values are functions of global indices, and checkpoints of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from anyrank.state import State
from anyrank.storage.checkpoints import Checkpoints
from anyrank.storage.write import Saved
from anyrank.world import World

from mpi4py import MPI  # isort: skip

SHAPES: dict[str, tuple[tuple[int, ...], str]] = {
    "T": ((13, 11), "f8"),
    "count": ((13, 11), "i8"),
    "speed": ((7,), "f4"),
    "mask": ((3,), "?"),  # of four ranks some own none of it
    "image": ((5, 4, 3), "u1"),
    "wave": ((4, 6), "c16"),
    "half": ((9, 2), "f2"),
}
PARAMETERS = {"rows": 13, "nu": 0.1, "scheme": "euler"}


def declare(world: World, split: str = "auto", seed: int = 7) -> State:
    state = State(world, split, seed)
    for name, (shape, dtype) in SHAPES.items():
        dims = ("y", "x") if shape == (13, 11) else ()
        state.field(name, shape, dtype, halo=int(name == "T"), dims=dims, unit="K", description=f"the {name}")
    state.scalar("hits", 0, unit="1", description="darts inside")
    state.scalar("energy", 0.0)
    state.scalar("done", False)
    return state


def fill(state: State, step: int) -> None:
    """Set values that depend only on the step and the global index; all their bits vary."""
    for field in state.fields():
        field[...] = whole(field.name, step)[field.layout.slices]
    state.hits, state.energy, state.done = 10**12 + step, -1 / (step + 1), step % 2 == 1
    state.step = step


def whole(name: str, step: int) -> np.ndarray:
    """A Field as one array."""
    shape, dtype = SHAPES[name]
    random = np.random.default_rng([step, *name.encode()])
    if dtype in ("?", "u1", "i8"):
        return random.integers(0, 2 if dtype == "?" else 255, shape).astype(dtype)
    values = random.standard_normal(shape)
    return (values + 1j * random.standard_normal(shape) if dtype == "c16" else values).astype(dtype)


def holds(state: State, step: int) -> bool:
    """Whether this rank's part of the state is that of the step, bit for bit."""
    fields = [
        field.local.tobytes() == whole(field.name, step)[field.layout.slices].tobytes() for field in state.fields()
    ]
    scalars = (state.hits, state.energy, state.done) == (10**12 + step, -1 / (step + 1), step % 2 == 1)
    return all(fields) and scalars and state.step == step


def checkpoints(folder: Path, state: State, **options: Any) -> Checkpoints:
    return Checkpoints(folder, state, options.pop("program", "heat"), {**PARAMETERS}, **options)


def write(folder: Path, state: State, *steps: int, **options: Any) -> Saved:
    """Write checkpoints of the state at the steps; returns the outcome of the last. Collective."""
    writer = checkpoints(folder, state, **options)
    for step in steps:
        fill(state, step)
        writer.begin()
        saved = writer.finish()
        assert saved is not None and not saved.error, saved
    return saved


def first_ranks(world: World, count: int) -> World | None:
    """A World of the first `count` ranks, None on the others. Collective."""
    comm = world.comm.Split(0 if world.rank < count else MPI.UNDEFINED)
    return World(comm) if comm != MPI.COMM_NULL else None
