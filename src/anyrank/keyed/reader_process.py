"""A child process for the libraries that can crash, loop or take all memory at a damaged file: HDF5 and Parquet.

The child has a limit of CPU time for each item that it returns, and a limit of memory. If it dies, the error names the
file. Children stay for the next file: one start takes a few tenths of a second.
"""

from __future__ import annotations

import atexit
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from anyrank.errors import UsageError
from anyrank.launcher import without_launch

#: Seconds of CPU time, and of any time, for one item; bytes of memory beside those of the libraries.
CPU_SECONDS, SECONDS, MEMORY = 5, 600, 4 << 30
#: Seconds after which a child without requests ends.
_IDLE_SECONDS = 60
#: The child imports no MPI that starts: it is not a rank.
_START = (
    "import sys; sys.path[:] = sys.argv[1:]; import mpi4py; mpi4py.rc.initialize = False; "
    "from anyrank.keyed.reader_process import serve; serve()"
)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGQUIT)
_ITEM, _END, _ERROR = range(3)


class _Child:
    """A child process and its pipes."""

    def __init__(self) -> None:
        self.errors = TemporaryFile()  # noqa: SIM115 (`end` closes it)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, *sys.path],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=without_launch(os.environ) | {"OPENBLAS_NUM_THREADS": "1"},
        )

    @property
    def pipes(self) -> tuple[int, int]:
        """The file descriptors to write requests to, and to read replies from."""
        assert self.process.stdin is not None and self.process.stdout is not None
        return self.process.stdin.fileno(), self.process.stdout.fileno()

    def left(self) -> bool:
        """Return whether the process has ended by itself: it was idle for too long, until this moment."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(1) == 0
        return False

    def end(self) -> str:
        """Kill the process unless it has ended, and return how it ended."""
        if self.errors.closed:
            return ""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2)  # it may be about to end by itself
        hung = self.process.poll() is None
        self.process.kill()
        status = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").split("\n")
        self.errors.close()
        last = next((f" ({line.strip()[:200]})" for line in reversed(lines) if line.strip()), "")
        if hung or status == -signal.SIGXCPU:
            return f"its reader did not come to an end in {SECONDS if hung else CPU_SECONDS} s"
        return f"its reader ended by {signal.Signals(-status).name if status < 0 else f'status {status}'}{last}"


_idle: list[_Child] = []


def start() -> None:
    """Start a child if none is idle, so that it starts while this process does something else. Not collective."""
    if not _idle:
        _idle.append(_Child())


def call(paths: Sequence[Path], function: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Any]:
    """Yield what a generator function yields in a child process. Not collective.

    Function, arguments and items are pickled. Exceptions are raised here.

    Parameters
    ----------
    paths : sequence of Path
        The files that the function reads: file k before item k, and the last one for all further items.
    function, *arguments
        The generator function and its arguments.

    Raises
    ------
    UsageError
        If the child dies, does not come to an end, or needs too much memory.
    """
    child, message = _begin((function, arguments, CPU_SECONDS))
    ended, count = False, 0
    try:
        while not ended:
            path = paths[min(count, len(paths) - 1)]
            message = _receive(child.pipes[1], SECONDS) if count else message
            if message is None:
                raise UsageError(f"{path} is damaged: {child.end()}. Replace the file.")
            kind, value = message
            ended, count = kind != _ITEM, count + 1
            if not ended:
                yield value
    finally:
        if ended:
            _idle.append(child)
        else:  # also if the caller stops early: replies would remain in the pipe
            child.end()
    if isinstance(value, MemoryError):
        raise UsageError(f"{path} is damaged: its reader needs more than {MEMORY} bytes of memory. Replace the file.")
    if kind == _ERROR:
        raise value


def _begin(request: Any) -> tuple[_Child, Any]:
    """Send a request to a child; return the child and its first reply, or None if it died."""
    start()
    child = _idle.pop()
    if _send(child.pipes[0], request) and child.process.poll() is None:
        message = _receive(child.pipes[1], SECONDS)
        if message is not None or not child.left():
            return child, message
    child.end()  # it was idle for too long
    child = _Child()
    _send(child.pipes[0], request)
    return child, _receive(child.pipes[1], SECONDS)


def serve() -> None:
    """Answer requests from standard input until it ends: what the child does."""
    replies = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no reply
    for number in _SIGNALS:  # they ask the rank to stop, which then closes the pipe
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory()
    while (request := _receive(0, _IDLE_SECONDS)) is not None:
        function, arguments, seconds = request
        try:
            _allow_time(seconds)
            for item in function(*arguments):
                _send(replies, (_ITEM, item))
                _allow_time(seconds)
            _send(replies, (_END, None))
        except Exception as error:
            _send(replies, (_ERROR, _portable(error)))


def _portable(error: Exception) -> Exception:
    """Return the error, or one with its message if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return OSError(f"{error or type(error).__name__}")
    return error


def _allow_time(seconds: int) -> None:
    """Let this process use so many more seconds of CPU time; then the kernel ends it."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = int(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if most < 0 else min(wanted, most), most))


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limits = [limit for limit in resource.getrlimit(resource.RLIMIT_AS) if limit >= 0]
    resource.setrlimit(resource.RLIMIT_AS, (min([used + MEMORY, *limits]), max(limits, default=-1)))


def _send(descriptor: int, message: Any) -> bool:
    """Write a message; return False if the other process has ended."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    rest = memoryview(len(data).to_bytes(8, "little") + data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except BrokenPipeError:
        return False
    return True


def _receive(descriptor: int, seconds: float) -> Any:
    """Return the next message, or None if the pipe has ended or nothing comes for some time."""
    poll = select.poll()  # `select.select` takes no descriptors above 1023
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(1000 * seconds):
        return None
    head = _bytes(descriptor, 8)
    data = _bytes(descriptor, int.from_bytes(head, "little")) if head else None
    return pickle.loads(data) if data else None


def _bytes(descriptor: int, size: int) -> bytearray | None:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        count = os.readv(descriptor, [rest])
        if not count:
            return None
        rest = rest[count:]
    return data


@atexit.register
def _end_all() -> None:
    for child in _idle:
        child.process.kill()
        child.process.wait()
