"""Chaos: faults to inject into a run, told by a text."""

from __future__ import annotations

from pathlib import Path

from anyrank.checkpoint import Checkpoints
from anyrank.errors import UsageError
from anyrank.run.companion import Companion
from anyrank.world import World


def parse(text: str) -> None:
    """The faults that the text tells; UsageError where it does not parse."""
    raise UsageError(f"--chaos {text!r} cannot be read.")


class Chaos(Companion):
    """Injects the faults."""

    def __init__(self, text: str, world: World, folder: Path, checkpoints: Checkpoints):
        parse(text)
