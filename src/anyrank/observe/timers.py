"""Timers: the time of a run's steps by phase, and the traffic of its ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np

#: The phases of a step: `idle` is the wait for slower ranks, `other` the time of the loop itself and of outputs.
PHASES = ("compute", "exchange", "reduce", "checkpoint", "idle", "other")
#: The largest number of windows, each of the same number of steps, for which computing time is recorded.
WINDOWS = 1024


class Timers:
    """One rank's seconds by phase, and its traffic. Cheap enough for every message.

    `start` and `stop` enclose a phase; the time of a nested phase counts for the outer phase.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Reset all timers and counters."""
        self.seconds = {"exchange": 0.0, "reduce": 0.0, "checkpoint": 0.0, "output": 0.0}
        self.traffic = {"messages": 0, "bytes": 0, "reductions": 0, "reduced": 0}
        self.steps, self.computed, self._width, self._depth = 0, [0.0], 1, 0

    def start(self) -> float:
        """Begin a phase; pass the result to `stop`."""
        self._depth += 1
        return perf_counter()

    def stop(self, phase: str, start: float) -> None:
        """End a phase."""
        self._depth -= 1
        if not self._depth:
            self.seconds[phase] += perf_counter() - start

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Time a block as a phase."""
        start = self.start()
        try:
            yield
        finally:
            self.stop(phase, start)

    def count(self, number: str, size: str, n_bytes: int, times: int = 1) -> None:
        """Count `times` messages or reductions of `n_bytes` in all; nothing is counted within an enclosing phase."""
        if not self._depth:
            self.traffic[number] += times
            self.traffic[size] += n_bytes

    def communicated(self) -> float:
        """Return the seconds in exchanges and reductions so far."""
        return self.seconds["exchange"] + self.seconds["reduce"]

    def step(self, computed: float) -> None:
        """Record a step in which this rank computed for `computed` seconds."""
        if self.steps and self.steps % self._width == 0:
            if len(self.computed) == WINDOWS:  # merge pairs of windows
                self.computed = [a + b for a, b in zip(self.computed[::2], self.computed[1::2], strict=True)]
                self._width *= 2
            if self.steps % self._width == 0:
                self.computed.append(0.0)
        self.computed[-1] += computed
        self.steps += 1

    @property
    def noise(self) -> float:
        """The standard deviation of the computing seconds from step to step, if steps vary independently."""
        complete = np.array(self.computed[: self.steps // self._width])
        return float(np.std(complete) / np.sqrt(self._width)) if complete.size > 1 else 0.0

    def phases(self, total: float, slowest: np.ndarray, longest: float) -> dict[str, float]:
        """Split the `longest` time of any rank into phases, for this rank with a time of `total`.

        `slowest` is the computing time of the slowest rank in each window. A rank that computed less waited for that
        rank in its exchanges and reductions: this part of them is idle time, and so is the time after its own end.
        """
        computed, waited = float(sum(self.computed)), self.communicated()
        idle = min(waited, float(np.sum(slowest - self.computed)))
        busy = (waited - idle) / waited if waited else 0.0
        seconds = {"compute": computed, "idle": idle, "checkpoint": self.seconds["checkpoint"]}
        seconds |= {name: busy * self.seconds[name] for name in ("exchange", "reduce")}
        seconds["other"] = max(0.0, total - sum(seconds.values()))
        seconds["idle"] += longest - total
        return {name: seconds[name] for name in PHASES}
