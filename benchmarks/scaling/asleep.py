"""Programs for the check of the model: a step is some computing, and then what they are named for.

Their computing is a sleep, in proportion to a rank's own part of the work: it stands in for the computing of hosts that
have cores of their own, where a few cores must do for all of them.
"""

import time

import numpy as np

from anyrank import Kernel, Program, State, exact, param


def smooth(new, T):
    """Replace each point by the mean of its neighbours."""
    new[...] = 0.25 * (T[:-2, 1:-1] + T[2:, 1:-1] + T[1:-1, :-2] + T[1:-1, 2:])


SMOOTH = Kernel(smooth)


class Asleep(Program):
    """What both have: a field, and a time for each of its rows."""

    rows: int = param(120, "rows", ge=1)
    columns: int = param(64, "columns", ge=1)
    fixed: float = param(0.001, "seconds of a step that do not depend on the rows", ge=0)
    row: float = param(0.0001, "seconds for each row of a rank", ge=0)
    steps: int = param(100, "steps", ge=0)

    def declare(self, state: State) -> None:
        """Declare the field."""
        state.field("T", (self.rows, self.columns), halo=1)

    def setup(self, state: State) -> None:
        """Set its values."""
        j, i = state.T.indices
        state.T[...] = np.float64(1) / (1 + j + i)

    def work(self) -> tuple[float, str]:
        """Count each row once per step."""
        return float(self.rows), "row-steps"

    def compute(self, state: State) -> None:
        """Sleep for this rank's rows, wherever they are cut."""
        rows, columns = state.T.layout.local_shape
        time.sleep(self.fixed + self.row * rows * columns / self.columns)


class Halos(Asleep):
    """An exchange of halos in every step."""

    def step(self, state: State) -> None:
        """Compute, and exchange."""
        self.compute(state)
        state.T.advance(SMOOTH)


class Sums(Asleep):
    """An exact sum in every step."""

    def declare(self, state: State) -> None:
        """Return the field, and its sum."""
        super().declare(state)
        state.scalar("total", 0.0)

    def step(self, state: State) -> None:
        """Compute, and sum."""
        self.compute(state)
        state.total = exact.sum(state.T)
