"""The watchdog: a run that makes no step for too long says where every rank is, and ends."""

from __future__ import annotations

from pathlib import Path

from anyrank.world import World


class Watchdog:
    """Watches this process; `seconds` without a `beat` count as a hang, 0 watches nothing."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def report_to(self, world: World, folder: Path) -> None:
        """From now on a hang is reported in the run folder, for all ranks together. Collective."""

    def beat(self, step: int) -> None:
        """This rank has got on: it has done `step` steps."""

    def close(self) -> None:
        """Watch no more."""
