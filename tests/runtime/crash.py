"""A program that fails in the way that a parameter names, for tests."""

import os
import time
from typing import Literal

import numpy as np

from anyrank import Program, State, param


class Crash(Program):
    """Counts steps; at one step some ranks raise, crash, or pause."""

    steps: int = param(1000, "steps", ge=0)
    at: int = param(5, "the step at which it happens")
    who: int = param(1, "the rank it happens to; -1 all")
    how: Literal["raise", "exit", "kill", "differ", "no"] = param("raise", "what happens")
    pause: float = param(0.0, "seconds a step takes", ge=0)
    n: int = param(12, "length of the field", ge=1)

    def declare(self, state: State) -> None:
        state.field("x", (self.n,))
        state.scalar("count", 0)

    def setup(self, state: State) -> None:
        state.x[...] = np.arange(self.n)[state.x.layout.slices]

    def step(self, state: State) -> None:
        time.sleep(self.pause)
        state.x[...] = state.x.local + 1
        state.count += 1
        if state.step == self.at and self.who in (-1, state.world.rank):
            self.happen(state)

    def happen(self, state: State) -> None:
        if self.how == "raise":
            raise ValueError(f"bad luck at step {state.step}")
        if self.how == "exit":
            raise SystemExit(3)
        if self.how == "kill":
            os.kill(os.getpid(), 9)
        if self.how == "differ":
            state.count += 7

    def result(self, state: State) -> dict:
        return {"count": state.count}
