"""A rank's side of its worker: start it, send tasks, receive records, watch it, and end it with all it has started."""

from __future__ import annotations

import mmap
import os
import pickle
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from anyrank.farm.tasks import DONE, HEAD, NO_TASK, Record, decode
from anyrank.farm.worker import Item, Job
from anyrank.launcher import without_launch
from anyrank.runtime.children import descendants, die_with_parent

#: The variable by which all processes that a worker has started are found, also those that have left its session.
MARK = "ANYRANK_FARM_WORKER"
#: Bytes read from the worker at a time.
_READ = 1 << 20


@dataclass
class Received:
    """Tasks that have ended: those that are done, their seconds and encoded records, and the records of others."""

    done: list[int] = field(default_factory=list)
    seconds: float = 0.0
    parts: list[bytes] = field(default_factory=list)
    others: list[Record] = field(default_factory=list)

    def records(self) -> list[Record]:
        """Return all records."""
        return [record for record, _ in decode(b"".join(self.parts), check=False)] + self.others


class Lane:
    """The worker of a rank. The worker starts at once; `ready` tells whether it has loaded the function."""

    def __init__(self, job: Job):
        own, other = socket.socketpair()
        cell = os.memfd_create("anyrank-farm-task")
        os.ftruncate(cell, 8)
        #: The task that the worker has begun last, in memory that both processes share: what it has done before, but
        #: not sent yet, must not be blamed when it dies.
        self._begun = memoryview(mmap.mmap(cell, 8)).cast("q")
        self._begun[0] = NO_TASK
        self._mark = f"{MARK}={os.getpid()}-{time.time_ns()}"
        with Path(job.log).open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "anyrank.farm.start", str(other.fileno()), str(cell)],
                env={**without_launch(os.environ), **dict([self._mark.split("=")])},
                pass_fds=[other.fileno(), cell, *(shared.descriptor for shared in job.shared)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_prepare,
            )
        other.close()
        os.close(cell)
        own.setblocking(False)
        self._socket, self._out, self._in = own, bytearray(pickle.dumps(job)), bytearray()
        self.ready = False
        #: The tasks that were sent and have not ended, by index, in the order in which they were sent.
        self.pending: dict[int, Item] = {}
        #: The tasks that run, with the times of the monotonic clock at which they started; only if several run at once.
        self.started: dict[int, float] = {}
        self._several = job.concurrency > 1
        self._shared_pages = sum(shared.size for shared in job.shared) // os.sysconf("SC_PAGE_SIZE")
        self._since = time.monotonic()
        self.pid = self._process.pid

    def send(self, items: Sequence[Item]) -> None:
        """Send tasks to the worker."""
        if not self.pending:
            self._since = time.monotonic()
        self.pending |= {item.task: item for item in items}
        self._out += pickle.dumps([tuple(item) for item in items], 5)  # a third of the time of named tuples
        self._write()

    def _write(self) -> None:
        with suppress(BlockingIOError, ConnectionError):
            while self._out:
                del self._out[: self._socket.send(memoryview(self._out)[:_READ].tobytes())]

    def wait(self, seconds: float) -> None:
        """Wait until the worker sends something, or for this time."""
        select.select([self._socket], [self._socket] if self._out else [], [], seconds)

    def register(self, selector: selectors.BaseSelector) -> None:
        """Register what this worker waits for."""
        selector.register(self._socket, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0))

    def receive(self) -> Received:
        """Return what has ended. Raises WorkerError if the worker could not begin."""
        self._write()
        with suppress(BlockingIOError, ConnectionError):
            while data := self._socket.recv(_READ):
                self._in += data
        got = Received()
        view = memoryview(self._in)
        end = self._read(view, got)
        view.release()  # a bytearray with a view cannot shrink
        del self._in[:end]
        if got.done or got.others:
            self._since = time.monotonic()
        return got

    def _read(self, data: memoryview, got: Received) -> int:
        """Add the complete records at the begin of the data, and return their end."""
        begin, size, head, unpack, pop = 0, len(data), HEAD.size, HEAD.unpack_from, self.pending.pop
        while begin + head <= size:
            length, _, task, attempts, status, start, seconds = unpack(data, begin)
            end = begin + head + length
            if end > size:
                break
            if status == DONE and task >= 0:
                got.done.append(task)
                got.seconds += seconds
                got.parts.append(bytes(data[begin:end]))
            else:
                record = Record(task, attempts, status, start, seconds, bytes(data[begin + head : end]))
                if task < 0:
                    self._note(record)
                else:
                    got.others.append(record)
            if task >= 0:
                pop(task, None)
                if self._several:
                    self.started.pop(task, None)
            begin = end
        return begin

    def _note(self, record: Record) -> None:
        """Note a message of the worker itself."""
        if record.task != NO_TASK:
            self.started[-2 - record.task] = time.monotonic()
        elif record.status:
            raise WorkerError(record.outcome().trace or record.outcome().error)
        else:
            self.ready = True
            self._since = time.monotonic()

    def running(self) -> dict[int, float]:
        """Return the tasks that may be running, with the times at which they started."""
        if self._several:
            return self.started
        task = self._begun[0]
        return {task: self._since} if task in self.pending else {}

    def ended(self) -> str:
        """Return how the worker ended: `exit status 2`, `signal 9`; empty while it runs."""
        status = self._process.poll()
        if status is None:
            return ""
        return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"

    def memory(self) -> int:
        """Return the resident memory of the worker and of all that it started, without shared inputs, in bytes."""
        total = 0
        for process in (self.pid, *descendants(self.pid)):
            with suppress(OSError, ValueError):
                resident, common = map(int, Path(f"/proc/{process}/statm").read_text("utf-8").split()[1:3])
                total += resident - min(common, self._shared_pages)
        return total * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        """End the worker and all that its tasks have started."""
        self._socket.close()
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if self._mark.encode() in entry.read_bytes():
                    os.kill(int(entry.parent.name), signal.SIGKILL)


class WorkerError(Exception):
    """The worker could not load the function; the text is a traceback."""


def _prepare() -> None:
    die_with_parent(signal.SIGKILL)
    with suppress(OSError):  # if memory runs out, the system ends the worker before the rank
        Path("/proc/self/oom_score_adj").write_text("1000", "utf-8")
