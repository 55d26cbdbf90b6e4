"""Weather with slow steps, for tests that act on a run meanwhile."""

import time

from anyrank import State, param
from anyrank.programs.weather import Weather


class Slowly(Weather):
    """Weather with a pause in every step."""

    pause: float = param(0.005, "seconds a step takes longer", ge=0)

    def step(self, state: State) -> None:
        time.sleep(self.pause)
        super().step(state)
