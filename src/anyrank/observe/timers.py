"""Timers: what the time of a run's steps is spent on, phase by phase, and what its ranks send meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np

#: What the time of steps is spent on: `idle` is waiting for slower ranks, `other` what the loop itself takes.
PHASES = ("compute", "exchange", "reduce", "checkpoint", "idle", "other")
#: Computing is told apart in at most so many windows of equally many steps.
WINDOWS = 1024


class Timers:
    """One rank's seconds by phase, and its traffic. Cheap enough for every message.

    `start` and `stop` enclose a phase; where one lies within another, all counts as the outer one.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.seconds = {"exchange": 0.0, "reduce": 0.0, "checkpoint": 0.0}
        self.traffic = {"messages": 0, "bytes": 0, "reductions": 0, "reduced": 0}
        self.steps, self.computed, self._width, self._depth = 0, [0.0], 1, 0

    def start(self) -> float:
        """Begin a phase; what `stop` is to be given."""
        self._depth += 1
        return perf_counter()

    def stop(self, phase: str, began: float) -> None:
        """End it."""
        self._depth -= 1
        if not self._depth:
            self.seconds[phase] += perf_counter() - began

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """A phase as a block."""
        began = self.start()
        try:
            yield
        finally:
            self.stop(phase, began)

    def count(self, number: str, size: str, n_bytes: int, times: int = 1) -> None:
        """So many bytes went out in so many messages, or into a reduction; not within a phase such as a checkpoint."""
        if not self._depth:
            self.traffic[number] += times
            self.traffic[size] += n_bytes

    def communicated(self) -> float:
        """Seconds in exchanges and reductions so far."""
        return self.seconds["exchange"] + self.seconds["reduce"]

    def step(self, computed: float) -> None:
        """A step is over, in which this rank computed so many seconds."""
        if self.steps and self.steps % self._width == 0:
            if len(self.computed) == WINDOWS:  # half as many windows, each twice as wide
                self.computed = [a + b for a, b in zip(self.computed[::2], self.computed[1::2], strict=True)]
                self._width *= 2
            if self.steps % self._width == 0:
                self.computed.append(0.0)
        self.computed[-1] += computed
        self.steps += 1

    @property
    def noise(self) -> float:
        """The standard deviation of the computing seconds from step to step, if steps vary independently."""
        whole = np.array(self.computed[: self.steps // self._width])
        return float(np.std(whole) / np.sqrt(self._width)) if whole.size > 1 else 0.0

    def phases(self, total: float, slowest: np.ndarray, longest: float) -> dict[str, float]:
        """The `longest` seconds of any rank by phase, where this one took `total`.

        `slowest` is what the slowest rank computed in each window. A rank that computed less had to wait for that one
        in its exchanges and reductions: so much of them is idle, and so is the time after its own end.
        """
        computed, waited = float(sum(self.computed)), self.communicated()
        idle = min(waited, float(np.sum(slowest - self.computed)))
        left = (waited - idle) / waited if waited else 0.0
        found = {"compute": computed, "idle": idle, "checkpoint": self.seconds["checkpoint"]}
        found |= {name: left * self.seconds[name] for name in ("exchange", "reduce")}
        found["other"] = max(0.0, total - sum(found.values()))
        found["idle"] += longest - total
        return {name: found[name] for name in PHASES}
