"""Planted bug: observe returns a mean of the sums of the ranks, which depends on their number."""

import numpy as np

from anyrank import Program, State, param


class RankSeries(Program):
    """The State is right, and the series is not."""

    n: int = param(12, "points")
    steps: int = param(6, "steps")

    def declare(self, state: State) -> None:
        state.field("x", (self.n,))

    def setup(self, state: State) -> None:
        state.x[...] = state.x.indices[0]

    def step(self, state: State) -> None:
        state.x[...] = state.x.local + 0.5

    def observe(self, state: State) -> dict:
        return {"mean": float(state.world.allreduce(np.array([state.x.local.max() - state.x.local.min()]), "max")[0])}
