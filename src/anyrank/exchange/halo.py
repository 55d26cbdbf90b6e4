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

    array: Any
    layout: Layout
    halo: int
    dtype: np.dtype[Any]
    boundary: tuple[str, ...]
    device: Device


class Halo:
    """The exchange of the halos of some fields of one layout: one message to each neighbouring rank.

    Making one is collective. `start` sends this rank's edges and returns at once; until `finish` the
    ghosts hold old values and the interior may be read, not written. All ghosts travel directly from
    their owners, corners too, so one round is enough (no axis waits for another).
    """

    def __init__(self, fields: Sequence[Haloed], tag: int):
        self.fields = list(fields)
        self.layout = fields[0].layout
        if any(field.layout.cuts != self.layout.cuts for field in fields):
            raise ValueError("fields of one exchange must share their layout")
        if any(field.boundary != fields[0].boundary or field.halo < 1 for field in fields):
            raise ValueError("fields of one exchange must share their boundaries and have a halo")
        self.remote_axes: tuple[int, ...] = ()
        self._local: list[Direction] = []
        self._messages = [_Message(rank, travels) for rank, travels in self._neighbours().items()]
        comm = self.layout.world.comm
        for message in self._messages:
            message.allocate(self.fields)
            message.receive = comm.Recv_init([message.incoming, MPI.BYTE], message.rank, tag)
            message.send = comm.Send_init([message.outgoing, MPI.BYTE], message.rank, tag)
        self._receives = [message.receive for message in self._messages]
        self._sends = [message.send for message in self._messages]

    def _neighbours(self) -> dict[int, list[Direction]]:
        """The directions in which data leaves for each other rank; those that stay go to `_local`."""
        found: dict[int, list[Direction]] = {}
        layout, remote = self.layout, set()
        for travel in product((-1, 0, 1), repeat=layout.ndim):
            rank = self._neighbour(travel)
            if rank is None or not any(travel):
                continue
            if rank == layout.world.rank:
                self._local.append(travel)
                continue
            found.setdefault(rank, []).append(travel)
            remote |= {axis for axis, d in enumerate(travel) if d and layout.grid[axis] > 1}
        # Where A sends to B in direction d, B receives into its ghosts on side -d: both sort by d.
        self.remote_axes = tuple(sorted(remote))
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
        """Send the edges; fill the ghosts that this rank owns itself."""
        if self._messages:
            MPI.Prequest.Startall(self._receives)
            for message in self._messages:
                message.pack()
            MPI.Prequest.Startall(self._sends)
        for field in self.fields:
            for travel in self._local:
                field.array[ghost(field, travel)] = field.array[edge(field, travel)]

    def finish(self) -> None:
        """Wait for the neighbours' edges and put them into the ghosts."""
        if self._messages:
            MPI.Request.Waitall([*self._receives, *self._sends])
            for message in self._messages:
                message.unpack()

    def regions(self) -> tuple[Region, list[Region]]:
        """The part of the block that no remote ghost touches, and disjoint slabs that cover the rest.

        Both as slices of the local block, without halo.
        """
        halo = max(field.halo for field in self.fields)
        inner = [slice(0, n) for n in self.layout.local_shape]
        borders: list[Region] = []
        for axis in self.remote_axes:
            n = self.layout.local_shape[axis]
            low, high = min(halo, n), max(n - halo, min(halo, n))
            borders.append((*inner[:axis], slice(0, low), *inner[axis + 1 :]))
            borders.append((*inner[:axis], slice(high, n), *inner[axis + 1 :]))
            inner[axis] = slice(low, high)
        return tuple(inner), [region for region in borders if all(s.stop > s.start for s in region)]


def edge(field: Haloed, travel: Direction) -> Region:
    """The cells of a padded block that leave in a direction."""
    h = field.halo
    sides = {-1: slice(h, 2 * h), 0: slice(h, -h), 1: slice(-2 * h, -h)}
    return tuple(sides[d] for d in travel)


def ghost(field: Haloed, travel: Direction) -> Region:
    """The cells of a padded block into which data that travels in a direction arrives."""
    h = field.halo
    sides = {-1: slice(-h, None), 0: slice(h, -h), 1: slice(0, h)}
    return tuple(sides[d] for d in travel)


class _Message:
    """All that goes to and comes from one neighbour, in one buffer each way."""

    send: Any
    receive: Any

    def __init__(self, rank: int, travels: list[Direction]):
        self.rank = rank
        self.travels = travels

    def allocate(self, fields: Sequence[Haloed]) -> None:
        """Buffers with a view for every part; the neighbour's travels mirror ours, in sorted order."""
        arrivals = sorted(tuple(-d for d in travel) for travel in self.travels)
        self.outgoing, self._out = _buffer([(f, edge(f, t)) for f in fields for t in sorted(self.travels)])
        self.incoming, self._in = _buffer([(f, ghost(f, t)) for f in fields for t in arrivals])

    def pack(self) -> None:
        """Copy the edges into the outgoing buffer."""
        for field, region, view in self._out:
            view[...] = field.device.to_host(field.array[region])

    def unpack(self) -> None:
        """Copy the incoming buffer into the ghosts."""
        for field, region, view in self._in:
            field.array[region] = field.device.from_host(view)


def _buffer(parts: list[tuple[Haloed, Region]]) -> tuple[np.ndarray, list[tuple[Haloed, Region, np.ndarray]]]:
    shapes = [tuple(len(range(*s.indices(n))) for s, n in zip(r, f.array.shape, strict=True)) for f, r in parts]
    sizes = [int(np.prod(shape)) * f.dtype.itemsize for (f, _), shape in zip(parts, shapes, strict=True)]
    offsets = np.concatenate([[0], np.cumsum([-(-size // 16) * 16 for size in sizes])]).astype(int)
    memory = np.zeros(int(offsets[-1]), np.uint8)
    views = [
        (field, region, memory[at : at + size].view(field.dtype).reshape(shape))
        for (field, region), shape, at, size in zip(parts, shapes, offsets, sizes, strict=False)
    ]
    return memory, views
