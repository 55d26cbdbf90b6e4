"""Weather that gets a signal at a step that the test chooses: one rank gets it, all ranks must agree."""

import os
import signal

from anyrank import State
from anyrank.programs.weather import Weather


class Stopping(Weather):
    """Weather whose last rank gets SIGTERM after the step $ANYRANK_STOP_AT."""

    def step(self, state: State) -> None:
        super().step(state)
        if str(state.step + 1) == os.environ.get("ANYRANK_STOP_AT") and state.world.rank == state.world.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
