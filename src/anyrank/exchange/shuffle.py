"""Shuffle: rows to the ranks that own them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from mpi4py import MPI

from anyrank.errors import AnyrankError
from anyrank.world import World

#: The largest message, in bytes: counts and sizes of more than 31 bits are not for every MPI.
MESSAGE = 1 << 28
#: All shuffles use the tag that `World.tag` never gives: each is over before the next begins, on every rank.
_TAG = 0


class Shuffle:
    """Rows to the ranks that own them, any number to each: an all-to-all. Making one is collective.

    `counts[r]` of this rank's rows go to rank r; `received[r]` come from rank r. Called with a column whose rows lie
    by their destination, it returns the rows that this rank receives, by their source. Both are int64 arrays.
    """

    def __init__(self, world: World, counts: Sequence[int] | np.ndarray):
        self.world = world
        self.counts = np.ascontiguousarray(counts, np.int64)
        self.received = np.empty_like(self.counts)
        began = world.timers.start()
        world.comm.Alltoall(self.counts, self.received)
        world.timers.stop("exchange", began)

    def __call__(self, column: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The rows received of a column of any fixed dtype, and any shape beyond the first axis: in the first rows of
        `out`, where it is given. Its type is the same on all ranks. Collective."""
        rows = int(self.received.sum())
        result = np.empty((rows, *column.shape[1:]), column.dtype) if out is None else out[:rows]
        sent, got = self._parts(np.ascontiguousarray(column), self.counts), self._parts(result, self.received)
        world = self.world
        began = world.timers.start()
        arriving, leaving = [], []
        for distance in range(1, world.size):
            to, source = (world.rank + distance) % world.size, (world.rank - distance) % world.size
            arriving += [(source, len(part), world.comm.Irecv(part, source, _TAG)) for part in _messages(got[source])]
            leaving += [world.comm.Isend(part, to, _TAG) for part in _messages(sent[to])]
        got[world.rank][:] = sent[world.rank]
        for source, size, request in arriving:
            _wait(request, source, size)
        MPI.Request.Waitall(leaving)
        world.timers.stop("exchange", began)
        world.timers.count("messages", "bytes", column.nbytes - sent[world.rank].nbytes, world.size - 1)
        return result

    @staticmethod
    def _parts(array: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
        """The bytes of the rows of each rank: views."""
        ends = np.cumsum(counts) * (array.nbytes // max(1, len(array)))
        return np.split(array.reshape(-1).view(np.uint8), ends[:-1])


def _wait(request: MPI.Request, source: int, size: int) -> None:
    """Wait for a message; raises AnyrankError where it is not of this size, for then the rest of it is no values."""
    status = MPI.Status()
    request.Wait(status)
    if (came := status.Get_count(MPI.BYTE)) != size:
        raise AnyrankError(
            f"a column of a shuffle has other rows on rank {source}: {came} bytes came, not {size}. "
            "Give it the same dtype and shape on all ranks."
        )


def _messages(part: np.ndarray) -> Iterator[np.ndarray]:
    return (part[first : first + MESSAGE] for first in range(0, len(part), MESSAGE))
