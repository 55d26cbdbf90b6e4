"""A program that only exchanges halos, to measure an exchange without overlapping computation."""

from anyrank import Program, State, param
from anyrank.exchange.halo import halo_of


class Halo(Program):
    """Three fields with a halo of 1; each step exchanges all three halos together."""

    rows: int = param(64, "cells along i", ge=1)
    columns: int = param(8192, "cells along j, which is the length of the edge between two ranks", ge=1)
    steps: int = param(2000, "exchanges", ge=0)

    def declare(self, state: State) -> None:
        """Declare three fields, as the weather does."""
        for name in "puv":
            state.field(name, (self.rows, self.columns), halo=1)

    def step(self, state: State) -> None:
        """Exchange the halos of all three fields."""
        halo = halo_of([state.p, state.u, state.v])
        halo.start()
        halo.finish()
