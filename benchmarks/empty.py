"""A program that does nothing: what a step costs before anyone computes."""

from anyrank import Program, State, param


class Empty(Program):
    """One Scalar, empty steps."""

    steps: int = param(20_000, "steps", ge=0)

    def declare(self, state: State) -> None:
        """One Scalar."""
        state.scalar("nothing", 0)

    def step(self, state: State) -> None:
        """Nothing."""
