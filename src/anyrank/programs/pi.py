"""π from random points in the unit square."""

from __future__ import annotations

import math
from typing import Any

from anyrank.kernel import Kernel
from anyrank.layout import even_cuts
from anyrank.program import Program, param
from anyrank.state import State

QUARTER_CIRCLE = Kernel("quarter_circle")


class PiState(State):
    """The members of the State and their types."""

    hits: int


class Pi(Program[PiState]):
    """π from the fraction of random points that lie in the quarter circle (Metropolis and Ulam 1949).

    Point k has the coordinates of Philox for index k, so the hits do not depend on the rank that draws it. The
    test x² + y² < 1 uses integers. The standard error of 4·hits/points is 4·√(p(1 − p)/points) with p = π/4.
    A step draws one batch.

        anyrank run pi -n 2 --points 1e11        about 16 s on 2 cores
    """

    grows = ("points", "batch")
    points: int = param(1_000_000_000, "random points", ge=1, lt=2**63)
    seed: int = param(1, "seed of the random numbers", ge=0, lt=2**64)
    batch: int = param(1 << 28, "points per step, after which the run can stop", ge=1, lt=2**62)

    @property
    def steps(self) -> int:
        """The number of steps, one per batch."""
        return -(-self.points // self.batch)

    def declare(self, state: PiState) -> None:
        """Declare one Scalar: the hits so far."""
        state.scalar("hits", 0, description="points in the quarter circle so far")

    def step(self, state: PiState) -> None:
        """Draw this rank's part of the batch; hits are integers, so their sum over ranks is exact."""
        first = state.step * self.batch
        cuts = even_cuts(min(self.batch, self.points - first), state.world.size)
        begin, end = cuts[state.world.rank], cuts[state.world.rank + 1]
        state.hits += state.world.sum(QUARTER_CIRCLE(self.seed, 0, first + begin, end - begin))

    def observe(self, state: PiState) -> dict[str, Any]:
        """Return the estimate of π so far."""
        drawn = min(state.step * self.batch, self.points)
        return {"hits": state.hits, "pi": 4 * state.hits / drawn if drawn else math.nan}

    def result(self, state: PiState) -> dict[str, Any]:
        """Return π, its standard error, and its actual error."""
        share = state.hits / self.points
        pi = 4 * state.hits / self.points
        return {
            "pi": pi,
            "standard_error": 4 * math.sqrt(share * (1 - share) / self.points),
            "error": pi - math.pi,
            "hits": state.hits,
        }

    def work(self) -> tuple[float, str]:
        """Return the mean number of points per step."""
        return self.points / self.steps, "points"
