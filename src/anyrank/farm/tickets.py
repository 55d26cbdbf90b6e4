"""Tickets: which rank takes which task is decided by one-sided atomic operations of MPI, without a master.

Rank 0 only holds the memory of the counters. No rank answers a message: a rank adds to a counter by
`MPI_Fetch_and_op`, and the ranks' own processes never work on a task (workers do), so that an MPI which needs the
target's help gets it within a millisecond.
"""

from __future__ import annotations

import numpy as np
from mpi4py import MPI

from anyrank.world import World

#: The indices of the counters; entries of the queue, and what is known of each task, follow.
_READY, _WAITING, _ENDED, _FAILED, _TAIL, _QUEUE = range(6)


class Tickets:
    """Counters that all ranks share: tickets for tasks, tasks that have ended, a queue. Construction is collective.

    Ticket k is for the k-th task that is ready at the begin. A ticket of the queue is for one of its entries, which may
    not be filled yet: tasks that became ready later, because those that they need have ended, or because they are to be
    tried by another rank.

    Parameters
    ----------
    world : World
        The ranks.
    queue : int
        The largest number of entries of the queue.
    needs : int64 array, optional
        For each task, the number of tasks that must be done before it; omitted if no task ever needs another.
    places : int64 array, optional
        For each task, the place of its record, −1 if it is not done; omitted like `needs`.
    """

    def __init__(self, world: World, queue: int, needs: np.ndarray | None = None, places: np.ndarray | None = None):
        self._world, self.ranks, self.several_nodes = world, world.size, world.node_size < world.size
        known = [array for array in (needs, places) if array is not None]
        self._queue, self._tasks = queue, len(known[0]) if known else 0
        root = world.rank == 0
        size = (_QUEUE + queue + sum(map(len, known))) * 8 if root else 0
        self._window = MPI.Win.Allocate(size, 8, comm=world.comm)
        self._window.Lock_all()
        if root:
            memory = np.asarray(self._window.tomemory()).view(np.int64)
            memory[:] = 0
            memory[_QUEUE + queue :] = np.concatenate([*known, np.array([], np.int64)])
            self._window.Sync()
        world.barrier()
        #: Whether some MPIs need the help of this process for the operations of ranks on other nodes.
        self.serves_nodes = root and self.several_nodes
        self._one, self._old = np.zeros(1, np.int64), np.zeros(1, np.int64)

    def _add(self, place: int, count: int) -> int:
        """Add to a number and return the value before."""
        self._one[0] = count
        self._window.Fetch_and_op(self._one, self._old, 0, place, MPI.SUM if count else MPI.NO_OP)
        self._window.Flush(0)
        return int(self._old[0])

    def take(self, count: int) -> int:
        """Take the next tickets for tasks that are ready at the begin; returns the first one. Not collective."""
        return self._add(_READY, count)

    def taken(self) -> int:
        """Return the number of tickets that were taken. Not collective."""
        return self._add(_READY, 0)

    def wait_in_queue(self) -> int:
        """Take the next ticket of the queue. Not collective."""
        return self._add(_WAITING, 1)

    def end(self, count: int, failed: int) -> None:
        """Add to the number of tasks that have ended, and of those that failed. Not collective."""
        if failed:
            self._add(_FAILED, failed)
        self._add(_ENDED, count)

    def ended(self) -> int:
        """Return the number of tasks that have ended. Not collective."""
        return self._add(_ENDED, 0)

    def failed(self) -> int:
        """Return the number of tasks that have failed. Not collective."""
        return self._add(_FAILED, 0)

    def offer(self, index: int) -> bool:
        """Append a task to the queue; returns False if the queue is full. Not collective."""
        place = self._add(_TAIL, 1)
        if place >= self._queue:
            return False
        self._add(_QUEUE + place, index + 1)  # the entry was zero
        return True

    def entry(self, place: int) -> int | None:
        """Return the task of an entry of the queue, None if the entry is not filled yet. Not collective."""
        index = self._add(_QUEUE + place, 0) if place < self._queue else 0
        return index - 1 if index else None

    def meet(self, index: int, count: int = 1) -> int:
        """Reduce the number of tasks that a task needs, and return what is left. Not collective."""
        return self._add(_QUEUE + self._queue + index, -count) - count

    def put_place(self, index: int, place: int) -> None:
        """Tell the place of the record of a task that is done. Not collective."""
        self._add(_QUEUE + self._queue + self._tasks + index, place + 1)  # −1 before

    def place(self, index: int) -> int:
        """Return the place of the record of a task, −1 if it is not done. Not collective."""
        return self._add(_QUEUE + self._queue + self._tasks + index, 0)

    def progress(self) -> None:
        """Let MPI work on the operations of other ranks. Not collective."""
        self._world.comm.Iprobe()

    def close(self) -> None:
        """Free the memory. Collective."""
        self._window.Unlock_all()
        self._window.Free()
