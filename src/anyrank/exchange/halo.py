"""Halo exchange: every rank's ghost cells get their owners' values, corners included."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Protocol

import numpy as np
from mpi4py import MPI

from anyrank.device import Device
from anyrank.layout import Layout

Region = tuple[slice, ...]
Direction = tuple[int, ...]


class Haloed(Protocol):
    """What an exchange needs of a Field."""

    name: str
    storage: Any
    layout: Layout
    halo: int
    margin: int
    dtype: np.dtype[Any]
    boundary: tuple[str, ...]
    device: Device


class Halo:
    """The exchange of the halos of some fields of one layout: one message to each neighbouring rank.

    Making one is collective. `start` sends this rank's edges and returns at once; until `finish` the
    ghosts hold old values and the interior may be read, not written. All ghosts travel directly from
    their owners, corners too, so one round is enough (no axis waits for another). Along an axis that is not
    cut a rank is its own neighbour: there it copies, first of all, and then sends its edges in full width.
    """

    def __init__(self, fields: Sequence[Haloed], tag: int):
        self.fields = list(fields)
        self.layout = fields[0].layout
        if any(field.layout.cuts != self.layout.cuts for field in fields):
            raise ValueError("fields of one exchange must share their layout")
        if any(field.boundary != fields[0].boundary or field.margin < 1 for field in fields):
            raise ValueError("fields of one exchange must share their boundaries and have a halo")
        self.cut_axes = tuple(axis for axis, parts in enumerate(self.layout.grid) if parts > 1)
        self._wraps = self._own_wraps()
        self._messages = [_Message(rank, travels) for rank, travels in self._neighbours().items()]
        comm = self.layout.world.comm
        for message in self._messages:
            message.allocate(self.fields, self.cut_axes)
            message.receive = comm.Recv_init([message.incoming, MPI.BYTE], message.rank, tag)
            message.send = comm.Send_init([message.outgoing, MPI.BYTE], message.rank, tag)
        self._receives = [message.receive for message in self._messages]
        self._sends = [message.send for message in self._messages]
        self._bytes = sum(message.outgoing.nbytes for message in self._messages)
        self._recorder = self.layout.world.recorder
        self._words = f"the halo exchange of {', '.join(field.name for field in self.fields)}"

    def _own_wraps(self) -> list[tuple[Haloed, Region, Region]]:
        """Ghosts and the edges they repeat, along periodic axes that are not cut."""
        ndim, boundary = self.layout.ndim, self.fields[0].boundary
        axes = [axis for axis in range(ndim) if axis not in self.cut_axes and boundary[axis] == "periodic"]
        return [
            (field, ghost(field, travel, (axis,)), edge(field, travel, (axis,)))
            for axis in axes
            for travel in (_along(axis, -1, ndim), _along(axis, 1, ndim))
            for field in self.fields
        ]

    def _neighbours(self) -> dict[int, list[Direction]]:
        """The directions in which data leaves, by the rank it goes to."""
        found: dict[int, list[Direction]] = {}
        steps = [(-1, 0, 1) if axis in self.cut_axes else (0,) for axis in range(self.layout.ndim)]
        # Where A sends to B in direction d, B receives into its ghosts on side -d: both sort by d.
        for travel in product(*steps):
            rank = self._neighbour(travel)
            if rank is not None and any(travel):
                found.setdefault(rank, []).append(travel)
        return found

    def _neighbour(self, travel: Direction) -> int | None:
        target = []
        for axis, d in enumerate(travel):
            g, parts = self.layout.position[axis] + d, self.layout.grid[axis]
            if not 0 <= g < parts and self.fields[0].boundary[axis] == "fixed":
                return None
            target.append(g % parts)
        return self.layout.rank_at(target)

    def start(self) -> None:
        """Fill the ghosts that this rank owns itself, and send the edges."""
        if self._recorder is not None:
            self._recorder.meet(self._words)
        for field, there, here in self._wraps:
            field.storage[there] = field.storage[here]
        if self._messages:
            timers = self.layout.world.timers
            began = timers.start()
            MPI.Prequest.Startall(self._receives)
            for message in self._messages:
                message.pack()
            MPI.Prequest.Startall(self._sends)
            timers.stop("exchange", began)
            timers.count("messages", "bytes", self._bytes, len(self._messages))

    def finish(self) -> None:
        """Wait for the neighbours' edges and put them into the ghosts."""
        if self._messages:
            timers = self.layout.world.timers
            began = timers.start()
            MPI.Request.Waitall([*self._receives, *self._sends])
            for message in self._messages:
                message.unpack()
            timers.stop("exchange", began)

    def regions(self, whole: Region) -> tuple[Region, list[Region]]:
        """The part of a region that no remote ghost touches, and disjoint slabs that cover the rest.

        All as slices of the local block; the region is the block, or reaches further into the ghosts.
        """
        halo = max(field.halo for field in self.fields)
        inner = list(whole)
        borders: list[Region] = []
        for axis in self.cut_axes:
            n = self.layout.local_shape[axis]
            low, high = min(halo, n), max(n - halo, min(halo, n))
            borders.append((*inner[:axis], slice(whole[axis].start, low), *inner[axis + 1 :]))
            borders.append((*inner[:axis], slice(high, whole[axis].stop), *inner[axis + 1 :]))
            inner[axis] = slice(low, high)
        return tuple(inner), [region for region in borders if all(s.stop > s.start for s in region)]


