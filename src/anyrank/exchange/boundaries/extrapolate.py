"""Extrapolate: ghost cells continue the domain linearly."""

from __future__ import annotations

from anyrank.exchange.boundaries.boundary import Boundary, Side


class Extrapolate(Boundary):
    """Ghost cells are on the line through the last two points of the domain."""

    name = "extrapolate"
    arithmetic = True

    def fill(self, side: Side) -> None:
        """See `Boundary`."""
        slope = side[0] - side[1]
        for layer in range(-side.layers, 0):
            side[layer] = side[0] + slope * -layer

    def points(self, layers: int, on_wall: bool) -> int:
        """See `Boundary`."""
        return 2
