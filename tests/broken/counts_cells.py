"""Wrong with --halo-steps: the kernel counts cells, and two ranks then compute the cells between them."""

import numpy as np

from anyrank import Kernel, Program, State, param


def heat_step(new, T, count):
    """One forward Euler step; count[0] is the number of cells that are still warm."""
    new[...] = T[1:-1] + 0.25 * (T[:-2] - 2 * T[1:-1] + T[2:])
    count[0] += np.count_nonzero(new > 1.5)  # right: count them after advance, in the block of the rank


HEAT_STEP = Kernel(heat_step)


class CountsCells(Program):
    """Heat on a ring, with the number of warm cells."""

    deep_halos = True

    n: int = param(12, "points", ge=4)
    steps: int = param(6, "steps", ge=0)

    def declare(self, state: State) -> None:
        state.field("T", (self.n,), halo=1)
        state.scalar("warm", 0)

    def setup(self, state: State) -> None:
        state.T[...] = state.T.indices[0] % 4

    def step(self, state: State) -> None:
        count = np.zeros(1, np.int64)
        state.T.advance(HEAT_STEP, count)
        state.warm = int(state.world.allreduce(count)[0])
