"""Periodic: ghost cells are copies of the opposite side."""

from __future__ import annotations

from anyrank.exchange.boundaries.boundary import Boundary, Side


class Periodic(Boundary):
    """Both sides of an axis are joined; the halo exchange copies the ghost cells from their owners."""

    name = "periodic"

    def fill(self, side: Side) -> None:
        """See `Boundary`: there is nothing to fill."""
