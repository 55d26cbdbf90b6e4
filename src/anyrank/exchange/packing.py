"""The send and the receive buffer of a halo exchange, on the host or on a GPU."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mpi4py import MPI

from anyrank.exchange.block import HaloBlock, Region
from anyrank.kernel import load_module
from anyrank.numerics.strided import contiguous_strides

#: The offset of each region in a buffer is a multiple of this many bytes.
ALIGNMENT = 16
#: Threads per block of the copy kernel, and the largest number of blocks for a box.
THREADS, MOST_BLOCKS = 256, 1024
#: The three copies of an exchange: within this rank, into the send buffer, and from the receive buffer.
_WRAP, _PACK, _UNPACK = range(3)


#: A field, a region of its ghost cells, and the region that they copy.
Wrap = tuple[HaloBlock, Region, Region]
#: The boxes, an array on a GPU, and the grid of the launch that copies them.
_BoxTable = tuple[Any, tuple[int, int]]


class Box(NamedTuple):
    """A strided array in memory; strides are in bytes."""

    address: int
    itemsize: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class PackedRegion(NamedTuple):
    """A region of a field's storage, and its byte offset in a buffer, where it is contiguous."""

    field: HaloBlock
    region: Region
    offset: int
    shape: tuple[int, ...]

    def packed(self, buffer: int) -> Box:
        """Return the box of its elements in the buffer at this address."""
        size, shape = self.field.dtype.itemsize, self.shape
        return Box(buffer + self.offset, size, shape, tuple(contiguous_strides(shape, size)))


