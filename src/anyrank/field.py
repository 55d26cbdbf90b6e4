"""Field: a global array, distributed over the ranks, and `advance`, which replaces its values in a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anyrank.device import Device
from anyrank.errors import UsageError
from anyrank.exchange import Halo, Region, gather
from anyrank.kernel import Kernel
from anyrank.layout import Layout
from anyrank.member import Source, Stored
from anyrank.numerics.digest import local_digest
from anyrank.world import World

#: The number of points per rank from which a halo exchange overlaps with computing; with fewer, one call of the kernel
#: is faster. On a GPU it always overlaps: a call returns at once, and the edges are copied to the host meanwhile.
OVERLAP_POINTS = 1 << 14
#: The types of indices that give a view.
_VIEWS = (int, slice, type(None), type(Ellipsis))


class Field:
    """A global array, distributed by a Layout, with a halo. `State.field` creates it.

    `array` is this rank's block with its halo, and `local` the block without it; both are views of an array of the
    rank's device. Indexing reads and writes the block: `field[...] = values`.

    `storage` is allocated at its first use and holds the block with `margin` layers of ghost cells. `margin` is the
    width of the halo, or more if halos are exchanged only once in several steps. Between the exchanges this rank then
    also computes ghost cells: `valid` is the number of layers that are equal to the values of their owners. While
    `valid` is not 0, only kernels may write the field, because other ranks would not notice a change.

    Examples
    --------
    >>> u = State(World()).field("u", (4,), halo=1)
    >>> u[...] = u.indices[0]
    >>> u.exchange()
    >>> u.array
    array([3., 0., 1., 2., 3., 0.])
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
        margin: int | None = None,
        storage: Any = None,
        group: str = "fields",
    ):
        self.name, self.layout, self.device = name, layout, device
        #: The name of its dataset in a checkpoint.
        self.path = f"{group}/{name}"
        self.dtype = np.dtype(dtype)
        self.unit, self.description, self.dims = unit, description, dims
        self.halo, self.boundary, self.boundary_value = halo, boundary, boundary_value
        self.margin = halo if margin is None else margin
        self.valid = 0
        self._block = tuple(slice(0, n) for n in layout.local_shape)
        self._storage = storage
        self._spare: Any = None
        self._halos: dict[tuple[str, ...], Halo] = {}

    @classmethod
    def from_array(
        cls, name: str, layout: Layout, array: np.ndarray, dims: tuple[str, ...], description: str, group: str
    ) -> Field:
        """Return a Field, without a halo, of an array of the host, such as a column of a Table (for the runtime).

        The array is the block. `group` is the name of its group in a checkpoint.
        """
        options: dict[str, Any] = {"halo": 0, "boundary": ("fixed",) * array.ndim, "boundary_value": 0.0, "unit": ""}
        options |= {"dims": dims, "description": description, "storage": np.ascontiguousarray(array), "group": group}
        return cls(name, layout, array.dtype, Device(), **options)

    @property
    def storage(self) -> Any:
        """The block with its margin, an array of the device."""
        if self._storage is None:
            self._storage = self._allocate()
        return self._storage

    @property
    def storage_shape(self) -> tuple[int, ...]:
        """The shape of `storage`, also before it is allocated."""
        return tuple(n + 2 * self.margin for n in self.layout.local_shape)

    def _allocate(self) -> Any:
        value = self.boundary_value if "fixed" in self.boundary and self.halo else 0
        array = self.device.rows(self.storage_shape, value, self.dtype, self.margin)
        if value:  # for ghost cells outside the domain only
            array[self._within(self._block)] = 0
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
        """The global indices of the block: one int64 array per axis, with shapes that broadcast."""
        return self.layout.indices

    def _within(self, region: Region, ring: int = 0) -> Region:
        """Return a region of the block, extended by `ring` cells on all sides, as slices of `storage`."""
        return tuple(slice(self.margin + s.start - ring, self.margin + s.stop + ring) for s in region)

    def _view(self, ring: int) -> Any:
        """Return the block, extended by `ring` cells; read-only if `valid`, but not on a GPU: it has no such views."""
        view = self.part(self._block, ring)
        if self.valid and self.device.on_host:
            view.flags.writeable = False
        return view

    @property
    def array(self) -> Any:
        """The block of this rank with its halo: a view."""
        return self._view(self.halo)

    @property
    def local(self) -> Any:
        """The block of this rank without its halo: a view."""
        return self._view(0)

    def __getitem__(self, key: Any) -> Any:
        return self.local[self._index(key)]

    def __setitem__(self, key: Any, values: Any) -> None:
        if self.valid:
            raise UsageError(
                f"field {self.name} is written between steps, but with --halo-steps 2 or more other ranks compute with "
                "copies of it. Write fields in setup and kernels alone, or leave --halo-steps out."
            )
        parts = key if isinstance(key, tuple) else (key,)
        if self.device.on_host or not isinstance(values, np.ndarray | list | tuple):
            self.local[self._index(key)] = values
        elif all(type(part) in _VIEWS for part in parts):  # without a temporary array on the device
            self.device.write(self.local[key], np.asarray(values))
        else:
            self.local[self._index(key)] = self._on_device(np.asarray(values).astype(self.dtype, copy=False))

    def _on_device(self, values: Any) -> Any:
        """Return an array, list or tuple as an array of the device; other values unchanged."""
        return self.device.from_host(np.asarray(values)) if isinstance(values, np.ndarray | list | tuple) else values

    def _index(self, key: Any) -> Any:
        return tuple(map(self._on_device, key)) if isinstance(key, tuple) else self._on_device(key)

    def check_boundary(self) -> None:
        """Raise UsageError if this rank's ghost cells outside a fixed boundary were changed (for the runtime).

        These cells are not in checkpoints and are not copied to the next values, so that a change would be lost.
        """
        ends = zip(self.boundary, self.layout.start, self.layout.stop, self.shape, strict=True)
        for axis, (kind, first, last, n) in enumerate(ends):
            outside = [slice(0, self.halo)] * (first == 0) + [slice(-self.halo, None)] * (last == n)
            for end in outside if self.halo and kind == "fixed" and self.local.size else ():
                ghosts = self.device.to_host(self.part(self._block, self.halo)[(slice(None),) * axis + (end,)])
                if not np.array_equal(ghosts, np.full_like(ghosts, self.boundary_value), self.dtype.kind in "fc"):
                    what = f"setup wrote ghost cells outside the fixed boundary of axis {axis}"
                    raise UsageError(
                        f"field {self.name}: {what}, which hold boundary_value={self.boundary_value} in every step. "
                        "Declare the field with that value, or keep other values in cells of the domain."
                    )

    def part(self, region: Region, ring: int = 0) -> Any:
        """Return a view of a region of the block or ghost cells, extended by `ring` cells (for the runtime)."""
        return self.storage[self._within(region, ring)]

    def extended_block(self, depth: int) -> Region:
        """Return the region of the block with `depth` layers of ghost cells inside the domain (for the runtime)."""
        layout, region = self.layout, []
        for n, kind, g, parts in zip(layout.local_shape, self.boundary, layout.position, layout.grid, strict=True):
            below = depth if kind == "periodic" or g > 0 else 0
            above = depth if kind == "periodic" or g < parts - 1 else 0
            region.append(slice(-below, n + above))
        return tuple(region)

    @property
    def nbytes(self) -> int:
        """The bytes of this rank's arrays, with the second one if `advance` has allocated it."""
        return prod(self.storage_shape) * self.dtype.itemsize * (1 if self._spare is None else 2)

    def describe(self) -> str:
        """See `Member`."""
        edges = f"halo {self.halo} {'/'.join(self.boundary)} {self.boundary_value!r}"
        split = "x".join(map(str, self.layout.grid))
        return f"field {self.dtype} {self.shape} ({', '.join(self.dims)}) {edges} split {split} {self.unit}".rstrip()

    def kinds(self) -> Mapping[str, str]:
        """See `Member`."""
        return {self.name: f"{self.dtype.str} {self.shape}"}

    def stored(self) -> Stored:
        """See `Member`."""
        return {self.name: self}

    def load(self, source: Source) -> None:
        """See `Member`."""
        source.fill(self)

    def exchange(self) -> None:
        """Fill the halo with the values of the neighbours. Collective."""
        halo = self.halo_with([self])
        halo.start()
        halo.finish()

    def advance(self, kernel: Kernel, *rest: Any) -> None:
        """Replace the values by those that a kernel computes from them: `advance([self], kernel, *rest)`. Collective.

        Parameters
        ----------
        kernel, *rest
            See `advance`.
        """
        advance([self], kernel, *rest)

    def halo_with(self, fields: Sequence[Field]) -> Halo:
        """Return the halo exchange of several fields (for the runtime). The first call for them is collective."""
        key = tuple(field.name for field in fields)
        if key not in self._halos:
            self._halos[key] = Halo(fields, self.layout.world.tag())
        return self._halos[key]

    def next(self, region: Region) -> Any:
        """Return a view of a region in the second array, for the next values (for the runtime)."""
        if self._spare is None:
            self._spare = self._allocate()
        return self._spare[self._within(region)]

    def swap(self) -> None:
        """Swap the arrays of the current and the next values (for the runtime)."""
        self._storage, self._spare = self._spare, self._storage

    def digest(self) -> int:
        """Return the digest of the whole field, 64 bits, the same on all ranks. Collective."""
        own = local_digest(self.local, self.layout.shape, self.layout.start)
        return int(self.world.allreduce(np.array([own], np.uint64))[0])

    def gather(self, stride: int = 1) -> np.ndarray | None:
        """Return the global array, or a part of it, on rank 0, and None on other ranks. Collective.

        Parameters
        ----------
        stride : int
            The distance of the gathered elements along every axis.
        """
        return gather(self.layout, self.local, stride, self.device.to_host)


