"""Stops: signals, the wall-time limit and a stop file all request a checkpoint and the end of the run."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from anyrank.runtime.children import never_inherit

#: Each of these signals requests a checkpoint and an exit with status 75. (MPICH's mpiexec forwards them.)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGQUIT)
#: Reasons are numbers, so that ranks can agree on one by a maximum. A signal's reason is its own number. Values
#: that are not finite end the run with an error.
NONE, STOP_FILE, WALL_TIME, STOP_AT, NOT_FINITE = 0, 1001, 1002, 1003, 1004
#: The fraction of the wall time that is kept in reserve, in addition to a step and a checkpoint; its limit in seconds.
RESERVE, RESERVE_LIMIT = 0.05, 60.0


def describe(reason: int) -> str:
    """Return a reason as text."""
    words = {STOP_FILE: "the stop file", WALL_TIME: "the wall-time limit", STOP_AT: "--stop-at"}
    return words.get(reason) or signal.Signals(reason).name


def scheduler_limit(environment: Mapping[str, str], now: float) -> float | None:
    """Return the seconds left of the batch job of this process, from its scheduler; None outside of a job.

    Our job scripts and Slurm give the end of the job (ANYRANK_JOB_END, SLURM_JOB_END_TIME, seconds since 1970), which
    includes the start-up time of the ranks. Torque gives its length (PBS_WALLTIME), which is counted from now.
    """
    for name in ("ANYRANK_JOB_END", "SLURM_JOB_END_TIME"):
        if environment.get(name, "").isdigit():
            return float(environment[name]) - now
    if environment.get("PBS_WALLTIME", "").isdigit():
        return float(environment["PBS_WALLTIME"])
    return None


class Stops:
    """The stop requests of this rank; polled between steps, so that signal handlers do no work.

    The run must end `walltime` seconds after the time `started` of the monotonic clock; by default at the limit of the
    scheduler. `file` is the stop file, `stop` in the run folder. Only the rank with `watch`, rank 0, checks the time
    and, once a second, the file. `stop_at` is a step at which all ranks stop without a request.
    """

    def __init__(self, file: Path, walltime: float | None, started: float, watch: bool, stop_at: int | None = None):
        self.stop_at = math.inf if stop_at is None else stop_at
        self._file, self._is_watcher = file, watch
        self._signal = NONE
        self._last_check = 0.0
        limit = walltime if walltime is not None else scheduler_limit(os.environ, time.time())
        self.deadline = None if limit is None else started + limit
        self._reserve = min(RESERVE * limit, RESERVE_LIMIT) if limit is not None else 0.0
        if watch:
            file.unlink(missing_ok=True)  # it was meant for an earlier run
        # Python lets only the main thread handle signals.
        numbers = SIGNALS if threading.current_thread() is threading.main_thread() else ()
        self._former_handlers = {number: signal.signal(number, self._receive) for number in numbers}
        self._unregister = never_inherit(self._in_forked_child)

    def _receive(self, number: int, frame: object) -> None:
        self._signal = number

    def reason(self, now: float, needed: float) -> int:
        """Return the reason to stop now, or NONE. `needed`: seconds for one more step and a checkpoint."""
        if self._signal:
            return self._signal
        if not self._is_watcher:
            return NONE
        if self.deadline is not None and now + needed + self._reserve >= self.deadline:
            return WALL_TIME
        if now - self._last_check >= 1.0:
            self._last_check = now
            if self._file.exists():
                return STOP_FILE
        return NONE

    def _in_forked_child(self) -> None:
        """Set the signals of a forked child: SIGTERM ends it, as process pools expect; others only concern the rank."""
        for number, handler in self._former_handlers.items():
            signal.signal(number, (handler or signal.SIG_DFL) if number == signal.SIGTERM else signal.SIG_IGN)

    def close(self) -> None:
        """Restore the former signal handlers and remove the stop file."""
        self._unregister()
        for number, handler in self._former_handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if self._is_watcher:
            self._file.unlink(missing_ok=True)
