"""Wrong: an array is read before it is written."""

import numpy as np

from anyrank import Program, State, param


class Uninitialized(Program):
    """Values under a force that changes every third step."""

    n: int = param(12, "values", ge=1)
    steps: int = param(6, "steps", ge=0)

    def declare(self, state: State) -> None:
        state.field("x", (self.n,))

    def step(self, state: State) -> None:
        force = np.empty(state.x.local.shape)  # right: np.zeros
        if state.step % 3 != 1:
            force[...] = state.x.indices[0]
        state.x[...] = 0.5 * state.x.local + force
