"""Wrong: values in files of the ranks are added in the order in which the files are listed."""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from anyrank import Program, State, param


class FileOrder(Program):
    """The sum of growing values, through a file for each row of four."""

    rows: int = param(24, "rows", ge=4)
    steps: int = param(6, "steps", ge=0)

    def declare(self, state: State) -> None:
        state.scalar("total", 0.0)
        state.field("x", (self.rows, 4))

    def setup(self, state: State) -> None:
        j, i = state.x.indices
        state.x[...] = state.random().normal(4 * j + i)

    def step(self, state: State) -> None:
        world, (first, column) = state.world, state.x.layout.start
        state.x[...] = 1.1 * state.x.local
        folder = Path(world.bcast(tempfile.mkdtemp() if world.rank == 0 else None))
        for row, values in enumerate(state.x.local, first):
            np.save(folder / f"{row}-{column}.npy", values)
        world.barrier()
        total = 0.0
        for file in folder.iterdir():  # right: exact.sum(state.x), and no files; or at least sorted(…)
            total += float(np.load(file).sum())
        state.total = total
        world.barrier()
        if world.rank == 0:
            shutil.rmtree(folder)
