"""HaloBlock: a rank's block of a distributed array, with its ghost cells and the array of the next values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from anyrank.device import Device
from anyrank.errors import UsageError
from anyrank.exchange.boundaries import Boundary, Periodic
from anyrank.layout import Layout

Region = tuple[slice, ...]


class OnGrid(Protocol):
    """The attributes of a Grid that its Fields use."""

    dims: tuple[str, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    units: tuple[str, ...]
    #: The axes along which a Field of the grid has points on the walls, one more than there are cells.
    staggered: set[int]

    @property
    def cells(self) -> Layout:
        """The domain decomposition of the cells."""

    @property
    def step(self) -> int:
        """The number of the present step."""


class HaloBlock:
    """A rank's block of a distributed array, with `margin` layers of ghost cells: what a halo exchange works on.

    `halo`, `margin`, `valid`, `sides` and the slices of a Region have one entry per axis of the grid; `layout` has one
    axis before these if the array has components.
    """

    def __init__(
        self,
        name: str,
        layout: Layout,
        dtype: DTypeLike,
        device: Device,
        *,
        halo: Sequence[int] = (),
        margin: Sequence[int] = (),
        sides: Sequence[tuple[Boundary, Boundary]] = (),
        grid: OnGrid | None = None,
        faces: Sequence[int] = (),
        on_faces: Sequence[int] = (),
        constant: bool = False,
        storage: Any = None,
    ):
        self.name, self.layout, self.dtype, self.device = name, layout, np.dtype(dtype), device
        self.grid, self.constant = grid, constant
        #: The axes along which its points are on the faces of cells with walls, one more than there are cells.
        self.faces = tuple(faces)
        #: The axes along which its points are on the lower faces of cells, with walls or periodic.
        self.on_faces = tuple(on_faces)
        #: The domain decomposition of the cells of the grid.
        self.cells = layout if grid is None else grid.cells
        self.halo = tuple(halo) or (0,) * self.cells.ndim
        self.margin = tuple(margin) or self.halo
        self.sides = tuple(sides) or ((Periodic(), Periodic()),) * self.cells.ndim
        #: Whether each axis of the grid is periodic.
        self.periodic = tuple(isinstance(low, Periodic) for low, _ in self.sides)
        last = [parts - 1 for parts in self.cells.grid]
        #: The walls at this rank's block: the axis, and 0 for its lower or 1 for its upper end.
        self.walls = tuple(
            (axis, end)
            for axis, position in enumerate(self.cells.position)
            for end in (0, 1)
            if not self.periodic[axis] and position == (0, last[axis])[end]
        )
        self.valid = (0,) * self.cells.ndim
        self.components = layout.shape[: layout.ndim - self.cells.ndim]
        self.block = tuple(slice(0, n) for n in layout.local_shape[len(self.components) :])
        #: Whether the values are final: those of a constant after the method `constants`.
        self.frozen = False
        #: What the first of several fields keeps: plans of `advance` by their ids, and halo exchanges by their names.
        self.plans: dict[tuple[int, ...], Any] = {}
        self.exchanges: dict[tuple[str, ...], Any] = {}
        self._storage = storage
        self._spare: Any = None

    @property
    def storage(self) -> Any:
        """The block with its margin, an array of the device."""
        if self._storage is None:
            self._storage = self._allocate()
        return self._storage

    @property
    def allocated(self) -> bool:
        """Whether `storage` is allocated."""
        return self._storage is not None

    @property
    def storage_shape(self) -> tuple[int, ...]:
        """The shape of `storage`, also before it is allocated."""
        sizes = zip(self.block, self.margin, self.surplus, strict=True)
        return (*self.components, *(s.stop + 2 * m + e for s, m, e in sizes))

    @property
    def offset(self) -> tuple[int, ...]:
        """The position of the first element of the block in `storage`."""
        return (0,) * len(self.components) + self.margin

    @property
    def surplus(self) -> tuple[int, ...]:
        """The layers that `storage` has in addition at the upper wall of each axis: those of staggered fields.

        All fields of a grid have arrays of one size, so that one region of indices exists in each of them.
        """
        staggered = self.staggered
        if not staggered:
            return (0,) * self.cells.ndim
        missing = staggered - {*self.faces}
        return tuple(int(axis in missing and (axis, 1) in self.walls) for axis in range(self.cells.ndim))

    @property
    def staggered(self) -> set[int]:
        """The axes along which a field of the grid has points on the walls."""
        return set() if self.grid is None else self.grid.staggered

    @property
    def writable(self) -> bool:
        """Whether the block may be written: other ranks have no copies of its values (for the runtime)."""
        return not any(self.valid) and not self.frozen

    def check_writable(self) -> None:
        """Raise UsageError if the block may not be written (for the runtime)."""
        if self.frozen:
            raise UsageError(
                f"the constant {self.name} is written after the method constants, which alone may set it: other ranks "
                "have copies of its values. Declare it with state.field if it changes."
            )
        if not self.writable:
            raise UsageError(
                f"field {self.name} is written between steps, but with --halo-steps 2 or more other ranks compute with "
                "copies of it. Write fields in setup and kernels alone, or leave --halo-steps out."
            )

    def _allocate(self) -> Any:
        return self.device.rows(self.storage_shape, 0, self.dtype, self.offset[-1])

    def within(self, region: Region, ring: Sequence[int] | None = None) -> Region:
        """Return a region of the block, extended by `ring` cells per axis, as an index of `storage`."""
        rings = ring or (0,) * len(region)
        return (slice(None),) * len(self.components) + tuple(
            slice(m + s.start - r, m + s.stop + r) for m, s, r in zip(self.margin, region, rings, strict=True)
        )

    def part(self, region: Region, ring: Sequence[int] | None = None) -> Any:
        """Return a view of a region of the block or ghost cells, extended by `ring` cells (for the runtime)."""
        return self.storage[self.within(region, ring)]

    def extended_block(self, depth: Sequence[int]) -> Region:
        """Return the region of the block with `depth` layers of ghost cells inside the domain (for the runtime)."""
        return tuple(
            slice(-d * ((axis, 0) not in self.walls), s.stop + d * ((axis, 1) not in self.walls))
            for axis, (s, d) in enumerate(zip(self.block, depth, strict=True))
        )

    @property
    def next_storage(self) -> Any:
        """The second array, for the next values (for the runtime)."""
        if self._spare is None:
            self._spare = self._allocate()
        return self._spare

    def swap(self) -> None:
        """Swap the arrays of the current and the next values (for the runtime)."""
        self._storage, self._spare = self._spare, self._storage

    def global_indices(self, region: Region) -> tuple[Any, ...]:
        """Return the global indices of a region of the block and its ghost cells, as `Field.indices` (for the runtime).

        The indices of ghost cells across a periodic boundary are those of their owners. Outside a wall they continue:
        they are negative, or not less than the shape.
        """
        numbers = [np.arange(a + s.start, a + s.stop) for a, s in zip(self.cells.start, region, strict=True)]
        owners = (i % n if wraps else i for i, n, wraps in zip(numbers, self.cells.shape, self.periodic, strict=True))
        return tuple(map(self.device.from_host, np.ix_(*owners)))
