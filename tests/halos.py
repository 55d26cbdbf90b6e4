"""Fields on all layouts of a world, and the expected values of their ghost cells."""

from __future__ import annotations

import numpy as np

from anyrank.device import Device
from anyrank.exchange.boundaries.declare import conditions
from anyrank.field import Field
from anyrank.layout import Layout, even_cuts, grids

#: The value outside fixed boundaries.
VALUE = -5.0


def make(layout, halo=1, boundary="periodic", dtype=np.float64, name="T", value=VALUE, device=None):
    sides = conditions(name, tuple(f"axis{axis}" for axis in range(layout.ndim)), boundary, value)
    return Field(name, layout, dtype, device or Device(), halo=(halo,) * layout.ndim, sides=sides)


def odd_cuts(n, parts, least):
    """Uneven cuts: the first part is as small as possible, the other parts share the rest."""
    rest = even_cuts(n - least, parts - 1) if parts > 1 else (n - least,)
    return (0, *(least + cut for cut in rest)) if parts > 1 else (0, n)


def layouts(shape, world, halo):
    for grid in grids(world.size, len(shape)):
        if all(n // p >= halo for n, p in zip(shape, grid, strict=True)):
            yield Layout(shape, world, [even_cuts(n, p) for n, p in zip(shape, grid, strict=True)])
            yield Layout(shape, world, [odd_cuts(n, p, halo) for n, p in zip(shape, grid, strict=True)])


def ghost_values(field, whole):
    """The expected padded block: the global array, continued periodically or with the value of a fixed boundary."""
    index = np.ix_(
        *(np.arange(a - h, b + h) for h, a, b in zip(field.halo, field.layout.start, field.layout.stop, strict=True))
    )
    value = next((low.value for low, _ in field.sides if low.name == "fixed"), 0)
    outside = np.zeros(field.array.shape, bool)
    wrapped = []
    for axis, (i, n) in enumerate(zip(index, field.shape, strict=True)):
        if not field.periodic[axis]:
            outside |= (i < 0) | (i >= n)
        wrapped.append(i % n)
    return np.where(outside, value, whole[tuple(wrapped)])
