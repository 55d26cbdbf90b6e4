"""Fixed: ghost cells hold a value."""

from __future__ import annotations

from anyrank.exchange.boundaries.boundary import Boundary, Side


class Fixed(Boundary):
    """The ghost cells hold `value`, and so do the points on the wall of a field that is staggered along the axis."""

    name = "fixed"
    takes_value = True

    def fill(self, side: Side) -> None:
        """See `Boundary`."""
        for layer in range(-side.layers, 0):
            side[layer] = side.value(self.value, layer)

    def on_wall(self, side: Side) -> None:
        """See `Boundary`."""
        side[0] = side.value(self.value)
