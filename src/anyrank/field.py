"""Field: a global array, distributed over the ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anyrank.device import Device
from anyrank.errors import UsageError
from anyrank.exchange import gather
from anyrank.exchange.advance import advance
from anyrank.exchange.block import HaloBlock, OnGrid
from anyrank.exchange.boundaries import Boundary
from anyrank.exchange.halo import halo_of
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
        at: Sequence[int] = (),
        constant: bool = False,
        storage: Any = None,
        group: str = "fields",
    ):
        placement: dict[str, Any] = {"halo": halo, "margin": margin, "sides": sides, "grid": grid, "at": at}
        super().__init__(name, layout, dtype, device, constant=constant, storage=storage, **placement)
        #: The name of its dataset in a checkpoint.
        self.path = f"{group}/{name}"
        self.unit, self.description, self.dims = unit, description, dims

    @classmethod
    def from_array(
        cls, name: str, layout: Layout, array: np.ndarray, dims: tuple[str, ...], description: str, group: str
    ) -> Field:
        """Return a Field, without a halo, of an array of the host, such as a column of a Table (for the runtime).

        The array is the block. `group` is the name of its group in a checkpoint.
        """
        array = np.ascontiguousarray(array)
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
        return self._view(self.halo, writable=not any(self.halo) and self._writable)

    @property
    def local(self) -> Any:
        """The block of this rank without its halo: a view."""
        return self._view((), writable=self._writable)

    @property
    def _writable(self) -> bool:
        return not any(self.valid) and not self.frozen

    def __getitem__(self, key: Any) -> Any:
        return self.local[self._index(key)]

    def __setitem__(self, key: Any, values: Any) -> None:
        if not self._writable:
            raise UsageError(self._protected())
        parts = key if isinstance(key, tuple) else (key,)
        if self.device.on_host or not isinstance(values, np.ndarray | list | tuple):
            self.local[self._index(key)] = values
        elif all(type(part) in _VIEWS for part in parts):  # without a temporary array on the device
            self.device.write(self.local[key], np.asarray(values))
        else:
            self.local[self._index(key)] = self._on_device(np.asarray(values).astype(self.dtype, copy=False))

    def _protected(self) -> str:
        if self.frozen:
            return (
                f"the constant {self.name} is written after the method constants, which alone may set it: other ranks "
                "have copies of its values. Declare it with state.field if it changes."
            )
        return (
            f"field {self.name} is written between steps, but with --halo-steps 2 or more other ranks compute with "
            "copies of it. Write fields in setup and kernels alone, or leave --halo-steps out."
        )

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
        edges = " ".join(f"{h}:{low}/{high}" for h, (low, high) in zip(self.halo, self.sides, strict=True))
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
