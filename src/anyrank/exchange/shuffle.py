"""Shuffle: send rows to the ranks that own them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from mpi4py import MPI

from anyrank.errors import AnyrankError
from anyrank.world import World

#: The largest message, in bytes: not every MPI supports counts and sizes of more than 31 bits.
MESSAGE = 1 << 28
#: The tag of all shuffles, which `World.tag` never returns: on every rank a shuffle ends before the next one begins.
_TAG = 0


class Shuffle:
    """An all-to-all exchange of rows. The constructor is collective.

    This rank sends `counts[r]` rows to rank r and receives `received[r]` rows from it; both are int64 arrays. A call
    takes a column with its rows in the order of their destinations, and returns the received rows in the order of
    their sources.
    """

    def __init__(self, world: World, counts: Sequence[int] | np.ndarray):
        self.world = world
        self.counts = np.ascontiguousarray(counts, np.int64)
        self.received = np.empty_like(self.counts)
        began = world.timers.start()
        world.comm.Alltoall(self.counts, self.received)
        world.timers.stop("exchange", began)

    def __call__(self, column: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Exchange a column and return the received rows, in the first rows of `out` if it is given. Collective.

        The column may have any dtype of fixed size, and any number of axes after the first; both are the same on all
        ranks.
        """
        rows = int(self.received.sum())
        result = np.empty((rows, *column.shape[1:]), column.dtype) if out is None else out[:rows]
        send, receive = self._parts(np.ascontiguousarray(column), self.counts), self._parts(result, self.received)
        world = self.world
        began = world.timers.start()
        receives, sends = [], []
        for distance in range(1, world.size):
            to, source = (world.rank + distance) % world.size, (world.rank - distance) % world.size
            receives += [(source, len(p), world.comm.Irecv(p, source, _TAG)) for p in _messages(receive[source])]
            sends += [world.comm.Isend(part, to, _TAG) for part in _messages(send[to])]
        receive[world.rank][:] = send[world.rank]
        for source, size, request in receives:
            _wait(request, source, size)
        MPI.Request.Waitall(sends)
        world.timers.stop("exchange", began)
        world.timers.count("messages", "bytes", column.nbytes - send[world.rank].nbytes, world.size - 1)
        return result

    @staticmethod
    def _parts(array: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
        """Return views of the bytes of each rank's rows."""
        ends = np.cumsum(counts) * (array.nbytes // max(1, len(array)))
        return np.split(array.reshape(-1).view(np.uint8), ends[:-1])


def _wait(request: MPI.Request, source: int, size: int) -> None:
    """Wait for a message; raise AnyrankError unless it has `size` bytes, because the others would be undefined."""
    status = MPI.Status()
    request.Wait(status)
    if (received := status.Get_count(MPI.BYTE)) != size:
        raise AnyrankError(
            f"a column of a shuffle has rows of another size on rank {source}: {received} bytes arrived, not {size}. "
            "Give the column the same dtype and shape on all ranks."
        )


def _messages(part: np.ndarray) -> Iterator[np.ndarray]:
    return (part[first : first + MESSAGE] for first in range(0, len(part), MESSAGE))
