"""A function of the user as a boundary condition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from anyrank.exchange.boundaries.boundary import Boundary, Side


class Function(Boundary):
    """Ghost cells are computed by a function of the user.

    `function(inside, *indices, step)` gets the layers of the domain next to the wall, one more than there are ghost
    layers and the nearest first; their global indices, one array per axis; and the step. It returns the ghost layers,
    the nearest first, or one array for all of them. Each value must depend only on the values and indices that have the
    same position along the wall.
    """

    arithmetic = True

    def __init__(self, function: Callable[..., Any]):
        super().__init__()
        self._function = function

    def fill(self, side: Side) -> None:
        """See `Boundary`."""
        inside = [_read_only(side[layer]) for layer in range(side.halo + 1)]
        with np.errstate(all="ignore"):  # ghost cells of other axes that no kernel reads may be 0
            result = self._function(inside, *side.indices(0), side.step)
        several = isinstance(result, Sequence)
        returned = [*result] if several else [result]
        if len(returned) not in (1, side.halo, side.layers):
            raise side.error(
                f"{self} returned {len(returned)} layers for a halo of {side.halo}. Return one array for each layer, "
                "the nearest to the wall first, or one array for all."
            )
        what = f"a layer of {self}" if several else f"the result of {self}"
        for layer in range(side.layers):  # may be one more than the halo; no kernel uses that one
            side[-1 - layer] = side.check(what, returned[min(layer, len(returned) - 1)])

    def points(self, layers: int, on_wall: bool) -> int:
        """See `Boundary`."""
        return layers + 1

    def __str__(self) -> str:
        return f"function {getattr(self._function, '__name__', 'of the program')}"


def _read_only(view: Any) -> Any:
    """Return a view of a layer that the function cannot write on the host."""
    if isinstance(view, np.ndarray):
        view.flags.writeable = False
    return view
