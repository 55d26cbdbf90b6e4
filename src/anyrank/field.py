"""Field: a global array split over the ranks, and how it advances by a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anyrank.device import Device
from anyrank.digest import field_digest
from anyrank.exchange import Halo, Region, gather
from anyrank.kernel import Kernel
from anyrank.layout import Layout
from anyrank.world import World

#: A halo exchange overlaps with computing only where a rank has this many points: below, one call is faster.
OVERLAP_POINTS = 1 << 14


class Field:
    """A global array split by a Layout, with a halo.

    `array` is this rank's block with its halo, an array of the rank's device; `local` is the block alone, a
    view. Indexing reads and writes the block: `field[...] = values`. Made by `State.field`.
    """

    def __init__(
        self,
        name: str,
        layout: Layout,
        dtype: DTypeLike,
        device: Device,
        *,
        unit: str,
        description: str,
        halo: int,
        boundary: tuple[str, ...],
        boundary_value: float,
        dims: tuple[str, ...],
    ):
        self.name, self.layout, self.device = name, layout, device
        self.dtype = np.dtype(dtype)
        self.unit, self.description, self.dims = unit, description, dims
        self.halo, self.boundary, self.boundary_value = halo, boundary, boundary_value
        self.array = self._allocate()
        self._spare: Any = None
        self._halos: dict[tuple[str, ...], Halo] = {}

    def _allocate(self) -> Any:
        shape = tuple(n + 2 * self.halo for n in self.layout.local_shape)
        value = self.boundary_value if "fixed" in self.boundary and self.halo else 0
        array = self.device.full(shape, value, self.dtype)
        if value:
            array[self._interior] = 0
        return array

    def __repr__(self) -> str:
        return f"Field({self.name}, shape={self.shape}, dtype={self.dtype}, local={self.layout.local_shape})"

    @property
    def world(self) -> World:
        """The World whose ranks share the field."""
        return self.layout.world

    @property
    def shape(self) -> tuple[int, ...]:
        """The global shape."""
        return self.layout.shape

    @property
    def indices(self) -> tuple[np.ndarray, ...]:
        """The global indices of the block, one int64 array per axis, shaped to broadcast together."""
        return self.layout.indices

    @property
    def _interior(self) -> Region:
        return tuple(slice(self.halo, self.halo + n) for n in self.layout.local_shape)

    @property
    def local(self) -> Any:
        """This rank's block without its halo: a view of `array`."""
        return self.array[self._interior]

    def __getitem__(self, key: Any) -> Any:
        return self.local[key]

    def __setitem__(self, key: Any, values: Any) -> None:
        self.local[key] = self.device.from_host(values) if isinstance(values, np.ndarray) else values

    def padded(self, region: Region) -> Any:
        """A region of the block with its ring of halo cells: a view."""
        return self.array[tuple(slice(s.start, s.stop + 2 * self.halo) for s in region)]

    @property
    def nbytes(self) -> int:
        """The bytes of this rank's arrays, the second one included where `advance` has made it."""
        return int(self.array.nbytes) * (1 if self._spare is None else 2)

    def exchange(self) -> None:
        """Fill the halo with the neighbours' values. Collective."""
        halo = self.halo_with([self])
        halo.start()
        halo.finish()

    def advance(self, kernel: Kernel, *rest: Any) -> None:
        """`advance([self], kernel, *rest)`. Collective."""
        advance([self], kernel, *rest)

    def halo_with(self, fields: Sequence[Field]) -> Halo:
        """The exchange of these fields' halos together; collective when it is new."""
        key = tuple(field.name for field in fields)
        if key not in self._halos:
            self._halos[key] = Halo(fields, self.layout.world.tag())
        return self._halos[key]

    def next(self, region: Region) -> Any:
        """A region of the block in the array that holds the next values while `advance` computes them: a view."""
        if self._spare is None:
            self._spare = self._allocate()
        return self._spare[tuple(slice(s.start + self.halo, s.stop + self.halo) for s in region)]

    def swap(self) -> None:
        """Make the next values the current ones."""
        self.array, self._spare = self._spare, self.array

    def digest(self) -> int:
        """The digest of the whole field, 64 bits, the same on all ranks. Collective."""
        return field_digest(self)

    def gather(self, stride: int = 1) -> np.ndarray | None:
        """Every `stride`-th element along every axis as one array on rank 0, None elsewhere. Collective."""
        return gather(self.layout, self.device.to_host(self.local), stride)


def advance(fields: Sequence[Field], kernel: Kernel, *rest: Any) -> None:
    """Replace the fields by what the kernel makes of them, exchanging their halos meanwhile. Collective.

    The kernel is called as `kernel(*new, *current, *rest)` on regions of the block: `new` are views to be
    written, of the region's shape; `current` are views with their halo around the region; a Field in
    `rest` becomes its view of the region, which the kernel may update in place; all else, arrays too, is
    passed whole. The interior is computed while halos travel, its border when they are there.
    Raises ValueError where a Field in `rest` has another layout.
    """
    for item in rest:
        if isinstance(item, Field) and item.layout.cuts != fields[0].layout.cuts:
            raise ValueError(f"advance: {item.name} {item.shape} is split otherwise than {fields[0].name}")
    halo = fields[0].halo_with(fields)
    whole = tuple(slice(0, n) for n in fields[0].layout.local_shape)
    inner, borders = halo.regions()
    overlap = bool(borders) and np.prod([s.stop - s.start for s in inner]) >= OVERLAP_POINTS
    halo.start()
    if overlap:
        _call(kernel, fields, inner, rest)
    halo.finish()
    for region in borders if overlap else [whole]:
        _call(kernel, fields, region, rest)
    for field in fields:
        field.swap()


def _call(kernel: Kernel, fields: Sequence[Field], region: Region, rest: Sequence[Any]) -> None:
    new = [field.next(region) for field in fields]
    current = [field.padded(region) for field in fields]
    kernel(*new, *current, *(item.local[region] if isinstance(item, Field) else item for item in rest))
