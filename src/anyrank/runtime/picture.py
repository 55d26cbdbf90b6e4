"""The picture of a run, which the program draws on all ranks; a failure to draw does not end the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from anyrank.world import World

#: Seconds that a rank whose drawing failed waits for the others. Ranks that are then missing wait for this rank.
PATIENCE = 10.0


def draw_on_all_ranks(world: World, draw: Callable[[], Path | None]) -> tuple[Path | None, str]:
    """Call `draw`; return its value on this rank, and an error message, which is empty on success. Collective.

    If all ranks return from `draw`, an error of any rank is only a message. If a rank fails while others wait for it in
    a collective call of `draw`, it raises its error, which must end the run: nothing else would end their wait.
    """
    comm = world.comm.Dup()  # unfinished collective calls of `draw` must not match ours
    path, error = None, None
    try:
        path = draw()
    except Exception as failure:
        error = failure
    barrier, deadline = comm.Ibarrier(), time.monotonic() + PATIENCE
    while not barrier.Test():
        if error is not None and time.monotonic() > deadline:
            raise error
        time.sleep(0.001)
    comm.Free()
    problems = world.comm.allgather("" if error is None else f"{type(error).__name__}: {error}")
    return path, next(filter(None, problems), "")
