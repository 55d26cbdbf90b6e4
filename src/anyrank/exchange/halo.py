"""Halo exchange: copy the values of the owning ranks into the ghost cells, including the corners."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from mpi4py import MPI

from anyrank.exchange.packing import HaloField, PackedRegions, Region, Wrap, open_buffers

Direction = tuple[int, ...]


class Halo:
    """The halo exchange of fields that share a layout: one message to each neighbouring rank.

    The constructor is collective. `start` sends the edges of this rank and returns at once. Until `finish` the
    ghost cells hold old values, and the interior may be read but not written. Every ghost cell is sent directly by
    its owner, also at corners, so one round of messages is enough. Along an axis that is not cut, a rank is its own
    neighbour: `start` first copies these ghost cells. The edges that it then sends include them, so that the receiver
    gets their corners, too.

    On a GPU `start` does not wait, so that the interior can be launched; `finish` sends the edges. After `finish` the
    host continues, and the compute stream runs later launches after the exchange.
    """

    def __init__(self, fields: Sequence[HaloField], tag: int):
        self.fields = list(fields)
        self.layout = fields[0].layout
        if any(field.layout.cuts != self.layout.cuts for field in fields):
            raise ValueError("fields of one exchange must share their layout")
        if any(field.boundary != fields[0].boundary or field.margin < 1 for field in fields):
            raise ValueError("fields of one exchange must share their boundaries and have a halo")
        self.cut_axes = tuple(axis for axis, parts in enumerate(self.layout.grid) if parts > 1)
        edges, ghosts = PackedRegions(), PackedRegions()
        messages = {}
        for rank, directions in self._neighbours().items():
            # The neighbour sends in the opposite directions, and its message has them in ascending order, as ours.
            opposite = sorted(tuple(-d for d in direction) for direction in directions)
            send = edges.add((f, edge(f, d, self.cut_axes)) for f in self.fields for d in sorted(directions))
            receive = ghosts.add((f, ghost(f, d, self.cut_axes)) for f in self.fields for d in opposite)
            messages[rank] = send, receive
        world, wraps = self.layout.world, [*self._local_wraps()]
        self._buffers = buffers = open_buffers(self.fields, wraps, edges, ghosts)
        self._receives, self._sends = [], []
        for rank, (send, receive) in messages.items():
            self._receives.append(world.comm.Recv_init([buffers.incoming[receive], MPI.BYTE], rank, tag))
            self._sends.append(world.comm.Send_init([buffers.outgoing[send], MPI.BYTE], rank, tag))
        self._bytes = edges.nbytes
        self._recorder = self.layout.world.recorder
        self._description = f"the halo exchange of {', '.join(field.name for field in self.fields)}"

    def _local_wraps(self) -> Iterator[Wrap]:
        """Yield the ghost cells along periodic axes that are not cut, each with the edge that it copies.

        The host copies one axis after the other, which moves fewer cells; a GPU copies all of them in one launch.
        """
        boundary, on_host = self.fields[0].boundary, self.fields[0].device.on_host
        axes = [a for a in range(self.layout.ndim) if a not in self.cut_axes and boundary[a] == "periodic"]
        for along in [(axis,) for axis in axes] if on_host else [tuple(axes)]:
            for direction in self._directions(along):
                for field in self.fields:
                    yield field, ghost(field, direction, along), edge(field, direction, along)

    def _directions(self, axes: Sequence[int]) -> Iterator[Direction]:
        """Return all directions along the given axes, with the diagonal ones."""
        steps = [(-1, 0, 1) if axis in axes else (0,) for axis in range(self.layout.ndim)]
        return filter(any, product(*steps))

    def _neighbours(self) -> dict[int, list[Direction]]:
        """Return the neighbouring ranks, and the directions in which this rank sends to each of them."""
        directions: dict[int, list[Direction]] = {}
        for direction in self._directions(self.cut_axes):
            rank = self._neighbour(direction)
            if rank is not None:
                directions.setdefault(rank, []).append(direction)
        return directions

    def _neighbour(self, direction: Direction) -> int | None:
        target = []
        for axis, d in enumerate(direction):
            position, parts = self.layout.position[axis] + d, self.layout.grid[axis]
            if not 0 <= position < parts and self.fields[0].boundary[axis] == "fixed":
                return None
            target.append(position % parts)
        return self.layout.rank_at(target)

    def start(self) -> None:
        """Fill the ghost cells whose owner is this rank, and send the edges. Collective among neighbours."""
        if self._recorder is not None:
            self._recorder.compare(self._description)
        self._buffers.wrap()
        if self._sends:
            timers = self.layout.world.timers
            began = timers.start()
            if self._buffers.synchronous:
                MPI.Prequest.Startall(self._receives)
            self._buffers.pack()
            if self._buffers.synchronous:
                MPI.Prequest.Startall(self._sends)
            timers.stop("exchange", began)
            timers.count("messages", "bytes", self._bytes, len(self._sends))

    def finish(self) -> None:
        """Wait for the edges of the neighbours and copy them into the ghost cells. Collective among neighbours."""
        if self._sends:
            timers, requests = self.layout.world.timers, [*self._receives, *self._sends]
            began = timers.start()
            if not self._buffers.synchronous:
                self._buffers.wait()
                MPI.Prequest.Startall(requests)
            MPI.Request.Waitall(requests)
            self._buffers.unpack()
            timers.stop("exchange", began)

    def regions(self, whole: Region) -> tuple[Region, list[Region]]:
        """Split a region into the part that needs no remote ghost cell, and disjoint slabs that cover the rest.

        All are slices of the local block. The region is the block, or reaches further into the ghost cells.
        """
        halo = max(field.halo for field in self.fields)
        inner = list(whole)
        borders: list[Region] = []
        for axis in self.cut_axes:
            n = self.layout.local_shape[axis]
            low = min(halo, n)
            high = max(n - halo, low)  # a block thinner than two halos has no interior
            borders.append((*inner[:axis], slice(whole[axis].start, low), *inner[axis + 1 :]))
            borders.append((*inner[:axis], slice(high, whole[axis].stop), *inner[axis + 1 :]))
            inner[axis] = slice(low, high)
        return tuple(inner), [region for region in borders if all(s.stop > s.start for s in region)]


def edge(field: HaloField, direction: Direction, axes: Sequence[int]) -> Region:
    """Return the cells of a padded block that are sent in a direction along `axes`, in full width along other axes."""
    h = field.margin
    sides = {-1: slice(h, 2 * h), 0: slice(h, -h), 1: slice(-2 * h, -h)}
    return tuple(sides[d] if axis in axes else slice(None) for axis, d in enumerate(direction))


def ghost(field: HaloField, direction: Direction, axes: Sequence[int]) -> Region:
    """Return the ghost cells of a padded block that receive what is sent in a direction along `axes`."""
    h = field.margin
    sides = {-1: slice(-h, None), 0: slice(h, -h), 1: slice(0, h)}
    return tuple(sides[d] if axis in axes else slice(None) for axis, d in enumerate(direction))
