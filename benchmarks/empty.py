"""A program that does nothing: what a step costs before anyone computes."""

import time

from anyrank import Program, State, param


class Empty(Program):
    """One Scalar, and steps that are empty or only take time."""

    steps: int = param(20_000, "steps", ge=0)
    spin: float = param(0.0, "seconds that a step keeps its core busy", ge=0)

    def declare(self, state: State) -> None:
        """Declare one Scalar."""
        state.scalar("nothing", 0)

    def step(self, state: State) -> None:
        """Do nothing, for as long as was asked."""
        if self.spin:
            until = time.perf_counter() + self.spin
            while time.perf_counter() < until:
                pass