class PackedRegions(list[PackedRegion]):
    """The regions of a buffer, one after the other."""

    nbytes = 0

    def add(self, regions: Iterable[tuple[HaloBlock, Region]]) -> slice:
        """Append regions and return their slice of the buffer, in bytes."""
        first = self.nbytes
        for field, region in regions:
            shape = tuple(len(range(*s.indices(n))) for s, n in zip(region, field.storage.shape, strict=True))
            self.append(PackedRegion(field, region, self.nbytes, shape))
            self.nbytes += -(-prod(shape) * field.dtype.itemsize // ALIGNMENT) * ALIGNMENT
        return slice(first, self.nbytes)


class HostBuffers:
    """Buffers of fields on the host: each method returns when its copies are complete.

    `outgoing` and `incoming` are the bytes that MPI sends and receives.
    """

    #: Whether MPI may send and receive before `wait`.
    synchronous = True

    def __init__(self, fields: Sequence[HaloBlock], wraps: Sequence[Wrap], edges: PackedRegions, ghosts: PackedRegions):
        self._wraps = wraps
        self.outgoing, self._edges = _views(edges)
        self.incoming, self._ghosts = _views(ghosts)

    def wrap(self) -> None:
        """Fill the ghost cells whose owner is this rank."""
        for field, target, source in self._wraps:
            field.storage[target] = field.storage[source]

    def pack(self) -> None:
        """Copy the edges into `outgoing`."""
        for field, region, view in self._edges:
            view[...] = field.storage[region]

    def wait(self) -> None:
        """Wait until `outgoing` is packed and the previous contents of `incoming` are unpacked."""

    def unpack(self) -> None:
        """Copy `incoming` into the ghost cells."""
        for field, region, view in self._ghosts:
            field.storage[region] = view


def _views(parts: PackedRegions) -> tuple[np.ndarray, list[tuple[HaloBlock, Region, np.ndarray]]]:
    memory = np.zeros(parts.nbytes, np.uint8)
    return memory, [
        (part.field, part.region, np.ndarray(part.shape, part.field.dtype, memory, part.offset)) for part in parts
    ]


class DeviceBuffers:
    """Buffers of fields on a GPU: each method launches one kernel and returns at once; only `wait` waits.

    Wraps and packing run in the compute stream, after earlier computing and before the interior. Everything else
    runs concurrently in a copy stream. MPI reads and writes the memory of the GPU (`direct`), or pinned memory of the
    host, to and from which the bytes are copied (`staged`). There are three waits:

    - the copy of the edges to the host waits for the packing (only `staged`);
    - the host waits until `outgoing` holds the edges, before MPI reads it. The previous exchange is then complete, too:
      MPI may write `incoming`;
    - the compute stream waits for the ghost cells.
    """

    synchronous = False

    def __init__(self, fields: Sequence[HaloBlock], wraps: Sequence[Wrap], edges: PackedRegions, ghosts: PackedRegions):
        self._fields, self._wraps, self._edges, self._ghosts = fields, wraps, edges, ghosts
        device: Any = fields[0].device
        self._device, self._module = device, load_module(device, Path(__file__).with_name("boxes.cu"))
        self._direct = fields[0].layout.world.transfer == "direct"
        self._gpu_out, self._gpu_in = (device.full((max(1, parts.nbytes),), 0, np.uint8) for parts in (edges, ghosts))
        self.outgoing, self.incoming = (self._for_mpi(memory) for memory in (self._gpu_out, self._gpu_in))
        self._axes = max(field.layout.ndim for field in fields)
        self._box_tables: dict[tuple[int, ...], list[_BoxTable]] = {}
        self._copy_stream = device.stream()
        # Events: the edges are packed, `outgoing` may be read, and the ghost cells are filled.
        self._packed, self._sendable, self._unpacked = (device.cupy.cuda.Event(disable_timing=True) for _ in range(3))
        if self._direct:
            self._sendable = self._packed
        # The GPU must finish its work on this memory before the memory is freed, which does not happen at the exit.
        weakref.finalize(self, device.compute.synchronize).atexit = False

    def _for_mpi(self, memory: Any) -> Any:
        if self._direct:
            return MPI.buffer.fromaddress(self._device.address(memory), memory.nbytes)
        return self._device.pinned(memory.nbytes)

    def wrap(self) -> None:
        """See `HostBuffers`."""
        self._copy(_WRAP)

    def pack(self) -> None:
        """See `HostBuffers`; if staged, also copy the edges to the host."""
        self._copy(_PACK)
        self._packed.record(self._device.compute)
        if not self._direct:
            self._copy_stream.wait_event(self._packed)
            self._gpu_out.get(stream=self._copy_stream, out=self.outgoing, blocking=False)
            self._sendable.record(self._copy_stream)

    def wait(self) -> None:
        """See `HostBuffers`."""
        self._sendable.synchronize()

    def unpack(self) -> None:
        """See `HostBuffers`; if staged, first copy the bytes from the host."""
        if not self._direct:
            self._gpu_in.set(self.incoming, stream=self._copy_stream)
        with self._copy_stream:
            self._copy(_UNPACK)
        self._unpacked.record(self._copy_stream)
        self._device.compute.wait_event(self._unpacked)

    def _copy(self, which: int) -> None:
        """Launch one of the three copies."""
        addresses = tuple(self._device.address(field.storage) for field in self._fields)
        if addresses not in self._box_tables:  # a field has two arrays, which `advance` swaps
            self._box_tables[addresses] = [self._box_table(rows) for rows in self._box_rows()]
        boxes, grid = self._box_tables[addresses][which]
        if grid[0]:
            self._module.launch("copy_boxes", grid, (THREADS,), (boxes, np.int32(self._axes)))

    def _box_table(self, rows: list[list[int]]) -> _BoxTable:
        most = max((row[3] for row in rows), default=0)
        grid = len(rows), min(max(1, -(-most // THREADS)), MOST_BLOCKS)
        return self._device.from_host(np.array(rows, np.uint64)), grid

    def _box_rows(self) -> tuple[list[list[int]], ...]:
        """Return the boxes of wraps, packing and unpacking for the present arrays, in the format of boxes.cu."""
        out, into = self._device.address(self._gpu_out), self._device.address(self._gpu_in)
        wraps = [(self._box(field, source), self._box(field, target)) for field, target, source in self._wraps]
        edges = [(self._box(part.field, part.region), part.packed(out)) for part in self._edges]
        ghosts = [(part.packed(into), self._box(part.field, part.region)) for part in self._ghosts]
        return tuple([_box_row(*boxes, self._axes) for boxes in copies] for copies in (wraps, edges, ghosts))

    def _box(self, field: HaloBlock, region: Region) -> Box:
        view = field.storage[region]
        return Box(self._device.address(view), view.itemsize, view.shape, view.strides)


def _box_row(source: Box, target: Box, axes: int) -> list[int]:
    """Return a row of boxes.cu; a box with fewer than `axes` axes gets axes of one element before its own."""
    own = [*zip(source.shape, source.strides, target.strides, strict=True)]
    numbers = [n for axis in [(1, 0, 0)] * (axes - len(own)) + own for n in axis]
    return [source.address, target.address, source.itemsize, prod(source.shape), *numbers]


def open_buffers(
    fields: Sequence[HaloBlock], wraps: Sequence[Wrap], edges: PackedRegions, ghosts: PackedRegions
) -> HostBuffers | DeviceBuffers:
    """Return the buffers of an exchange, on the device of the fields."""
    kind = HostBuffers if fields[0].device.on_host else DeviceBuffers
    return kind(fields, wraps, edges, ghosts)
