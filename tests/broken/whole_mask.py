"""Wrong: the mask is an array of the block's shape, which no smaller region has."""

from anyrank import Kernel, Program, State, param


def heat_step(new, T, mask):
    """One forward Euler step where the mask is true."""
    new[...] = T[1:-1] + mask * 0.25 * (T[:-2] - 2 * T[1:-1] + T[2:])


HEAT_STEP = Kernel(heat_step)


class WholeMask(Program):
    """Heat on a rod with insulated points."""

    n: int = param(12, "points", ge=4)
    steps: int = param(6, "steps", ge=0)

    def declare(self, state: State) -> None:
        state.field("T", (self.n,), halo=1)

    def setup(self, state: State) -> None:
        state.T[...] = 1.0 + state.T.indices[0] % 3

    def step(self, state: State) -> None:
        state.T.advance(HEAT_STEP, state.T.indices[0] % 5 > 0)  # right: a Field that holds the mask
