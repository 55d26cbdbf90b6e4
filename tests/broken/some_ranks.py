"""Wrong: only the ranks whose values are large make a collective call."""

from anyrank import Program, State, param


class SomeRanks(Program):
    """Values that grow until they are reset."""

    n: int = param(12, "values", ge=1)
    steps: int = param(6, "steps", ge=0)

    def declare(self, state: State) -> None:
        state.field("x", (self.n,))

    def setup(self, state: State) -> None:
        state.x[...] = state.x.indices[0]

    def step(self, state: State) -> None:
        state.x[...] = state.x.local + 1
        if state.x.local.max() > self.n:  # right: exact.max(state.x), which is the same on all ranks
            state.world.barrier()
            state.x[...] = 0.5 * state.x.local
