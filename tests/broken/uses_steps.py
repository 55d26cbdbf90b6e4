"""Planted bug: the size of a step depends on the number of steps, so that more steps are another run."""

from anyrank import Program, State, param


class UsesSteps(Program):
    """Decay until the time 1."""

    n: int = param(12, "points")
    steps: int = param(6, "steps")

    def declare(self, state: State) -> None:
        state.field("x", (self.n,))

    def setup(self, state: State) -> None:
        state.x[...] = 1.0 + state.x.indices[0]

    def step(self, state: State) -> None:
        state.x[...] = state.x.local * (1 - 1 / (self.steps + 1))
