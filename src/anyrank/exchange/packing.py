"""What leaves a rank in a halo exchange and what arrives: side by side in one buffer each way, on the host or a GPU."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from mpi4py import MPI

from anyrank.device import Device
from anyrank.kernel import loaded
from anyrank.layout import Layout
from anyrank.numerics.strided import contiguous_strides

Region = tuple[slice, ...]
#: Parts of a buffer begin on multiples of so many bytes.
ALIGNMENT = 16
#: Threads of a block that copies a box, and blocks that share one at most.
THREADS, SHARED = 256, 1024


class Haloed(Protocol):
    """What an exchange needs of a Field."""

    name: str
    layout: Layout
    halo: int
    margin: int
    dtype: np.dtype[Any]
    boundary: tuple[str, ...]
    device: Device

    @property
    def storage(self) -> Any:
        """Its block with a margin of `margin` cells around it, an array of the device."""


#: A field, its ghosts, and the cells of it that they repeat.
Wrap = tuple[Haloed, Region, Region]
#: Boxes on a GPU, and the grid of the launch that copies them.
_Table = tuple[Any, tuple[int, int]]


class Box(NamedTuple):
    """Elements somewhere in memory; strides are in bytes."""

    address: int
    itemsize: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Part(NamedTuple):
    """A region of a field's storage, and its place in a buffer, where it has no gaps."""

    field: Haloed
    region: Region
    offset: int
    shape: tuple[int, ...]

    def packed(self, buffer: int) -> Box:
        """Its elements in the buffer that begins at this address."""
        size, shape = self.field.dtype.itemsize, self.shape
        return Box(buffer + self.offset, size, shape, tuple(contiguous_strides(shape, size)))


