"""Wrong: the random numbers are seeded by the rank, so that they depend on the number of ranks."""

import numpy as np

from anyrank import Program, State, param


class RankSeed(Program):
    """A random walk of n walkers."""

    n: int = param(12, "walkers", ge=1)
    steps: int = param(6, "steps", ge=0)

    def declare(self, state: State) -> None:
        state.field("x", (self.n,))

    def setup(self, state: State) -> None:
        random = np.random.default_rng(state.world.rank)  # right: state.random().uniform(state.x.indices[0])
        state.x[...] = random.random(state.x.local.shape)

    def step(self, state: State) -> None:
        state.x[...] = 0.5 * state.x.local
