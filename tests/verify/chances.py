"""A program that depends on every source of chance; for each there is a member of the state that shows it."""

import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI

from anyrank import Program, State, param

CLOCKS = (time.time, time.time_ns, time.monotonic, time.perf_counter, time.perf_counter_ns, MPI.Wtime)


class Chances(Program):
    """Stores into the state what must not be in it."""

    n: int = param(6, "values", ge=1)
    steps: int = param(1, "steps", ge=0)

    def declare(self, state: State) -> None:
        for name in ("small", "large"):
            state.field(name, (self.n if name == "small" else 1 << 18,))
        for name, value in (("clock", 0.0), ("seeds", 0.0), ("files", 0), ("hashes", 0), ("entropy", 0)):
            state.scalar(name, value)

    def step(self, state: State) -> None:
        used = [np.full(self.n, float(i)) for i in range(20)]
        del used  # NumPy keeps freed small arrays for reuse
        state.small[...] = np.empty(state.small.local.shape)
        state.large[...] = np.empty(state.large.local.shape)
        state.clock = sum(read() for read in CLOCKS)
        state.seeds = random.random() + np.random.default_rng().random() + np.random.random()
        with tempfile.TemporaryDirectory() as folder:
            for name in "cab":
                (Path(folder) / name).touch()
            with os.scandir(folder) as entries:
                names = [*os.listdir(folder), *(path.name for path in Path(folder).glob("*")), next(entries).name]  # noqa: PTH208
        state.files = int("".join(names).translate(str.maketrans("abc", "123")))
        state.hashes = hash("text")
        state.entropy = int.from_bytes(os.urandom(4), "little") if self.n == 5 else 0
