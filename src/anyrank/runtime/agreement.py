"""Agreement between ranks at every step: a flag that any rank sets reaches all ranks one step later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

from anyrank.world import World


@dataclass(frozen=True)
class Agreed:
    """The maximum over all ranks of the flags that they posted at the end of step `posted`."""

    posted: int
    stop: int
    due: bool
    working: bool


class Agreement:
    """A non-blocking all-reduce (maximum) of a few flags.

    `post` starts it at the end of a step, and `collect` completes it after the next step. Both are collective and
    alternate. The reduction proceeds while the next step computes, but MPI progresses only within its own calls. If a
    step makes few MPI calls, `collect` therefore waits for up to ⌈log₂ p⌉ messages, one after the other, on p ranks.
    """

    def __init__(self, world: World):
        self._world = world
        self._local_flags = np.zeros(3, np.int32)
        self._reduced_flags = np.zeros(3, np.int32)
        self._request: MPI.Request | None = None
        self._posted = -1

    def post(self, step: int, stop: int, due: bool, working: bool) -> None:
        """Start the reduction of this rank's flags at the end of `step`."""
        self._local_flags[:] = stop, due, working
        self._posted = step
        if self._world.size > 1:
            if self._world.recorder is not None:
                self._world.recorder.end_step(step)
            with self._world.timers.during("reduce"):
                self._request = self._world.comm.Iallreduce(self._local_flags, self._reduced_flags, op=MPI.MAX)

    def collect(self) -> Agreed:
        """Return the maximum of the flags that all ranks posted last; before the first `post` no flag is set."""
        if self._posted < 0:
            return Agreed(-1, 0, False, False)
        if self._request is not None:
            with self._world.timers.during("reduce"):
                self._request.Wait()
            self._request = None
        flags = self._reduced_flags if self._world.size > 1 else self._local_flags
        return Agreed(self._posted, int(flags[0]), bool(flags[1]), bool(flags[2]))
