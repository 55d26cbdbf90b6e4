"""A Field's values as they were when a checkpoint began, in pieces that lie together in the file."""

from __future__ import annotations

import logging
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
from mpi4py import MPI

from anyrank.device.gpu import Gpu
from anyrank.field import Field
from anyrank.layout import Layout, even_cuts
from anyrank.numerics import digest
from anyrank.numerics.strided import run_axis, runs
from anyrank.storage.crossing import Crossing
from anyrank.storage.durable import start_writing, write_all

#: Where a brick is made of shorter runs, in bytes, the ranks first exchange bricks for rows: on disks a
#: million short writes cost more than one exchange in memory.
SHORT_RUN = 1 << 16
#: What is digested and written at once, in bytes.
PIECE = 1 << 24
#: The part of a card, one in so many, that a checkpoint's copy leaves free for what the run has yet to allocate.
LEFT = 16
#: What MPI moves, by bytes: it only copies.
_ELEMENTS = {1: MPI.BYTE, 2: MPI.INT16_T, 4: MPI.INT32_T, 8: MPI.INT64_T, 16: MPI.C_DOUBLE_COMPLEX}


class Staging:
    """This rank's part of a Field for the file: its own brick, or rows where its brick's runs are short.

    The copy of a GPU's values stays on the card, if that has the memory, and leaves it while steps go on. Else, and
    where bricks become rows, which MPI does on the host, the values go to the host before steps go on.
    """

    def __init__(self, field: Field, crossing: Crossing | None = None):
        self.source = field.layout
        self.layout = writing_layout(field.layout, field.dtype.itemsize)
        self._exchange = None if self.layout is field.layout else Redistribution(field, self.layout)
        there = crossing if self._exchange is None and not field.device.on_host else None
        block = _on_card(field, there.gpu) if there is not None else None
        self._crossing = crossing if block is not None else None
        self.block = np.empty(self.layout.local_shape, field.dtype) if block is None else block

    def take(self, field: Field) -> None:
        """Copy the Field's present values. Collective.

        On the card the copy is launched, in the stream of the kernels: after those that made the values, before any
        that will change them.
        """
        if self._exchange is not None:
            self._exchange(field, self.block)
        elif self._crossing is not None:
            self.block[...] = field.local
            self._taken = self._crossing.gpu.compute.record()
        else:
            fetch(field, self.block)

    def write(self, descriptor: int, offset: int) -> int:
        """Write the values into the file where the Field begins at `offset`; this rank's part of the digest.

        Values of a card are digested there, so that what is damaged on the way is found when it is read. Raises
        OSError. Not collective.
        """
        total, shape, start = 0, self.layout.shape, self.layout.start
        row = self.block.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        parts = [self.block[rows] for rows in pieces(self.block)]
        if self._crossing is not None:
            self._crossing.enter(self._taken)
            total = digest.local_digest(self.block, shape, start)
        for part in parts if self._crossing is None else self._crossing.bring(parts):
            if self._crossing is None:
                total += digest.local_digest(part, shape, start)
            for at, data in runs(part, shape, start):
                write_all(descriptor, data, offset + at)
            start_writing(descriptor, offset + start[0] * row, len(part) * row)
            start = (start[0] + len(part), *start[1:])
        return total % 2**64


def _on_card(field: Field, gpu: Gpu) -> Any:
    """Memory of the card for a copy of the Field's block, or None where that leaves too little for the run."""
    needed = field.local.nbytes
    free, total = gpu.free_memory()
    block = None
    if needed + total // LEFT <= free:
        with suppress(MemoryError):  # another rank that shares the card may have been faster
            block = gpu.full(field.layout.local_shape, 0, field.dtype)
    logging.getLogger(f"anyrank.rank{field.world.rank}").info(
        "checkpoints: the copy of %s takes %d bytes, and %s has %d free of %d: it is made %s",
        *(field.name, needed, gpu.name, free, total),
        "on the host while steps wait" if block is None else "there, and leaves it beside the steps",
    )
    return block


def pieces(block: Any) -> list[slice]:
    """The rows of a block in pieces of about PIECE bytes; none where it is empty."""
    rows = max(1, PIECE * len(block) // max(1, block.nbytes))
    return [slice(row, row + rows) for row in range(0, len(block) if block.size else 0, rows)]


def fetch(field: Field, block: np.ndarray) -> np.ndarray:
    """The block, filled with the Field's present values: a card has no memory to spare but for a piece of them."""
    for rows in pieces(block):
        block[rows] = field.device.to_host(field.local[rows])
    return block


def writing_layout(layout: Layout, itemsize: int) -> Layout:
    """The layout in which values are written: rows for all ranks where the bricks' runs are short."""
    shape, world = layout.shape, layout.world
    brick = [max(b - a for a, b in pairwise(cut)) for cut in layout.cuts]
    axis = run_axis(brick, shape)
    length = int(np.prod(brick[axis:], dtype=np.int64)) * itemsize
    if axis == 0 or length >= SHORT_RUN or shape[0] < world.size:
        return layout
    return Layout(shape, world, [even_cuts(shape[0], world.size), *((0, n) for n in shape[1:])])


class Redistribution:
    """Moves a Field's values into another layout, straight from its block, in one all-to-all."""

    def __init__(self, field: Field, target: Layout):
        self._comm = field.world.comm
        here = field.device.on_host
        halo = field.margin if here else 0
        width = field.storage.strides[-2] // field.dtype.itemsize if here and len(field.shape) > 1 else 0
        mine, wanted = _bricks(field.layout), _bricks(target)
        rank, item = field.world.rank, field.dtype.itemsize
        self._send = [_common(mine[rank], other, item, halo, width) for other in wanted]
        self._receive = [_common(wanted[rank], other, item, 0) for other in mine]

    def __call__(self, field: Field, block: np.ndarray) -> None:
        """Fill `block`, this rank's part in the target layout. Collective."""
        source = self._source(field)  # a message knows its address alone
        self._comm.Alltoallw(_message(source, self._send), _message(block, self._receive))

    @staticmethod
    def _source(field: Field) -> np.ndarray:
        if field.device.on_host:
            return np.asarray(field.storage)
        return fetch(field, np.empty(field.layout.local_shape, field.dtype))


def _message(array: np.ndarray, kinds: list[MPI.Datatype | None]) -> list[object]:
    counts = [int(kind is not None) for kind in kinds]
    # The types know the strides; rows of an array need not lie one after the other.
    return [
        MPI.buffer.fromaddress(array.ctypes.data, array.nbytes),
        (counts, [0] * len(kinds)),
        [kind or MPI.BYTE for kind in kinds],
    ]


def _bricks(layout: Layout) -> list[tuple[slice, ...]]:
    return [brick for _, brick in layout.bricks_of_all()]


def _common(
    own: tuple[slice, ...], other: tuple[slice, ...], item: int, halo: int, width: int = 0
) -> MPI.Datatype | None:
    """What two bricks share, as a part of the array that holds the first one with its halo.

    `width` elements lie between the beginnings of its rows; 0 where that is the length of a row.
    """
    low = [max(a.start, b.start) for a, b in zip(own, other, strict=True)]
    sizes = [min(a.stop, b.stop) - first for a, b, first in zip(own, other, low, strict=True)]
    if min(sizes) <= 0:
        return None
    whole = [part.stop - part.start + 2 * halo for part in own]
    whole[-1] = width or whole[-1]
    starts = [first - part.start + halo for first, part in zip(low, own, strict=True)]
    return _ELEMENTS[item].Create_subarray(whole, sizes, starts).Commit()
