"""Boundary conditions as a program declares them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from anyrank.errors import UsageError
from anyrank.exchange.boundaries.boundary import Boundary
from anyrank.exchange.boundaries.function import Function
from anyrank.exchange.boundaries.periodic import Periodic

Sides = tuple[Boundary, Boundary]
#: A value for all sides; one for each axis, in a sequence or by the names of the axes; a pair for the sides of an axis.
Declared = Any


def per_side(what: str, given: Declared, dims: Sequence[str], default: Any) -> list[tuple[Any, Any]]:
    """Return what is given for the two sides of each axis. `what` begins the UsageError for another structure."""
    if isinstance(given, Mapping):
        unknown = [axis for axis in given if axis not in dims]
        if unknown:
            raise UsageError(f"{what}: there is no axis {unknown[0]!r}: the axes are {', '.join(dims)}.")
        axes = [given.get(axis, default) for axis in dims]
    elif isinstance(given, Sequence) and not isinstance(given, str):
        if len(given) != len(dims):
            names = ", ".join(dims)
            raise UsageError(
                f"{what} = {given!r} must have one entry for each of the axes {names}, or name them in a dict."
            )
        axes = [*given]
    else:
        axes = [given] * len(dims)
    return [_pair(f"{what} of axis {axis}", sides) for axis, sides in zip(dims, axes, strict=True)]


def _pair(what: str, given: Any) -> tuple[Any, Any]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        return given, given
    if len(given) != 2:
        raise UsageError(f"{what} = {given!r} must be one entry, or a pair for the lower and the upper side.")
    return given[0], given[1]


def conditions(
    what: str, dims: Sequence[str], boundary: Declared, value: Declared, default: Sequence[tuple[Any, Any]] = ()
) -> tuple[Sides, ...]:
    """Return the boundary conditions of the sides of each axis; `default` are those of the axes that have none.

    UsageError is raised if a condition or its value is not valid.
    """
    kinds = per_side(f"{what}: boundary", boundary, dims, None)
    values = per_side(f"{what}: boundary_value", value, dims, None)
    for_all = not isinstance(value, Mapping | Sequence)
    sides = []
    for axis, (pair, pair_of_values) in enumerate(zip(kinds, values, strict=True)):
        defaults = default[axis] if default else ("periodic", "periodic")
        names = [other if kind is None else kind for kind, other in zip(pair, defaults, strict=True)]
        where = f"{what}: boundary of axis {dims[axis]}"
        low, high = (_condition(where, kind, v, for_all) for kind, v in zip(names, pair_of_values, strict=True))
        if isinstance(low, Periodic) != isinstance(high, Periodic):
            raise UsageError(f"{where} is periodic on one side: it joins both sides. Declare both as periodic.")
        sides.append((low, high))
    return tuple(sides)


def _condition(where: str, kind: str | Callable[..., Any], value: Any, for_all: bool) -> Boundary:
    if callable(kind):
        return Function(kind)
    found = Boundary.kinds.get(kind)
    if found is None:
        raise UsageError(f"{where}: {kind!r} must be one of {', '.join(sorted(Boundary.kinds))}, or a function.")
    if value is None or (for_all and not found.takes_value):
        return found()
    if not found.takes_value:
        takers = ", ".join(sorted(name for name, other in Boundary.kinds.items() if other.takes_value))
        raise UsageError(f"{where}: {kind} takes no boundary_value ({value!r}): leave it out, or use one of {takers}.")
    if not callable(value) and not isinstance(value, int | float | complex | np.number):
        raise UsageError(f"{where}: boundary_value {value!r} must be a number, or a function of indices and step.")
    return found(value)


def check(
    what: str,
    sides: Sequence[Sides],
    shape: Sequence[int],
    halo: Sequence[int],
    at: set[int],
    dtype: np.dtype[Any],
) -> None:
    """Raise UsageError if a field of this shape, halo and dtype cannot have these conditions."""
    for axis, (pair, n, layers) in enumerate(zip(sides, shape, halo, strict=True)):
        for boundary in pair:
            needed = boundary.points(layers, axis in at) if layers else 1
            if n < needed:
                raise UsageError(
                    f"{what}: {boundary.name or 'a function'} needs {needed} points along axis {axis} for a halo of "
                    f"{layers}, which has {n}. Use more points."
                )
            if boundary.arithmetic and layers and dtype.kind in "bu":
                raise UsageError(f"{what}: {boundary} needs a dtype with negative values, and not {dtype}.")
            _check_value(what, boundary, dtype)


def _check_value(what: str, boundary: Boundary, dtype: np.dtype[Any]) -> None:
    if callable(boundary.value):
        return
    if isinstance(boundary.value, complex) and dtype.kind != "c":
        raise UsageError(f"{what}: boundary_value {boundary.value} is complex, but the dtype is {dtype}.")
    if dtype.kind in "iub" and dtype.type(boundary.value) != boundary.value:
        raise UsageError(f"{what}: boundary_value {boundary.value} is not a value of the dtype {dtype}.")
