"""Boundary: the base class of boundary conditions, and the side of a domain that one of them fills."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from anyrank.errors import UsageError

#: The value of a condition: a number, or a function of one global index array per axis and of the step.
Value = float | complex | Callable[..., Any]


@dataclass(frozen=True)
class Side:
    """One side of the domain along one axis, in one array of a Field: layers of cells, counted from the wall.

    Layer 0 is the first layer of the domain; layers −1, −2 … are ghost cells outside. All layers have the full width of
    the array along the other axes, with ghost cells. If `on_wall`, the points of layer 0 are on the wall, as those of
    a staggered field are along its own axis; otherwise the wall is half a cell outside layer 0.
    """

    array: Any
    axis: int
    #: The field and the side, for messages.
    name: str
    #: The position of layer 0 along the axis of `array`, and the increment towards the inside of the domain: 1 or −1.
    first: int
    inward: int
    #: The width of the halo, and the number of ghost layers to fill, which may be one more.
    halo: int
    layers: int
    on_wall: bool
    #: The distance of two points along the axis.
    spacing: float
    #: Return the global indices of a layer: one array per axis of the grid, with shapes that broadcast.
    indices: Callable[[int], tuple[Any, ...]]
    step: int

    def __getitem__(self, layer: int) -> Any:
        return self.array[self._at(layer)]

    def __setitem__(self, layer: int, values: Any) -> None:
        self.array[self._at(layer)] = values

    def _at(self, layer: int) -> tuple[slice, ...]:
        position = self.first + layer * self.inward
        return (slice(None),) * self.axis + (slice(position, position + 1),)

    def mirror(self, layer: int) -> int:
        """Return the layer inside the domain that mirrors a ghost layer at the wall."""
        return -layer if self.on_wall else -layer - 1

    def value(self, value: Value, layer: int = 0) -> Any:
        """Return a number as it is, and call a function with the global indices of a layer and the step."""
        return self.check("its value", value(*self.indices(layer), self.step)) if callable(value) else value

    def check(self, what: str, values: Any) -> Any:
        """Return values of a function of the user; UsageError is raised if they do not fit a layer."""
        if values is None:
            raise self.error(f"{what} is None. Return the values from the function.")
        if np.iscomplexobj(values) and self.array.dtype.kind != "c":
            raise self.error(f"{what} is complex, for {self.array.dtype}. Return real values.")
        shape, layer = np.shape(values), self[0].shape
        if shape != layer and not broadcasts(shape, layer):
            raise self.error(
                f"{what} has the shape {shape}, and a layer of this rank the shape {layer}. Return an array of this "
                "shape, or of one that NumPy broadcasts to it, as those computed from the indices are."
            )
        return values

    def error(self, what: str) -> UsageError:
        """Return the error for a condition whose function is wrong."""
        return UsageError(f"boundary condition of {self.name}: {what}")


def broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Return whether NumPy broadcasts an array of a shape to the target."""
    ends = zip(reversed(shape), reversed(target), strict=False)
    return len(shape) <= len(target) and all(n in (1, m) for n, m in ends)


class Boundary:
    """A boundary condition of a Field on one side of an axis. A subclass with a `name` is a condition.

    `fill` sets the ghost cells outside the domain from cells inside it that have the same indices along the other
    axes. It must not depend on anything else, because ranks call it on parts of a side. Not collective.
    """

    name: ClassVar[str] = ""
    #: Whether the condition uses a value (`boundary_value`), and whether it computes with the values of the field.
    takes_value: ClassVar[bool] = False
    arithmetic: ClassVar[bool] = False
    kinds: ClassVar[dict[str, type[Boundary]]] = {}

    def __init_subclass__(cls) -> None:
        if cls.name:
            if cls.name in Boundary.kinds:
                raise TypeError(f"there are two boundary conditions with the name {cls.name}")
            Boundary.kinds[cls.name] = cls

    def __init__(self, value: Value = 0.0):
        self.value = value

    def fill(self, side: Side) -> None:
        """Set the ghost layers of a side."""
        raise NotImplementedError

    def on_wall(self, side: Side) -> None:
        """Set the points that are on the wall (layer 0 of a side with `on_wall`), if the condition prescribes them."""

    def points(self, layers: int, on_wall: bool) -> int:
        """Return the number of points that the domain needs along the axis."""
        return 1

    def __str__(self) -> str:
        return f"{self.name} {self.value!r}" if self.takes_value and not callable(self.value) else self.name
