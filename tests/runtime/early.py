"""A program in which one rank hangs before the first step, for tests."""

import os
import time

from anyrank import Program, State, param


def stay(where: str) -> None:
    """Hang where the test says, on the second rank of a launch."""
    if os.environ.get("ANYRANK_TEST_STAY") == where and os.environ.get("PMI_RANK") == "1":
        time.sleep(600)


stay("import")


class Early(Program):
    """Counts steps."""

    steps: int = param(3, "time steps")

    def check(self) -> None:
        stay("check")

    def declare(self, state: State) -> None:
        stay("declare")
        state.scalar("n", 0)

    def step(self, state: State) -> None:
        state.n += 1
