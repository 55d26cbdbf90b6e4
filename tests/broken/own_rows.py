"""Wrong: the kernel gets the first row of the rank's block, and counts rows from there in every region of the block."""

import numpy as np

from anyrank import Kernel, Program, State, param


def heat_step(new, T, first, n):
    """One forward Euler step between two plates: the first and the last row keep their values."""
    row = first + np.arange(new.shape[0])[:, None]  # right: a Field of the rows, in place of `first`
    new[...] = T[1:-1, 1:-1] + (row > 0) * (row < n - 1) * 0.25 * (T[:-2, 1:-1] - 2 * T[1:-1, 1:-1] + T[2:, 1:-1])


HEAT_STEP = Kernel(heat_step)


class OwnRows(Program):
    """Heat between two plates."""

    n: int = param(12, "points per side", ge=4)
    steps: int = param(6, "steps", ge=0)

    def declare(self, state: State) -> None:
        state.field("T", (self.n, self.n), halo=1)

    def setup(self, state: State) -> None:
        j, i = state.T.indices
        state.T[...] = (3 * j + 5 * i) % 7

    def step(self, state: State) -> None:
        state.T.advance(HEAT_STEP, int(state.T.indices[0][0, 0]), self.n)
