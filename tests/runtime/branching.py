"""Programs whose states have some members in common, for the tests of branches."""

from __future__ import annotations

import numpy as np

from anyrank import Kernel, Program, State, Table, exact, param


def diffuse(new, T, k):
    """One forward Euler step; k is a constant at the points."""
    new[...] = T[1:-1, 1:-1] + k * (T[:-2, 1:-1] + T[2:, 1:-1] + T[1:-1, :-2] + T[1:-1, 2:] - 4 * T[1:-1, 1:-1])


DIFFUSE = Kernel(diffuse)


class Plate(Program):
    """Heat on a plate between two walls, with random heating."""

    n: int = param(12, "points per side", ge=3)
    nu: float = param(0.1, "diffusion", gt=0)
    seed: int = param(1, "seed")
    steps: int = param(8, "steps", ge=0)

    def declare(self, state: State) -> None:
        self.grid = state.grid((self.n, self.n + 1), dims=("y", "x"), boundary={"y": "reflect"})
        self.grid.field("T", unit="K")
        self.grid.field("v", at="y")
        self.grid.constant("k", halo=0)
        state.scalar("heated", 0)

    def constants(self, state: State) -> None:
        state.k[...] = self.nu

    def setup(self, state: State) -> None:
        y, x = state.T.indices
        state.T[...] = np.sin(0.7 * y + 0.3 * x)
        state.v[...] = 1.0 / (1 + state.v.indices[0])

    def step(self, state: State) -> None:
        state.T.advance(DIFFUSE, state.k)
        state.T[...] += 0.01 * state.random().uniform(state.T.layout.linear, state.step)
        state.heated += 1

    def result(self, state: State) -> dict:
        return {"mean": exact.mean(state.T), "heated": state.heated}


class Dyed(Plate):
    """The plate with one more field."""

    def declare(self, state: State) -> None:
        super().declare(state)
        self.grid.field("dye", "f4")

    def setup(self, state: State) -> None:
        assert state.step == 0 and not state.T.local.any() and not state.heated, "as in every run"
        state.T[...] = 100.0
        state.dye[...] = state.dye.indices[1]


class Single(Program):
    """Another program: T in single precision, no v, a member of its own."""

    n: int = param(12, "points per side")
    steps: int = param(8, "steps")

    def declare(self, state: State) -> None:
        state.field("T", (self.n, self.n + 1), "f4")
        state.scalar("other", 1.0)

    def step(self, state: State) -> None:
        state.T[...] += 1


class Bare(Program):
    """Another program, whose state has only T."""

    steps: int = param(12, "steps")

    def declare(self, state: State) -> None:
        state.field("T", (12, 13))

    def step(self, state: State) -> None:
        state.T[...] += 1


class Counted(Program):
    """A field, and a table of numbers."""

    n: int = param(8, "points")
    steps: int = param(4, "steps")

    def declare(self, state: State) -> None:
        state.field("x", (self.n,))
        state.add(Table("seen", state.world, {"number": np.int64}))

    def step(self, state: State) -> None:
        if state.world.rank == 0:
            state.seen.add(np.array([state.step]))
        state.x[...] += 1
