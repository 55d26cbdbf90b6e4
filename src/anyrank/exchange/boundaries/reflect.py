"""Reflect: ghost cells mirror the domain."""

from __future__ import annotations

from anyrank.exchange.boundaries.boundary import Boundary, Side


class Reflect(Boundary):
    """The field is even about the wall: ghost cells are copies of the cells at the same distance inside."""

    name = "reflect"

    def fill(self, side: Side) -> None:
        """See `Boundary`."""
        for layer in range(-side.layers, 0):
            side[layer] = side[side.mirror(layer)]

    def points(self, layers: int, on_wall: bool) -> int:
        """See `Boundary`."""
        return layers + on_wall
