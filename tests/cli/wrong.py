"""A program with one mistake, which the parameter `case` selects."""

from __future__ import annotations

import numpy as np

from anyrank import Kernel, Program, State, param


def keep(new, old):
    new[...] = old[1:-1, 1:-1]


def returned(new, old):
    return old[1:-1, 1:-1]


def distant(new, old):
    new[...] = old[2:-2, 2:-2]


def cut(inside, y, x, step):
    return inside[0][:, 1:]


KEEP, RETURNED, DISTANT = map(Kernel, (keep, returned, distant))


class Wrong(Program):
    """A plate."""

    case: str = param(..., "the mistake")
    steps: int = param(2, "time steps")

    def declare(self, state: State) -> None:
        sides = ("open" if self.case == "boundary" else "reflect", cut if self.case == "layer" else "reflect")
        kernel = self.case in ("returned", "distant")  # with so many points it is called while messages are under way
        plate = state.grid((900, 70) if kernel else (12, 10), dims=("y", "x"), boundary={"y": sides})
        plate.field("T")
        plate.field("T" if self.case == "name" else "u", components=9)

    def setup(self, state: State) -> None:
        if self.case == "whole":
            state.T[...] = np.zeros((12, 12))
        if self.case == "component":
            state.u[9] = 1.0
        if self.case == "point":
            state.T.at(12, 0).write(1.0)
        if self.case == "file":
            state.T.read("plate.npy")

    def step(self, state: State) -> None:
        state.T.advance({"returned": RETURNED, "distant": DISTANT}.get(self.case, KEEP))
