"""A program that records the cores and the threads of each rank; BLAS takes part in its state."""

import json
import os
from pathlib import Path
from threading import Thread

import numba
import numpy as np

from anyrank import Program, State, param


def affinities() -> list[list[int]]:
    """The cores of every thread of this process, and of a new thread; each distinct set once."""
    result = {frozenset(os.sched_getaffinity(int(task.name))) for task in Path("/proc/self/task").iterdir()}
    new = Thread(target=lambda: result.add(frozenset(os.sched_getaffinity(0))))
    new.start()
    new.join()
    return [sorted(cores) for cores in result]


class Showing(Program):
    """Adds numbers with BLAS, alike on all ranks."""

    folder: str = param(..., "where each rank leaves what it sees")
    steps: int = param(2, "steps")

    def declare(self, state: State) -> None:
        state.scalar("total", 0.0)

    def step(self, state: State) -> None:
        x = np.sin(np.arange(1_000_003.0))
        state.total += x @ x[::-1].copy()
        seen = {
            "cores": affinities(),
            "environment": {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")},
            "numba": numba.get_num_threads(),
        }
        (Path(self.folder) / f"{state.world.rank}.json").write_text(json.dumps(seen))
