"""Neumann: a given gradient at the wall."""

from __future__ import annotations

from anyrank.exchange.boundaries.boundary import Side
from anyrank.exchange.boundaries.reflect import Reflect


class Neumann(Reflect):
    """The derivative of the field along the outward normal of the wall is `value` (0 if not given).

    A ghost cell is f + value · d, with f at the same distance inside and d the distance of the two points: the
    difference across the wall is centred and of second order (LeVeque, Finite Difference Methods, SIAM 2007, 2.12).
    """

    name = "neumann"
    takes_value = arithmetic = True

    def fill(self, side: Side) -> None:
        """See `Boundary`."""
        for layer in range(-side.layers, 0):
            inside = side.mirror(layer)
            gradient, distance = side.value(self.value, layer), (inside - layer) * side.spacing
            side[layer] = side[inside] if _is_zero(gradient) else side[inside] + gradient * distance


def _is_zero(gradient: object) -> bool:
    return isinstance(gradient, int | float) and gradient == 0
