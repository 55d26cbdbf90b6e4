"""Halo exchange: copy the values of the owning ranks into the ghost cells, including the corners."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

from mpi4py import MPI

from anyrank.exchange.block import HaloBlock, Region
from anyrank.exchange.packing import PackedRegions, Wrap, open_buffers
from anyrank.exchange.walls import fill

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

    def __init__(self, fields: Sequence[HaloBlock], tag: int):
        self.fields = list(fields)
        self.layout = fields[0].cells
        if any(field.cells.cuts != self.layout.cuts for field in fields):
            raise ValueError("fields of one exchange must share their layout")
        if any(field.periodic != fields[0].periodic or not any(field.margin) for field in fields):
            raise ValueError("fields of one exchange must share their periodic axes and have a halo")
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
        periodic, on_host = self.fields[0].periodic, self.fields[0].device.on_host
        axes = [a for a in range(self.layout.ndim) if a not in self.cut_axes and periodic[a]]
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
            if not 0 <= position < parts and not self.fields[0].periodic[axis]:
                return None
            target.append(position % parts)
        return self.layout.rank_at(target)

    def start(self) -> None:
        """Fill the ghost cells whose owner is this rank, and send the edges. Collective among neighbours."""
        if self._recorder is not None:
            self._recorder.compare(self._description)
        self._buffers.wrap()
        self._fill([axis for axis in range(self.layout.ndim) if axis not in self.cut_axes])
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
            self._fill(range(self.layout.ndim))

    def _fill(self, axes: Sequence[int]) -> None:
        """Fill the ghost cells outside the walls: before the messages arrive only those of axes that are not cut."""
        for field in self.fields:
            fill(field, axes)

    def regions(self, whole: Region) -> tuple[Region, list[Region]]:
        """Split a region into the part that needs no remote ghost cell, and disjoint slabs that cover the rest.

        All as slices of the local block; the region is the block, or reaches further into the ghosts.
        """
        inner = list(whole)
        borders: list[Region] = []
        for axis in self.cut_axes:
            n, halo = self.layout.local_shape[axis], max(field.halo[axis] for field in self.fields)
            low = min(halo, n)
            high = max(n - halo, low)  # a block thinner than two halos has no interior
            borders.append((*inner[:axis], slice(whole[axis].start, low), *inner[axis + 1 :]))
            borders.append((*inner[:axis], slice(high, whole[axis].stop), *inner[axis + 1 :]))
            inner[axis] = slice(low, high)
        return tuple(inner), [region for region in borders if all(s.stop > s.start for s in region)]


def halo_of(fields: Sequence[HaloBlock]) -> Halo:
    """Return the halo exchange of several fields; the first call for them is collective."""
    key, exchanges = tuple(field.name for field in fields), fields[0].exchanges
    if key not in exchanges:
        exchanges[key] = Halo(fields, fields[0].layout.world.tag())
    halo: Halo = exchanges[key]
    return halo


def edge(field: HaloBlock, direction: Direction, axes: Sequence[int]) -> Region:
    """Return the cells of `storage` that are sent in a direction along `axes`; the other axes have full width."""
    return _region(field, direction, axes, lambda m, n: {-1: slice(m, 2 * m), 1: slice(n, n + m)})


def ghost(field: HaloBlock, direction: Direction, axes: Sequence[int]) -> Region:
    """Return the ghost cells of `storage` that receive what is sent in a direction along `axes`."""
    return _region(field, direction, axes, lambda m, n: {-1: slice(m + n, n + 2 * m), 1: slice(0, m)})


def _region(
    field: HaloBlock, direction: Direction, axes: Sequence[int], ends: Callable[[int, int], dict[int, slice]]
) -> Region:
    sizes = zip(field.margin, field.block, direction, strict=True)
    sides = [{0: slice(m, m + s.stop), **ends(m, s.stop)}[d] for m, s, d in sizes]
    chosen = (side if axis in axes else slice(None) for axis, side in enumerate(sides))
    return (*(slice(None) for _ in field.components), *chosen)
