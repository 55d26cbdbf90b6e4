"""Copies of the values of Fields at the start of a checkpoint, in pieces that are contiguous in the file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
from mpi4py import MPI

from anyrank.device.gpu import Gpu
from anyrank.field import Field
from anyrank.layout import Layout, even_cuts
from anyrank.numerics import digest
from anyrank.numerics.strided import extent_axis, extents, row_slices
from anyrank.storage.device_to_host import DeviceToHostCopy
from anyrank.storage.durable import start_writing, write_all

#: If the contiguous runs of a block are shorter, in bytes, the ranks first redistribute the blocks as rows: a million
#: short writes to a disk cost more than one exchange in memory.
SHORT_EXTENT = 1 << 16
#: The copies of a checkpoint leave at least 1/16 of the GPU memory free for later allocations of the run.
RESERVED_SHARE = 16
#: The MPI datatype by the size of an element: MPI only copies bytes.
_ELEMENTS = {1: MPI.BYTE, 2: MPI.INT16_T, 4: MPI.INT32_T, 8: MPI.INT64_T, 16: MPI.C_DOUBLE_COMPLEX}


class Staging:
    """A copy of this rank's part of a Field: its own block, or rows if the contiguous runs of its block are short.

    Values on a disk stay there, because they do not change.
    The copy of values on a GPU stays in GPU memory if there is enough, and is copied to the host while steps continue.
    Otherwise, and if blocks are redistributed as rows, which MPI does on the host, steps wait for the copy to the host.
    """

    def __init__(self, field: Field, to_host: DeviceToHostCopy | None = None):
        self.source = field.layout
        self.layout = field.layout if field.on_disk else writing_layout(field.layout, field.dtype.itemsize)
        self._redistribute = None if self.layout is field.layout else Redistribution(field, self.layout)
        gpu_block = None
        if to_host is not None and self._redistribute is None and not field.device.on_host:
            gpu_block = _allocate_on_gpu(field, to_host.gpu)
        #: How the copy goes to the host while steps continue; None if the copy is on the host.
        self._to_host = to_host if gpu_block is not None else None
        if field.on_disk:
            self.block: Any = field.local
        else:
            self.block = np.empty(self.layout.local_shape, field.dtype) if gpu_block is None else gpu_block

    def copy(self, field: Field) -> None:
        """Copy the present values of the Field. Collective.

        On a GPU the copy runs in the compute stream: after the kernels that compute the values, and before the
        kernels that change them.
        """
        if self._redistribute is not None:
            self._redistribute(field, self.block)
        elif self._to_host is not None:
            self.block[...] = field.local
            self._copied = self._to_host.gpu.compute.record()
        elif not field.on_disk:
            fetch(field, self.block)

    def write(self, descriptor: int, offset: int) -> int:
        """Write the values into the file, where the Field begins at `offset`; return this rank's part of the digest.

        Values on a GPU are digested there, so that a later read detects damage by the copy to the host. Raises
        OSError. Not collective.
        """
        total, shape, start = 0, self.layout.shape, self.layout.start
        row = self.block.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        parts: Any = (self.block[rows] for rows in row_slices(self.block))
        if self._to_host is not None:
            self._to_host.enter(self._copied)
            total = digest.local_digest(self.block, shape, start)
        for part in parts if self._to_host is None else self._to_host.copy([*parts]):
            if self._to_host is None:
                total += digest.local_digest(part, shape, start)
            for position, data in extents(part, shape, start):
                write_all(descriptor, data, offset + position)
            start_writing(descriptor, offset + start[0] * row, len(part) * row)
            start = (start[0] + len(part), *start[1:])
        return total % 2**64


def _allocate_on_gpu(field: Field, gpu: Gpu) -> Any:
    """Allocate GPU memory for a copy of the Field's block; None if too little memory would remain for the run."""
    needed = field.local.nbytes
    free, total = gpu.free_memory()
    block = None
    if needed + total // RESERVED_SHARE <= free:
        with suppress(MemoryError):  # another rank that shares the GPU may have allocated first
            block = gpu.full(field.layout.local_shape, 0, field.dtype)
    logging.getLogger(f"anyrank.rank{field.world.rank}").info(
        "checkpoints: the copy of %s takes %d bytes, and %s has %d free of %d: it is made %s",
        *(field.name, needed, gpu.name, free, total),
        "on the host while steps wait" if block is None else "on the GPU, and goes to the host while steps continue",
    )
    return block


