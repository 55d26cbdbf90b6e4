"""Programs that wait, or fail, while a file exists: for tests that act on running jobs."""

import time
from pathlib import Path

from anyrank import State, param
from anyrank.programs.pi import Pi
from anyrank.programs.weather import Weather


class Storm(Weather):
    """Weather with slow steps while the gate exists."""

    gate: str = param("", "a file; while it is there, steps take 0.6 s longer")
    stuck: bool = param(False, "take minutes longer")

    def step(self, state: State) -> None:
        if self.gate and Path(self.gate).exists():
            time.sleep(300 if self.stuck else 0.6)
        super().step(state)


class Flaky(Pi):
    """π that fails for some seeds while a file exists."""

    broken: str = param("", "a file; while it is there, seeds 4, 9 and 17 fail")

    def step(self, state: State) -> None:
        if self.broken and Path(self.broken).exists() and self.seed in (4, 9, 17):
            raise RuntimeError(f"seed {self.seed} is broken")
        super().step(state)
