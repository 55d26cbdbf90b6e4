"""A program with empty steps: it measures the cost of a step itself."""

import time

from anyrank import Program, State, param


class Empty(Program):
    """A State of one Scalar, and steps that do nothing or keep the core busy."""

    steps: int = param(20_000, "steps", ge=0)
    spin: float = param(0.0, "seconds that a step keeps its core busy", ge=0)

    def declare(self, state: State) -> None:
        """Declare one Scalar."""
        state.scalar("nothing", 0)

    def step(self, state: State) -> None:
        """Do nothing for `spin` seconds."""
        if self.spin:
            until = time.perf_counter() + self.spin
            while time.perf_counter() < until:
                pass
