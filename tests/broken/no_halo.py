"""Wrong: the halo is not exchanged, so that a rank's ghost cells keep their first value, zero."""

from anyrank import Program, State, param


class NoHalo(Program):
    """Heat on a periodic ring."""

    n: int = param(12, "points", ge=4)
    steps: int = param(6, "steps", ge=0)

    def declare(self, state: State) -> None:
        state.field("T", (self.n,), halo=1)

    def setup(self, state: State) -> None:
        state.T[...] = 1.0 + state.T.indices[0] % 3

    def step(self, state: State) -> None:
        T = state.T.array  # right: state.T.exchange() first
        state.T[...] = T[1:-1] + 0.25 * (T[:-2] - 2 * T[1:-1] + T[2:])
