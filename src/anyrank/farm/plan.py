"""Which tasks there are to do and in which order, and how they are tried."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Policy:
    """How tasks are tried: largest number of attempts, seconds before the second one, limits of time and memory.

    `expires` is the time of the clock after which no task starts; `most_failures` ends the farm.
    """

    attempts: int = 1
    backoff: float = 1.0
    timeout: float = math.inf
    memory: float = math.inf
    expires: float = math.inf
    most_failures: float = math.inf


class Plan:
    """Which tasks there are to do, and in which order. The same on all ranks.

    Parameters
    ----------
    todo : bool array
        For each task, whether it must be done.
    cost : float array or None
        For each task, its expected length: long tasks come first.
    needs : list of (task, needed task)
        Which tasks must be done before others.
    """

    def __init__(self, todo: np.ndarray, cost: np.ndarray | None, needs: list[tuple[int, int]]):
        self.total = int(todo.sum())
        open_needs = [(task, needed) for task, needed in needs if todo[needed]]
        waiting = np.array([task for task, _ in open_needs], np.int64)
        self.needs = np.bincount(waiting, minlength=len(todo)).astype(np.int64) if needs else None
        self.needed_by: dict[int, list[int]] = {}
        for task, needed in open_needs:
            self.needed_by.setdefault(needed, []).append(task)
        self._ready = np.flatnonzero(todo if self.needs is None else todo & (self.needs == 0))
        if cost is not None:
            self._ready = self._ready[np.argsort(-cost[self._ready], kind="stable")]
        self._first = self._rows = len(todo)
        #: The number of tasks that need no other one.
        self.count = len(self._ready)

    def extend(self, rows: int) -> None:
        """Add the tasks that have arrived, so that there are so many rows. All ranks must do so together."""
        self.total += rows - self._rows
        self.count += rows - self._rows
        self._rows = rows

    def ready(self, first: int, last: int) -> list[int]:
        """Return some of the tasks that need no other one, by their place in the order."""
        known, shift = len(self._ready), self._first - len(self._ready)
        new = range(max(first, known) + shift, max(last, known) + shift)
        return [*self._ready[first:last].tolist(), *new]