def fetch(field: Field, block: np.ndarray) -> np.ndarray:
    """Fill `block` with the present values of the Field, in pieces, because a copy may need GPU memory; return it."""
    for rows in row_slices(block):
        block[rows] = field.device.to_host(field.local[rows])
    return block


def writing_layout(layout: Layout, itemsize: int) -> Layout:
    """Return the layout in which values are written: rows if the contiguous runs of the blocks are short."""
    shape, world = layout.shape, layout.world
    block = [max(b - a for a, b in pairwise(cut)) for cut in layout.cuts]
    axis = extent_axis(block, shape)
    length = int(np.prod(block[axis:], dtype=np.int64)) * itemsize
    if axis == 0 or length >= SHORT_EXTENT or shape[0] < world.size:
        return layout
    return Layout(shape, world, [even_cuts(shape[0], world.size), *((0, n) for n in shape[1:])])


class Redistribution:
    """Copies the values of a Field into another layout, in one all-to-all without a send buffer."""

    def __init__(self, field: Field, target: Layout):
        self._comm = field.world.comm
        on_host = field.device.on_host
        outer = list(field.storage_shape if on_host else field.layout.local_shape)
        if on_host and len(outer) > 1:
            outer[-1] = field.storage.strides[-2] // field.dtype.itemsize  # rows need not be contiguous
        offset = field.offset if on_host else (0,) * len(outer)
        sources, targets = _bricks(field.layout), _bricks(target)
        rank, itemsize = field.world.rank, field.dtype.itemsize
        self._send = [_intersection(sources[rank], other, itemsize, outer, offset) for other in targets]
        self._receive = [_intersection(targets[rank], other, itemsize) for other in sources]

    def __call__(self, field: Field, block: np.ndarray) -> None:
        """Fill `block`, this rank's part in the target layout. Collective."""
        source = self._source(field)  # keeps the array alive: a message has only its address
        self._comm.Alltoallw(_message(source, self._send), _message(block, self._receive))

    @staticmethod
    def _source(field: Field) -> np.ndarray:
        if field.device.on_host:
            return np.asarray(field.storage)
        return fetch(field, np.empty(field.layout.local_shape, field.dtype))


def _message(array: np.ndarray, kinds: list[MPI.Datatype | None]) -> list[object]:
    counts = [int(kind is not None) for kind in kinds]
    # The datatypes describe the strides, because the rows of an array need not be contiguous.
    return [
        MPI.buffer.fromaddress(array.ctypes.data, array.nbytes),
        (counts, [0] * len(kinds)),
        [kind or MPI.BYTE for kind in kinds],
    ]


def _bricks(layout: Layout) -> list[tuple[slice, ...]]:
    return [brick for _, brick in layout.bricks_of_all()]


def _intersection(
    own: tuple[slice, ...],
    other: tuple[slice, ...],
    itemsize: int,
    outer: Sequence[int] = (),
    offset: Sequence[int] = (),
) -> MPI.Datatype | None:
    """Return the MPI datatype of the intersection of two bricks, in the array of the first one; None if it is empty.

    The array has the shape `outer`, and its brick begins at `offset`; without these the array is the brick.
    """
    low = [max(a.start, b.start) for a, b in zip(own, other, strict=True)]
    sizes = [min(a.stop, b.stop) - first for a, b, first in zip(own, other, low, strict=True)]
    if min(sizes) <= 0:
        return None
    whole, before = outer or [part.stop - part.start for part in own], offset or [0] * len(own)
    starts = [first - part.start + skipped for first, part, skipped in zip(low, own, before, strict=True)]
    return _ELEMENTS[itemsize].Create_subarray(whole, sizes, starts).Commit()
