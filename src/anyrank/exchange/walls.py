"""The walls of a domain at this rank's block of a Field, and their ghost cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from anyrank.exchange.block import HaloBlock
from anyrank.exchange.boundaries import Boundary, Side


def fill(field: HaloBlock, axes: Sequence[int] | None = None) -> None:
    """Fill the ghost cells outside the walls of a field, axis by axis; `axes` selects some axes. Not collective.

    Each axis is filled in the full width of the others. In a corner, therefore, the condition of the last axis applies,
    to ghost cells that the conditions of the other axes have filled.
    """
    if not field.walls:
        return
    _prescribe(field, 0)
    for boundary, side in _walls(field, 0, axes):
        if side.layers:
            boundary.fill(side)


def prescribe(field: HaloBlock) -> None:
    """Set the new values on walls, where a boundary condition prescribes them. Not collective."""
    if field.walls:
        _prescribe(field, 1)


def _prescribe(field: HaloBlock, ahead: int) -> None:
    # The points of a constant are data, on walls too.
    for boundary, side in _walls(field, ahead, () if field.constant else field.faces):
        boundary.on_wall(side)


def _walls(field: HaloBlock, ahead: int, axes: Sequence[int] | None) -> Iterator[tuple[Boundary, Side]]:
    """Yield the condition and the side of each wall at the block; `ahead` is the number of steps after this one."""
    for axis, end in field.walls if min(field.layout.local_shape) else ():
        if axes is None or axis in axes:
            yield field.sides[axis][end], _side(field, axis, end, ahead)


def _side(field: HaloBlock, axis: int, end: int, ahead: int) -> Side:
    margin, n, grid = field.margin[axis], field.block[axis].stop, field.grid
    dim, spacing, step = (axis, 1.0, 0) if grid is None else (grid.dims[axis], grid.spacing[axis], grid.step + ahead)
    if field.constant:
        step = 0  # also at a resume, so that its ghost cells are the same
    return Side(
        array=field.storage,
        axis=len(field.components) + axis,
        name=f"field {field.name}, {('lower', 'upper')[end]} side of axis {dim}",
        first=margin + (n - 1) * end,
        inward=1 - 2 * end,
        halo=field.halo[axis],
        layers=field.halo[axis] + field.surplus[axis] * end,
        on_wall=axis in field.faces,
        spacing=spacing,
        indices=lambda layer: _indices(field, axis, n - 1 - layer if end else layer),
        step=step,
    )


def _indices(field: HaloBlock, axis: int, position: int) -> tuple[Any, ...]:
    """Return the global indices of the layer at a position along an axis of the block, in the width of its storage."""
    sizes = zip(field.block, field.margin, field.surplus, strict=True)
    region = [slice(-m, s.stop + m + extra) for s, m, extra in sizes]
    region[axis] = slice(position, position + 1)
    return field.global_indices(tuple(region))
