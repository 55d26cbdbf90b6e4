"""A program in which some ranks hang in the way that a parameter names, for tests."""

import time
from collections import deque
from itertools import repeat
from typing import Literal

import numpy as np

from anyrank import Program, State, param


class Hanging(Program):
    """Counts steps of some duration; at one step some ranks hang."""

    steps: int = param(1000, "steps", ge=0)
    at: int = param(5, "the step at which it happens")
    who: int = param(2, "the rank it happens to; -1 all")
    how: Literal["loop", "kernel", "receive", "no"] = param("loop", "what happens")
    pause: float = param(0.0, "seconds a step takes", ge=0)

    def declare(self, state: State) -> None:
        state.field("x", (12,), halo=1)

    def setup(self, state: State) -> None:
        state.x[...] = np.arange(12)[state.x.layout.slices]

    def step(self, state: State) -> None:
        state.x.exchange()
        time.sleep(self.pause)
        if state.step == self.at and self.who in (-1, state.world.rank):
            getattr(self, self.how)(state)
        state.x[...] = state.x.local + 1

    def loop(self, state: State) -> None:
        while True:
            pass

    def kernel(self, state: State) -> None:
        deque(repeat(0), maxlen=0)  # machine code that never releases the GIL

    def receive(self, state: State) -> None:
        state.world.comm.recv(source=0, tag=77)
