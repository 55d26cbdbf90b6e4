"""Wrong: the length of the time step is the measured duration of the last step."""

import time

from anyrank import Program, State, param


class WallTime(Program):
    """Decay in real time."""

    n: int = param(12, "values", ge=1)
    steps: int = param(6, "steps", ge=0)

    def declare(self, state: State) -> None:
        state.field("x", (self.n,))

    def setup(self, state: State) -> None:
        state.x[...] = 1.0 + state.x.indices[0]

    def step(self, state: State) -> None:
        began = time.perf_counter()
        change = 0.5 * state.x.local
        state.x[...] = state.x.local - change * (time.perf_counter() - began)  # right: a time step that is a parameter
