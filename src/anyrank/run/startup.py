"""What must be the same on all ranks before a run starts."""

from __future__ import annotations

from anyrank.program import Program
from anyrank.state import State
from anyrank.world import World


def check_ranks(world: World, program: Program, source: str) -> list[str]:
    """Warnings of what differs between ranks, the same on all of them. Collective."""
    return []


def check_state(state: State) -> None:
    """Raise UsageError on all ranks where they declare different states. Collective."""
