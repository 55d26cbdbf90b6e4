"""Antireflect: ghost cells mirror the domain with the opposite sign."""

from __future__ import annotations

from anyrank.exchange.boundaries.boundary import Side
from anyrank.exchange.boundaries.reflect import Reflect


class Antireflect(Reflect):
    """The field minus `value` is odd about the wall, so that its value on the wall is `value` (0 if not given).

    A ghost cell is 2 value − f at the same distance inside. A wall that moves with the velocity U along itself sets
    the tangential velocity of a fluid in this way (Harlow and Welch, Phys. Fluids 8, 1965).
    """

    name = "antireflect"
    takes_value = arithmetic = True

    def fill(self, side: Side) -> None:
        """See `Boundary`."""
        for layer in range(-side.layers, 0):
            side[layer] = 2 * side.value(self.value, layer) - side[side.mirror(layer)]

    def on_wall(self, side: Side) -> None:
        """See `Boundary`."""
        side[0] = side.value(self.value)