class Parts(list[Part]):
    """What a buffer holds, one part after the other."""

    nbytes = 0

    def add(self, regions: Iterable[tuple[Haloed, Region]]) -> slice:
        """Put regions at the end; returns the bytes of the buffer that they take."""
        began = self.nbytes
        for field, region in regions:
            shape = tuple(len(range(*s.indices(n))) for s, n in zip(region, field.storage.shape, strict=True))
            self.append(Part(field, region, self.nbytes, shape))
            self.nbytes += -(-prod(shape) * field.dtype.itemsize // ALIGNMENT) * ALIGNMENT
        return slice(began, self.nbytes)


class HostBuffers:
    """Buffers of fields on the host: copies are done when a method returns.

    `outgoing` and `incoming` are what MPI is given, bytes.
    """

    #: Whether what is packed may be sent, and arrivals be received, before `wait`.
    at_once = True

    def __init__(self, fields: Sequence[Haloed], wraps: Sequence[Wrap], leaving: Parts, arriving: Parts):
        self._wraps = wraps
        self.outgoing, self._leaving = _views(leaving)
        self.incoming, self._arriving = _views(arriving)

    def wrap(self) -> None:
        """Fill the ghosts that this rank owns itself."""
        for field, there, here in self._wraps:
            field.storage[there] = field.storage[here]

    def pack(self) -> None:
        """Copy the edges into `outgoing`."""
        for field, region, view in self._leaving:
            view[...] = field.storage[region]

    def wait(self) -> None:
        """Come back when `outgoing` is packed, and what was in `incoming` before is in its place."""

    def unpack(self) -> None:
        """Copy `incoming` into the ghosts."""
        for field, region, view in self._arriving:
            field.storage[region] = view


def _views(parts: Parts) -> tuple[np.ndarray, list[tuple[Haloed, Region, np.ndarray]]]:
    memory = np.zeros(parts.nbytes, np.uint8)
    return memory, [
        (part.field, part.region, np.ndarray(part.shape, part.field.dtype, memory, part.offset)) for part in parts
    ]


class DeviceBuffers:
    """Buffers of fields on a GPU: one launch for each method, which returns before anything is done, but for `wait`.

    Wraps and packing go in the computing's stream, after what was computed before and before the interior. All else
    goes beside the computing, in a stream of its own. MPI is given the GPU's memory itself (`direct`), or pinned
    memory of the host to which the bytes are copied (staged). Three things are waited for:

    - copies to the host wait for the packing (staged);
    - the host waits for `outgoing` before MPI may read it. The exchange before is over by then, so that MPI may
      write `incoming`, too;
    - the computing waits for the ghosts.
    """

    at_once = False

    def __init__(self, fields: Sequence[Haloed], wraps: Sequence[Wrap], leaving: Parts, arriving: Parts):
        self._fields, self._wraps, self._leaving, self._arriving = fields, wraps, leaving, arriving
        device: Any = fields[0].device
        self._device, self._module = device, loaded(device, Path(__file__).with_name("boxes.cu"))
        self._direct = fields[0].layout.world.transfer == "direct"
        self._out, self._in = (device.full((max(1, parts.nbytes),), 0, np.uint8) for parts in (leaving, arriving))
        self.outgoing, self.incoming = (self._for_mpi(memory) for memory in (self._out, self._in))
        self._tables: dict[tuple[int, ...], list[_Table]] = {}
        self._beside = device.stream()
        self._packed, self._left, self._unpacked = (device.cupy.cuda.Event(disable_timing=True) for _ in range(3))
        if self._direct:
            self._left = self._packed
        # What the GPU has still to do with this memory is done before the memory goes.
        weakref.finalize(self, device.compute.synchronize).atexit = False

    def _for_mpi(self, memory: Any) -> Any:
        if self._direct:
            return MPI.buffer.fromaddress(self._device.address(memory), memory.nbytes)
        return self._device.pinned(memory.nbytes)

    def wrap(self) -> None:
        """See `HostBuffers`."""
        self._copy(0)

    def pack(self) -> None:
        """See `HostBuffers`; staged, they go to the host, too."""
        self._copy(1)
        self._packed.record(self._device.compute)
        if not self._direct:
            self._beside.wait_event(self._packed)
            self._out.get(stream=self._beside, out=self.outgoing, blocking=False)
            self._left.record(self._beside)

    def wait(self) -> None:
        """See `HostBuffers`."""
        self._left.synchronize()

    def unpack(self) -> None:
        """See `HostBuffers`; staged, they come from the host first."""
        if not self._direct:
            self._in.set(self.incoming, stream=self._beside)
        with self._beside:
            self._copy(2)
        self._unpacked.record(self._beside)
        self._device.compute.wait_event(self._unpacked)

    def _copy(self, which: int) -> None:
        places = tuple(self._device.address(field.storage) for field in self._fields)
        if places not in self._tables:  # a field has two arrays, which `advance` swaps
            self._tables[places] = [self._table(rows) for rows in self._rows()]
        boxes, grid = self._tables[places][which]
        if grid[0]:
            self._module.launch("copy_boxes", grid, (THREADS,), (boxes, np.int32(self._fields[0].layout.ndim)))

    def _table(self, rows: list[list[int]]) -> _Table:
        most = max((row[3] for row in rows), default=0)
        grid = len(rows), min(max(1, -(-most // THREADS)), SHARED)
        return self._device.from_host(np.array(rows, np.uint64)), grid

    def _rows(self) -> tuple[list[list[int]], ...]:
        """The boxes of wraps, packing and unpacking, as boxes.cu has them, for the fields' present arrays."""
        out, into = self._device.address(self._out), self._device.address(self._in)
        wraps = [_row(self._at(field, here), self._at(field, there)) for field, there, here in self._wraps]
        leaving = [_row(self._at(part.field, part.region), part.packed(out)) for part in self._leaving]
        return wraps, leaving, [_row(part.packed(into), self._at(part.field, part.region)) for part in self._arriving]

    def _at(self, field: Haloed, region: Region) -> Box:
        view = field.storage[region]
        return Box(self._device.address(view), view.itemsize, view.shape, view.strides)


def _row(source: Box, target: Box) -> list[int]:
    axes = zip(source.shape, source.strides, target.strides, strict=True)
    return [source.address, target.address, source.itemsize, prod(source.shape), *(n for axis in axes for n in axis)]


def open_buffers(
    fields: Sequence[Haloed], wraps: Sequence[Wrap], leaving: Parts, arriving: Parts
) -> HostBuffers | DeviceBuffers:
    """The buffers of an exchange, where the fields are."""
    kind = HostBuffers if fields[0].device.on_host else DeviceBuffers
    return kind(fields, wraps, leaving, arriving)
