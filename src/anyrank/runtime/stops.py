"""Stops: signals, the wall-time limit and a stop file all ask for the same thing."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from anyrank.runtime.children import never_inherit

#: Each of these asks the run to write a checkpoint and leave with 75. (MPICH's mpiexec forwards them.)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGQUIT)
#: Reasons are numbers, so that ranks can agree on one by a maximum; signals are their own number.
NONE, STOP_FILE, WALL_TIME, STOP_AT = 0, 1001, 1002, 1003
#: Share of the wall time kept in reserve, and its bound in seconds, beside what checkpoint and step need.
RESERVE, RESERVE_MOST = 0.05, 60.0


def describe(reason: int) -> str:
    """A reason in words."""
    words = {STOP_FILE: "the stop file", WALL_TIME: "the wall-time limit", STOP_AT: "--stop-at"}
    return words.get(reason) or signal.Signals(reason).name


def scheduler_limit(environment: Mapping[str, str], now: float) -> float | None:
    """Seconds left of the batch job this process runs in, as its scheduler says; None where none does.

    Our job scripts and Slurm give the job's end (ANYRANK_JOB_END, SLURM_JOB_END_TIME, seconds since 1970), so the time
    that a thousand ranks take to start counts; Torque gives its length (PBS_WALLTIME), which is counted from now.
    """
    for name in ("ANYRANK_JOB_END", "SLURM_JOB_END_TIME"):
        if environment.get(name, "").isdigit():
            return float(environment[name]) - now
    if environment.get("PBS_WALLTIME", "").isdigit():
        return float(environment["PBS_WALLTIME"])
    return None


class Stops:
    """Whether this rank has been asked to stop; polled between steps, so handlers do no work.

    `walltime` in seconds from `started` (monotonic clock); without it the scheduler's limit counts.
    The stop file is `stop` in the run folder; only `watch` (rank 0) looks for it, once a second. `stop_at` is a step
    at which every rank stops, without being asked.
    """

    def __init__(self, file: Path, walltime: float | None, started: float, watch: bool, stop_at: int | None = None):
        self.stop_at = math.inf if stop_at is None else stop_at
        self._file, self._watch = file, watch
        self._signal = NONE
        self._looked = 0.0
        limit = walltime if walltime is not None else scheduler_limit(os.environ, time.time())
        self.deadline = None if limit is None else started + limit
        self._reserve = min(RESERVE * limit, RESERVE_MOST) if limit is not None else 0.0
        if watch:
            file.unlink(missing_ok=True)  # it was for the run before this one
        # Python lets only the main thread handle signals.
        numbers = SIGNALS if threading.current_thread() is threading.main_thread() else ()
        self._before = {number: signal.signal(number, self._receive) for number in numbers}
        self._forget = never_inherit(self._leave_to_parent)

    def _receive(self, number: int, frame: object) -> None:
        self._signal = number

    def asked(self, now: float, needed: float) -> int:
        """The reason to stop now, NONE without one. `needed`: seconds for one more step and a checkpoint."""
        if self._signal:
            return self._signal
        if not self._watch:
            return NONE
        if self.deadline is not None and now + needed + self._reserve >= self.deadline:
            return WALL_TIME
        if now - self._looked >= 1.0:
            self._looked = now
            if self._file.exists():
                return STOP_FILE
        return NONE

    def _leave_to_parent(self) -> None:
        """In a forked child: SIGTERM ends it, as pools do; the other signals ask the rank, which still needs it."""
        for number, handler in self._before.items():
            mine = number == signal.SIGTERM
            signal.signal(number, (handler or signal.SIG_DFL) if mine else signal.SIG_IGN)

    def close(self) -> None:
        """Give the signals their former handlers back; a stop file has done its work and goes."""
        self._forget()
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if self._watch:
            self._file.unlink(missing_ok=True)
