"""Halo exchange: every rank's ghost cells get their owners' values, corners included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from mpi4py import MPI

from anyrank.exchange.packing import Haloed, Parts, Region, Wrap, open_buffers

Direction = tuple[int, ...]


class Halo:
    """The exchange of the halos of some fields of one layout: one message to each neighbouring rank.

    Making one is collective. `start` sends this rank's edges and returns at once; until `finish` the
    ghosts hold old values and the interior may be read, not written. All ghosts travel directly from
    their owners, corners too, so one round is enough (no axis waits for another). Along an axis that is not
    cut a rank is its own neighbour: there it copies, first of all, and then sends its edges in full width.

    From a GPU edges are sent in `finish`, for `start` waits for nothing: the interior is launched meanwhile. After
    both the host may go on as if all were done; what is launched in the computing's stream comes after it.
    """

    def __init__(self, fields: Sequence[Haloed], tag: int):
        self.fields = list(fields)
        self.layout = fields[0].layout
        if any(field.layout.cuts != self.layout.cuts for field in fields):
            raise ValueError("fields of one exchange must share their layout")
        if any(field.boundary != fields[0].boundary or field.margin < 1 for field in fields):
            raise ValueError("fields of one exchange must share their boundaries and have a halo")
        self.cut_axes = tuple(axis for axis, parts in enumerate(self.layout.grid) if parts > 1)
        leaving, arriving = Parts(), Parts()
        ends = {}
        for rank, travels in self._neighbours().items():
            # The neighbour's travels mirror ours, and it sorts them, too.
            arrivals = sorted(tuple(-d for d in travel) for travel in travels)
            there = leaving.add((f, edge(f, t, self.cut_axes)) for f in self.fields for t in sorted(travels))
            here = arriving.add((f, ghost(f, t, self.cut_axes)) for f in self.fields for t in arrivals)
            ends[rank] = there, here
        world, wraps = self.layout.world, [*self._own_wraps()]
        self._buffers = buffers = open_buffers(self.fields, wraps, leaving, arriving)
        self._receives, self._sends = [], []
        for rank, (there, here) in ends.items():
            self._receives.append(world.comm.Recv_init([buffers.incoming[here], MPI.BYTE], rank, tag))
            self._sends.append(world.comm.Send_init([buffers.outgoing[there], MPI.BYTE], rank, tag))
        self._bytes = leaving.nbytes
        self._recorder = self.layout.world.recorder
        self._words = f"the halo exchange of {', '.join(field.name for field in self.fields)}"

    def _own_wraps(self) -> Iterator[Wrap]:
        """Ghosts and the edges they repeat, along periodic axes that are not cut.

        On the host axis after axis, which is less to copy; on a GPU all at once, each ghost from its owner.
        """
        boundary, on_host = self.fields[0].boundary, self.fields[0].device.on_host
        axes = [a for a in range(self.layout.ndim) if a not in self.cut_axes and boundary[a] == "periodic"]
        for along in [(axis,) for axis in axes] if on_host else [tuple(axes)]:
            for travel in self._travels(along):
                for field in self.fields:
                    yield field, ghost(field, travel, along), edge(field, travel, along)

    def _travels(self, axes: Sequence[int]) -> Iterator[Direction]:
        """All directions along some axes."""
        steps = [(-1, 0, 1) if axis in axes else (0,) for axis in range(self.layout.ndim)]
        return filter(any, product(*steps))

    def _neighbours(self) -> dict[int, list[Direction]]:
        """The directions in which data leaves, by the rank it goes to."""
        found: dict[int, list[Direction]] = {}
        # Where A sends to B in direction d, B receives into its ghosts on side -d: both sort by d.
        for travel in self._travels(self.cut_axes):
            rank = self._neighbour(travel)
            if rank is not None:
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
        self._buffers.wrap()
        if self._sends:
            timers = self.layout.world.timers
            began = timers.start()
            if self._buffers.at_once:
                MPI.Prequest.Startall(self._receives)
            self._buffers.pack()
            if self._buffers.at_once:
                MPI.Prequest.Startall(self._sends)
            timers.stop("exchange", began)
            timers.count("messages", "bytes", self._bytes, len(self._sends))

    def finish(self) -> None:
        """Wait for the neighbours' edges and put them into the ghosts."""
        if self._sends:
            timers, requests = self.layout.world.timers, [*self._receives, *self._sends]
            began = timers.start()
            if not self._buffers.at_once:
                self._buffers.wait()
                MPI.Prequest.Startall(requests)
            MPI.Request.Waitall(requests)
            self._buffers.unpack()
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
