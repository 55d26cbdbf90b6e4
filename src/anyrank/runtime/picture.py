"""The picture of a run: drawn by the program, on all ranks together, and no end of a run that it fails to draw."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from anyrank.world import World

#: Seconds that a rank whose drawing failed waits for the others: those that are not there then wait for it.
PATIENCE = 10.0


def drawn(world: World, draw: Callable[[], Path | None]) -> tuple[Path | None, str]:
    """What `draw` returns on this rank, and why there is no picture, empty where there is one. Collective.

    An error of any rank is no error of the run where all ranks come to the end of `draw`. A rank that fails while
    others wait for it, in a collective call of `draw`, raises its error, and must end the run: nothing else ends
    their wait.
    """
    comm = world.comm.Dup()  # what is left of the calls of `draw` must not meet ours
    path, error = None, None
    try:
        path = draw()
    except Exception as caught:
        error = caught
    all_there, until = comm.Ibarrier(), time.monotonic() + PATIENCE
    while not all_there.Test():
        if error is not None and time.monotonic() > until:
            raise error
        time.sleep(0.001)
    comm.Free()
    problems = world.comm.allgather("" if error is None else f"{type(error).__name__}: {error}")
    return path, next(filter(None, problems), "")
