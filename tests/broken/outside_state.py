"""Wrong: the speed is an attribute of self, outside the state, so that it is lost when the run is resumed."""

from anyrank import Program, State, param


class OutsideState(Program):
    """Falling stones."""

    n: int = param(12, "stones", ge=1)
    steps: int = param(6, "steps", ge=0)
    speed = 0.0  # right: state.scalar("speed", 0.0)

    def declare(self, state: State) -> None:
        state.field("height", (self.n,), unit="m")

    def setup(self, state: State) -> None:
        state.height[...] = 100.0 + state.height.indices[0]

    def step(self, state: State) -> None:
        self.speed += 0.981
        state.height[...] = state.height.local - 0.1 * self.speed