def advance(fields: Sequence[Field], kernel: Kernel, *rest: Any) -> None:
    """Replace the values of fields by those that a kernel computes from them, and exchange halos. Collective.

    Parameters
    ----------
    fields : sequence of Field
        The fields to replace. `new` are views for the results, of the shape of the region; `current` are views of the
        present values with their halo around the region.
    kernel : Kernel
        It is called as `kernel(*new, *current, *rest)` on regions of the block. The interior is computed during the
        halo exchange, and the border after it: the regions depend on the size of the block and on the ranks. Therefore
        the kernel must compute each point only from the arguments at this point and its neighbours. Data that depends
        on the point, such as indices or a mask, must be a Field in `rest`.
    *rest
        Further arguments. A Field is passed as its view of the region, which the kernel may update in place; everything
        else, also an array, is passed unchanged.

    Raises
    ------
    UsageError
        If a Field has another layout than the first one, or a Field in `rest` has a halo. It is raised before any work.

    Notes
    -----
    If the margin of the fields is wider than their halo, ghost cells are computed as well, one layer less in each step,
    and halos are exchanged when no valid layer is left (Ding and He, A ghost cell expansion method for reducing
    communications in solving PDE problems, SC 2001; Demmel et al., Avoiding communication in sparse matrix
    computations, IPDPS 2008).

    Examples
    --------
    >>> u = State(World()).field("u", (4,), halo=1)
    >>> u[...] = [0.0, 0.0, 4.0, 0.0]
    >>> advance([u], Kernel(lambda new, old: np.add(old[:-2], old[2:], out=new)))
    >>> u.local
    array([0., 4., 0., 4.])
    """
    first, others = fields[0], [item for item in rest if isinstance(item, Field)]
    _check_fields(fields, others)
    halo, depth = None, _depth(fields, others)
    if depth < 0:
        exchanged = _with_ghost_cells(fields, others)
        halo = first.halo_with(list(dict.fromkeys(exchanged)))
        for field in exchanged:
            field.valid = field.margin
        depth = _depth(fields, others)
    regions = [first.extended_block(depth)]
    if halo is not None:
        inner, borders = halo.regions(regions[0])
        halo.start()
        if borders and np.prod([s.stop - s.start for s in inner]) >= _overlap_from(first.device):
            _call(kernel, fields, inner, rest)
            regions = borders
        halo.finish()
    for region in regions:
        _call(kernel, fields, region, rest)
    for field in fields:
        field.swap()
    for field in (*fields, *others):
        field.valid = depth


