"""Programs to test the performance model: each step computes, and then exchanges halos or sums.

The computing is a sleep whose length is proportional to the rank's part of the work. So a few cores
can simulate many hosts as if each host had cores of its own.
"""

import time

import numpy as np

from anyrank import Kernel, Program, State, exact, param


def smooth(new, T):
    """Replace each point by the mean of its neighbours."""
    new[...] = 0.25 * (T[:-2, 1:-1] + T[2:, 1:-1] + T[1:-1, :-2] + T[1:-1, 2:])


SMOOTH = Kernel(smooth)


class Asleep(Program):
    """The common part: a field, and a sleep whose length is proportional to the rank's rows."""

    rows: int = param(120, "rows", ge=1)
    columns: int = param(64, "columns", ge=1)
    fixed: float = param(0.001, "seconds of a step that do not depend on the rows", ge=0)
    row: float = param(0.0001, "seconds for each row of a rank", ge=0)
    steps: int = param(100, "steps", ge=0)

    def declare(self, state: State) -> None:
        """Declare the field."""
        state.field("T", (self.rows, self.columns), halo=1)

    def setup(self, state: State) -> None:
        """Set the values of the field."""
        j, i = state.T.indices
        state.T[...] = np.float64(1) / (1 + j + i)

    def work(self) -> tuple[float, str]:
        """Return the number of rows."""
        return float(self.rows), "row-steps"

    def compute(self, state: State) -> None:
        """Sleep in proportion to the cells of this rank."""
        rows, columns = state.T.layout.local_shape
        time.sleep(self.fixed + self.row * rows * columns / self.columns)


class Halos(Asleep):
    """A halo exchange in every step."""

    def step(self, state: State) -> None:
        """Compute, then exchange the halo."""
        self.compute(state)
        state.T.advance(SMOOTH)


class Sums(Asleep):
    """An exact sum in every step."""

    def declare(self, state: State) -> None:
        """Declare the field and its sum."""
        super().declare(state)
        state.scalar("total", 0.0)

    def step(self, state: State) -> None:
        """Compute, then sum."""
        self.compute(state)
        state.total = exact.sum(state.T)
