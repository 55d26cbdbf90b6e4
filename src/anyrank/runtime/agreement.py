"""The agreement of every step: what any rank asks for, all ranks know one step later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

from anyrank.world import World


@dataclass(frozen=True)
class Agreed:
    """What all ranks know alike: flags that the ranks posted at the end of step `posted`."""

    posted: int
    stop: int
    due: bool
    working: bool


class Agreement:
    """One non-blocking all-reduce (maximum) of a few flags, completed a step later.

    `post` and `collect` are collective and alternate. The reduction travels while the next step computes, as far as
    MPI gets on with it, which it does in its own calls alone: so a step on p ranks that makes few of these lasts no
    less than ⌈log₂ p⌉ messages one after the other.
    """

    def __init__(self, world: World):
        self._world = world
        self._mine = np.zeros(3, np.int32)
        self._theirs = np.zeros(3, np.int32)
        self._request: MPI.Request | None = None
        self._posted = -1

    def post(self, step: int, stop: int, due: bool, working: bool) -> None:
        """Tell the others this rank's flags at the end of `step`."""
        self._mine[:] = stop, due, working
        self._posted = step
        if self._world.size > 1:
            if self._world.recorder is not None:
                self._world.recorder.end_step(step)
            with self._world.timers.during("reduce"):
                self._request = self._world.comm.Iallreduce(self._mine, self._theirs, op=MPI.MAX)

    def collect(self) -> Agreed:
        """What all ranks posted last; nothing at the first step."""
        if self._posted < 0:
            return Agreed(-1, 0, False, False)
        if self._request is not None:
            with self._world.timers.during("reduce"):
                self._request.Wait()
            self._request = None
        flags = self._theirs if self._world.size > 1 else self._mine
        return Agreed(self._posted, int(flags[0]), bool(flags[1]), bool(flags[2]))