def _check_fields(fields: Sequence[Field], others: Sequence[Field]) -> None:
    first = fields[0]
    for item in (*fields, *others):
        if item.layout.cuts != first.layout.cuts:
            raise UsageError(
                f"advance: field {item.name} {item.shape} and {first.name} {first.shape} are split differently, but "
                "the kernel gets one region of both. Give them one shape, or combine their arrays outside of advance."
            )
        if item.boundary != first.boundary and first.margin > first.halo:
            raise UsageError(
                f"field {item.name}: boundary {item.boundary} must be {first.boundary}, as that of {first.name}: with "
                "--halo-steps 2 or more they share a halo exchange. Declare it so, or leave --halo-steps out."
            )
    for item in others:
        if item.halo:
            raise UsageError(
                f"advance: field {item.name} is given after the kernel, where a Field is passed without its halo of "
                f"{item.halo}: a kernel that reads its neighbours would read other memory. Declare it with halo=0 if "
                f"the kernel reads only the value at each point, or list it with the fields that advance replaces: "
                f"advance([{first.name}, {item.name}], kernel), whose kernel writes both."
            )


def _with_ghost_cells(fields: Sequence[Field], others: Sequence[Field]) -> list[Field]:
    """Return the fields to exchange: `others` are only read, but also at ghost cells, if the kernel computes these."""
    return [*fields, *(item for item in others if item.margin > item.halo)]


def _overlap_from(device: Device) -> int:
    """Return the number of interior points from which the kernel is called during the exchange."""
    return OVERLAP_POINTS if device.on_host else 1


def _depth(fields: Sequence[Field], others: Sequence[Field]) -> int:
    """Return how many layers of ghost cells can be computed from the valid ones; negative if not even the block."""
    return min([*(field.valid - field.halo for field in fields), *(field.valid for field in others)])


def parts_of(region: Region) -> Sequence[Region]:
    """Return the disjoint regions on which `advance` calls a kernel to compute `region`: the region itself.

    `anyrank verify` replaces this function to find kernels that depend on how a block is cut.
    """
    return (region,)


def _call(kernel: Kernel, fields: Sequence[Field], region: Region, rest: Sequence[Any]) -> None:
    for part in parts_of(region):
        new = [field.next(part) for field in fields]
        current = [field.part(part, field.halo) for field in fields]
        kernel(*new, *current, *(item.part(part) if isinstance(item, Field) else item for item in rest))
