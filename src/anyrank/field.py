"""Field: a global array, distributed over the ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anyrank.device import Device
from anyrank.errors import UsageError
from anyrank.exchange import gather
from anyrank.exchange.advance import advance
from anyrank.exchange.block import HaloBlock, OnGrid
from anyrank.exchange.boundaries import Boundary
from anyrank.exchange.boundaries.boundary import broadcasts
from anyrank.exchange.gather import allgather
from anyrank.exchange.halo import halo_of
from anyrank.exchange.points import Point, check_component, check_point, check_points, probe
from anyrank.exchange.read import read
from anyrank.kernel import Kernel
from anyrank.layout import Layout
from anyrank.member import Source, Stored
from anyrank.numerics.digest import local_digest
from anyrank.world import World

#: The types of indices that give a view.
_VIEWS = (int, slice, type(None), type(Ellipsis))


class Field(HaloBlock):
    """A global array, distributed by a Layout, with a halo. `State.field` or `Grid.field` creates it.

    `array` is this rank's block with its halo, and `local` the block without it; both are views of an array of the
    rank's device. Indexing reads and writes the block: `field[...] = values`.

    `storage` is allocated at its first use and holds the block with `margin` layers of ghost cells. `margin` is the
    width of the halo, or more if halos are exchanged only once in several steps. Between the exchanges this rank then
    also computes ghost cells: `valid` is the number of layers that are equal to the values of their owners. While
    `valid` is not 0, only kernels may write the field, because other ranks would not notice a change. `halo`,
    `margin`, `valid` and `sides` have one entry per axis of the grid; `layout`, `shape` and `local` have one more axis
    before these if the field has components.

    Examples
    --------
    >>> u = State(World()).field("u", (4,), halo=1)
    >>> u[...] = u.indices[0]
    >>> u.exchange()
    >>> u.array
    array([3., 0., 1., 2., 3., 0.])
    """

    #: Whether the block is not in memory.
    on_disk = False

    def __init__(
        self,
        name: str,
        layout: Layout,
        dtype: DTypeLike,
        device: Device,
        *,
        unit: str = "",
        description: str = "",
        dims: tuple[str, ...] = (),
        halo: Sequence[int] = (),
        margin: Sequence[int] = (),
        sides: Sequence[tuple[Boundary, Boundary]] = (),
        grid: OnGrid | None = None,
        faces: Sequence[int] = (),
        on_faces: Sequence[int] = (),
        constant: bool = False,
        storage: Any = None,
        group: str = "fields",
        frames: bool = False,
    ):
        placement: dict[str, Any] = {"halo": halo, "margin": margin, "sides": sides, "grid": grid}
        placement |= {"faces": faces, "on_faces": on_faces}
        super().__init__(name, layout, dtype, device, constant=constant, storage=storage, **placement)
        #: The name of its dataset in a checkpoint.
        self.path = f"{group}/{name}"
        self.unit, self.description, self.dims = unit, description, dims
        #: Whether a run writes it into frames.nc by default.
        self.frames = frames

    @classmethod
    def from_array(
        cls, name: str, layout: Layout, array: Any, dims: tuple[str, ...], description: str, group: str
    ) -> Field:
        """Return a Field, without a halo, of an array of the host, such as a column of a Table (for the runtime).

        The array is the block. `group` is the name of its group in a checkpoint.
        """
        array = array if cls.on_disk else np.ascontiguousarray(array)
        return cls(name, layout, array.dtype, Device(), dims=dims, description=description, storage=array, group=group)

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
    def indices(self) -> tuple[Any, ...]:
        """The global indices of the block: one int64 array of the device per axis, with shapes that broadcast."""
        return tuple(map(self.device.from_host, self.layout.indices))

    def _view(self, ring: Sequence[int], writable: bool) -> Any:
        """Return the block, extended by `ring` cells; a GPU has no read-only views."""
        view = self.part(self.block, ring)
        if not writable and self.device.on_host:
            view.flags.writeable = False
        return view

    @property
    def array(self) -> Any:
        """The block of this rank with its halo: a view, read-only on the host. Write the block through `local`."""
        return self._view(self.halo, writable=not any(self.halo) and self.writable)

    @property
    def local(self) -> Any:
        """The block of this rank without its halo: a view."""
        return self._view((), writable=self.writable)

    def __getitem__(self, key: Any) -> Any:
        with self._explained(key):
            return self.local[self._index(key)]

    def __setitem__(self, key: Any, values: Any) -> None:
        self.check_writable()
        with self._explained(key, values):
            self._set(key, values)

    @contextmanager
    def _explained(self, key: Any, values: Any = None) -> Iterator[None]:
        """Raise an error of an index, or of the shape of values, as UsageError."""
        try:
            yield
        except IndexError as error:
            first = ", the components first" if self.components else ""
            raise UsageError(
                f"field {self.name}: {error}. Indices count within the block of this rank, of shape "
                f"{self.local.shape}{first}. Use state.{self.name}.at(…) for a point of the whole field."
            ) from error
        except ValueError as error:
            target, shape = self.local[self._index(key)].shape, np.shape(values)
            if broadcasts(shape, target):
                raise
            raise UsageError(
                f"field {self.name}: values of shape {shape} cannot be stored in this part of the block, of shape "
                f"{target}. Compute the values of the block from state.{self.name}.indices, or use values[state."
                f"{self.name}.layout.slices] if they are those of the whole field, of shape {self.shape}."
            ) from error

    def _set(self, key: Any, values: Any) -> None:
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

    @property
    def nbytes(self) -> int:
        """The bytes of this rank's arrays, with the second one if `advance` has allocated it."""
        return prod(self.storage_shape) * self.dtype.itemsize * (1 if self._spare is None else 2)

    def describe(self) -> str:
        """See `Member`."""
        sides = [str(low) if str(low) == str(high) else f"{low} to {high}" for low, high in self.sides]
        edges = ", ".join(f"halo {h} {side}" for h, side in zip(self.halo, sides, strict=True))
        split = "x".join(map(str, self.layout.grid))
        kind = "constant" if self.constant else "field"
        return f"{kind} {self.dtype} {self.shape} ({', '.join(self.dims)}) {edges} split {split} {self.unit}".rstrip()

    def kinds(self) -> Mapping[str, str]:
        """See `Member`."""
        return {} if self.constant else {self.name: f"{self.dtype.str} {self.shape}"}

    def stored(self) -> Stored:
        """See `Member`."""
        return {} if self.constant else {self.name: self}

    def load(self, source: Source) -> None:
        """See `Member`."""
        if not self.constant:
            source.fill(self)

    def exchange(self) -> None:
        """Fill the halo with the values of the neighbours, and by the boundary conditions. Collective."""
        halo = halo_of([self])
        halo.start()
        halo.finish()

    def advance(self, kernel: Kernel, *rest: Any, reads: Sequence[Field] = ()) -> None:
        """Replace the values by those of a kernel: `advance([self], kernel, *rest, reads=reads)`. Collective.

        Parameters
        ----------
        kernel, *rest, reads
            See `advance`.
        """
        advance([self], kernel, *rest, reads=reads)

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

    def allgather(self) -> np.ndarray:
        """Return the global array on all ranks. Collective.

        Every rank then holds the whole array, so that the memory of a rank limits the size of the domain. Use `gather`
        for the array on rank 0 or a part of it, and `probe` for a few points.

        Returns
        -------
        ndarray
            A new NumPy array of the global shape, the same on all ranks.

        Examples
        --------
        >>> u = State(World()).field("u", (4,))
        >>> u[...] = u.indices[0]
        >>> u.allgather()
        array([0., 1., 2., 3.])
        """
        return allgather(self.layout, self.device.to_host(self.local))

    def at(self, *index: int, component: int | None = None) -> Point:
        """Return one global point, with the methods `read`, `write` and `add`. Not collective.

        `read` is collective and returns the value on all ranks. `write` and `add` are called on all ranks, too, and
        change the value on the rank that owns the point, without a message.

        Parameters
        ----------
        *index : int
            The global index along each axis of the grid.
        component : int, optional
            The component of a field that has components; all of them if not given.

        Returns
        -------
        Point
            The point.

        Raises
        ------
        UsageError
            If there is no such point or component.

        Examples
        --------
        >>> T = State(World()).field("T", (4, 6), unit="K")
        >>> T.at(1, 2).write(20.0)
        >>> T.at(1, 2).add(0.5)
        >>> T.at(1, 2).read()
        20.5
        """
        return Point(self, check_point(self, index), check_component(self, component))

    def probe(self, points: Any, component: int | None = None) -> np.ndarray:
        """Return the values at global points, in one message. Collective.

        Parameters
        ----------
        points : array_like of int
            The points, the same on all ranks: one row of global indices for each, of shape (n, number of axes of the
            grid).
        component : int, optional
            The component of a field that has components; all of them if not given.

        Returns
        -------
        ndarray
            A NumPy array of the n values, the same on all ranks; of shape (components, n) for all components.

        Raises
        ------
        UsageError
            If there is no such point or component.

        Examples
        --------
        >>> u = State(World()).field("u", (4, 6))
        >>> u[...] = 10 * u.indices[0] + u.indices[1]
        >>> u.probe([(0, 0), (3, 5), (1, 2)])
        array([ 0., 35., 12.])
        """
        with self.world.raise_on_all_ranks():
            checked, number = check_points(self, points), check_component(self, component)
        return probe(self, checked, number)

    def read(self, path: Path | str, name: str | None = None, missing: float | None = None) -> None:
        """Fill the field from a file in global order, of which each rank reads its own block. Collective.

        Parameters
        ----------
        path : path
            A file of HDF5, netCDF-4 or NumPy (`.npy`), or a store of zarr, that all ranks can read.
        name : str, optional
            The path of the dataset in HDF5, netCDF-4 or zarr; by default the name of the field.
        missing : float, optional
            The value in place of missing ones: NaN, and those that equal the attribute `_FillValue` or `missing_value`.
            They are refused if it is not given.

        Raises
        ------
        UsageError
            On all ranks, before any value changes, if the file is missing or has another format, the dataset is missing
            or packed, its shape or the order of its named axes is not that of the field, its dtype is of another kind
            (`np.can_cast` with `same_kind`), or the field may not be written now; after the values are read, if some of
            them are missing.

        Examples
        --------
        >>> np.save("terrain.npy", np.array([1, 2, 3, 4], np.int16))
        >>> height = State(World()).field("height", (4,), unit="m")
        >>> height.read("terrain.npy")
        >>> height.local
        array([1., 2., 3., 4.])
        """
        read(self, Path(path), name, missing)
