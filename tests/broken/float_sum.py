"""Wrong: floats are added by comm.allreduce, whose rounding depends on the number of ranks."""

from anyrank import Program, State, param


class FloatSum(Program):
    """Values that relax to their mean."""

    n: int = param(1000, "values", ge=1)
    steps: int = param(6, "steps", ge=0)

    def declare(self, state: State) -> None:
        state.scalar("mean", 0.0)
        state.field("x", (self.n,))

    def setup(self, state: State) -> None:
        state.x[...] = state.random().normal(state.x.indices[0])

    def step(self, state: State) -> None:
        state.mean = state.world.comm.allreduce(float(state.x.local.sum())) / self.n  # right: exact.mean(state.x)
        state.x[...] = state.x.local + 0.25 * (state.mean - state.x.local)