def _along(axis: int, step: int, ndim: int) -> Direction:
    return tuple(step if a == axis else 0 for a in range(ndim))


def edge(field: Haloed, travel: Direction, axes: Sequence[int]) -> Region:
    """The cells of a padded block that leave in a direction along some axes; of the others, the full width."""
    h = field.margin
    sides = {-1: slice(h, 2 * h), 0: slice(h, -h), 1: slice(-2 * h, -h)}
    return tuple(sides[d] if axis in axes else slice(None) for axis, d in enumerate(travel))


def ghost(field: Haloed, travel: Direction, axes: Sequence[int]) -> Region:
    """The cells of a padded block into which data that travels in a direction arrives."""
    h = field.margin
    sides = {-1: slice(-h, None), 0: slice(h, -h), 1: slice(0, h)}
    return tuple(sides[d] if axis in axes else slice(None) for axis, d in enumerate(travel))


class _Message:
    """All that goes to and comes from one neighbour, in one buffer each way."""

    send: Any
    receive: Any

    def __init__(self, rank: int, travels: list[Direction]):
        self.rank = rank
        self.travels = travels

    def allocate(self, fields: Sequence[Haloed], axes: Sequence[int]) -> None:
        """Buffers with a view for every part; the neighbour's travels mirror ours, in sorted order."""
        arrivals = sorted(tuple(-d for d in travel) for travel in self.travels)
        self.outgoing, self._out = _buffer([(f, edge(f, t, axes)) for f in fields for t in sorted(self.travels)])
        self.incoming, self._in = _buffer([(f, ghost(f, t, axes)) for f in fields for t in arrivals])

    def pack(self) -> None:
        """Copy the edges into the outgoing buffer."""
        for field, region, view in self._out:
            view[...] = field.device.to_host(field.storage[region])

    def unpack(self) -> None:
        """Copy the incoming buffer into the ghosts."""
        for field, region, view in self._in:
            field.storage[region] = field.device.from_host(view)


def _buffer(parts: list[tuple[Haloed, Region]]) -> tuple[np.ndarray, list[tuple[Haloed, Region, np.ndarray]]]:
    shapes = [tuple(len(range(*s.indices(n))) for s, n in zip(r, f.storage.shape, strict=True)) for f, r in parts]
    sizes = [int(np.prod(shape)) * f.dtype.itemsize for (f, _), shape in zip(parts, shapes, strict=True)]
    offsets = np.concatenate([[0], np.cumsum([-(-size // 16) * 16 for size in sizes])]).astype(int)
    memory = np.zeros(int(offsets[-1]), np.uint8)
    views = [
        (field, region, memory[at : at + size].view(field.dtype).reshape(shape))
        for (field, region), shape, at, size in zip(parts, shapes, offsets, sizes, strict=False)
    ]
    return memory, views
