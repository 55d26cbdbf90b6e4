"""A task: what a function can know about itself, and the records in which results are kept."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from struct import Struct
from typing import Any, NamedTuple

from anyrank.errors import AnyrankError

#: What became of a task. Each is the last word about it, and the word in the results.
STATUSES = ("done", "failed", "timed out", "died", "out of memory", "skipped", "expired")
DONE, FAILED, TIMED_OUT, DIED, OUT_OF_MEMORY, SKIPPED, EXPIRED = range(7)

#: The head of a record: bytes and CRC-32 of what follows, index, attempts, status, start (seconds since 1970), seconds.
HEAD = Struct("<IIqHBdd")
#: The index of a message of the worker itself.
NO_TASK = -1


def encode(body: bytes, task: int, attempts: int, status: int, start: float, seconds: float) -> bytes:
    """Return a record for a file or a pipe."""
    return HEAD.pack(len(body), zlib.crc32(body), task, attempts, status, start, seconds) + body


class Record(NamedTuple):
    """The end of a task: its index, attempts, status, start in seconds since 1970, seconds, and the pickled outcome."""

    task: int
    attempts: int
    status: int
    start: float
    seconds: float
    body: bytes

    def encode(self) -> bytes:
        """Return the record for a file or a pipe."""
        return encode(self.body, self.task, self.attempts, self.status, self.start, self.seconds)

    def outcome(self) -> Outcome:
        """Return what the task returned or raised."""
        return Outcome(*pickle.loads(self.body))


class Outcome(NamedTuple):
    """What a task returned, what it printed, and its error: a line, a traceback and the pickled exception."""

    value: Any = None
    output: str = ""
    error: str = ""
    trace: str = ""
    exception: bytes = b""

    def encode(self) -> bytes:
        """Return the body of a record, without the empty fields after the value."""
        return pickle.dumps(tuple(self) if any(self[1:]) else self[:1], 5)


def decode(data: Any, check: bool = True) -> Iterator[tuple[Record, int]]:
    """Yield the complete records in bytes or a mapped file, each with its end; stops at one that is not complete.

    With `check`, it also stops at a damaged record.
    """
    size, unpack, head, begin = len(data), HEAD.unpack_from, HEAD.size, 0
    while begin + head <= size:
        length, crc, task, attempts, status, start, seconds = unpack(data, begin)
        end = begin + head + length
        if end > size:
            return
        body = bytes(data[begin + head : end])
        if check and zlib.crc32(body) != crc:
            return
        yield Record(task, attempts, status, start, seconds, body), end
        begin = end


@dataclass(frozen=True)
class Task:
    """The task that a function works on; `anyrank.farm.task()` returns it.

    Parameters
    ----------
    index : int
        Its row in the table, from 0.
    id : str
        Its identifier: the value of the column of --id, or its index.
    attempt : int
        1, and one more for every time that it is tried again.
    seed : int
        The seed of the farm.
    outcomes : mapping, optional
        The encoded outcomes of the tasks that it needs, by their identifiers; see `needed`.

    Examples
    --------
    >>> farm.Task(index=3, id="oslo", attempt=1, seed=0).random.integers(0, 6, 4)
    array([0, 2, 2, 2])
    """

    index: int
    id: str
    attempt: int
    seed: int
    outcomes: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @cached_property
    def needed(self) -> dict[str, Any]:
        """The values of the tasks that it needs (--after), by their identifiers, in the order of the column."""
        return {name: pickle.loads(body)[0] for name, body in self.outcomes.items()}

    @cached_property
    def random(self) -> Any:
        """A numpy.random.Generator that depends on the seed and the index only, not on ranks, order or attempts."""
        import numpy as np

        return np.random.Generator(np.random.Philox(key=np.array([self.seed, self.index], np.uint64)))


#: The arguments of `Task` for the task of this thread or coroutine.
CURRENT: ContextVar[tuple[int, str, int, int, Mapping[str, bytes]]] = ContextVar("task")


def task() -> Task:
    """Return the task that the calling function works on. Not collective.

    Raises
    ------
    AnyrankError
        Outside of a task.

    Examples
    --------
    >>> def sample(n):
    ...     return float(farm.task().random.normal(size=n).mean())
    """
    try:
        return Task(*CURRENT.get())
    except LookupError:
        raise AnyrankError("farm.task() is for functions that a farm calls: there is no task here.") from None
