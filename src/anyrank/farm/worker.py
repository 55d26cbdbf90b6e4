"""The worker of a rank: a process of its own that works on tasks, so that no task can take the rank down.

The rank sends pickled lists of tasks, and the worker answers with records. Tasks run one after the other, or, with
--concurrency, in threads or as coroutines.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import io
import mmap
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing import spawn
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from anyrank.farm import calls
from anyrank.farm.tasks import CURRENT, DONE, FAILED, NO_TASK, TIMED_OUT, Outcome, Record, encode

if TYPE_CHECKING:
    from anyrank.farm.shared import Shared

#: Records of short tasks are sent together; the first of them waits at most this time, in seconds.
DELAY = 0.001
#: Frames of this package, of libraries that call the function, which tracebacks leave out.
_OWN = str(Path(__file__).parent)
#: The largest record in bytes.
LARGEST = 2**32 - 1


class Item(NamedTuple):
    """A task as it is sent to the worker: its row, or the positional arguments of the function."""

    task: int
    attempt: int
    id: str
    arguments: Mapping[str, Any] | tuple[Any, ...]
    #: The encoded outcomes of the tasks that it needs, by their identifiers.
    needed: Mapping[str, bytes] = {}


class Job(NamedTuple):
    """What the worker needs before the first task."""

    log: str
    path: list[str]
    #: What a task calls or runs: a pickled function, or as `anyrank farm` names it.
    pickled: bytes = b""
    function: str = ""
    command: str = ""
    program: str = ""
    #: The ranks of each run of the program, and the folder of the runs.
    ranks: int = 1
    runs: str = ""
    prepare: str = ""
    seed: int = 0
    concurrency: int = 1
    interval: float = 0.0
    timeout: float = 0.0
    key: str = ""
    #: The arrays that all tasks share, with descriptors of their memory that the worker inherits.
    shared: tuple[Shared, ...] = ()
    #: The pickled data by which multiprocessing imports the main module of another process.
    main: bytes = b""


#: What the task of this thread or coroutine has printed.
_PRINTED: contextvars.ContextVar[list[str]] = contextvars.ContextVar("printed")


class _Capture(io.TextIOBase):
    """Standard output of tasks: text goes to the task that prints it, or to the log of the worker."""

    def __init__(self, log: Any):
        self._log = log

    def write(self, text: str) -> int:
        """Add text to the output of the task."""
        printed = _PRINTED.get(None)
        if printed is None:
            return int(self._log.write(text))
        printed.append(text)
        return len(text)

    def flush(self) -> None:
        """Write what belongs to no task to the log."""
        self._log.flush()

    def fileno(self) -> int:
        """Return the descriptor of the log, which child processes write to."""
        return int(self._log.fileno())


class Worker:
    """Calls the function for each task and sends records to `output`; `begun` shows the rank the present task."""

    def __init__(self, job: Job, output: socket.socket, begun: memoryview):
        self.job, self._output, self._begun = job, output, begun
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._records: list[bytes] = []
        self._sent = 0.0
        self._next_start = 0.0
        sys.path[:] = [*dict.fromkeys([*job.path, *sys.path])]
        self.function = self._load()

    def _load(self) -> Callable[..., Any]:
        job = self.job
        if job.command or job.program:
            calls.end_with_commands()
        if job.main:
            with calls.importing("the main script"):
                spawn.prepare(pickle.loads(job.main))
        if job.prepare:
            calls.load_function(job.prepare)()
        if job.command:
            return calls.Command(job.command, job.timeout, job.key)
        if job.program:
            return calls.ProgramRun(job.program, job.ranks, job.runs, job.timeout)
        self.positional: Callable[..., Any]
        self.positional = pickle.loads(job.pickled) if job.pickled else calls.load_function(job.function)
        if job.shared:
            self.positional = partial(self.positional, **{shared.name: shared.array() for shared in job.shared})
        return calls.of_rows(self.positional)

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return hasattr(self, "positional") and inspect.iscoroutinefunction(self.positional)

    def call(self, item: Item) -> Any:
        """Call the function for a task; returns its value, or a coroutine."""
        return self.positional(*item.arguments) if isinstance(item.arguments, tuple) else self.function(item.arguments)

    def run(self, item: Item) -> bytes:
        """Work on a task and return its encoded record."""
        printed = self.begin(item)
        start, began = time.time(), time.perf_counter()
        try:
            status, value = DONE, self.call(item)
        except BaseException as error:
            status, outcome = failure(error)
        finally:
            if os.getpid() != self._process:  # the task has forked, and this process returned like its parent
                os._exit(0)
        if status == DONE:
            if not printed:  # the usual case, without the objects of the others
                with suppress(Exception):
                    body, seconds = pickle.dumps((value,), 5), time.perf_counter() - began
                    if len(body) <= LARGEST:
                        return encode(body, item.task, item.attempt, DONE, start, seconds)
            outcome = Outcome(value)
        return self.record(item, status, start, began, outcome, printed).encode()

    def begin(self, item: Item) -> list[str]:
        """Make the task the current one of this thread or coroutine; returns the list of what it prints."""
        printed: list[str] = []
        self._begun[0] = item.task
        CURRENT.set((item.task, item.id, item.attempt, self.job.seed, item.needed))
        _PRINTED.set(printed)
        return printed

    def record(
        self, item: Item, status: int, start: float, began: float, outcome: Outcome, printed: list[str]
    ) -> Record:
        """Return the record of a task that has ended."""
        seconds, text = time.perf_counter() - began, "".join(printed)
        outcome = outcome._replace(output=text) if text else outcome
        try:
            body = outcome.encode()
            if len(body) > LARGEST:
                raise ValueError(f"it has {len(body)} bytes, and at most {LARGEST} can be stored")
        except Exception as error:
            kind = type(outcome.value).__name__
            status, why = FAILED, f"the result, of type {kind}, cannot be stored: {text_of(error)}"
            body = Outcome(None, text, why).encode()
        return Record(item.task, item.attempt, status, start, seconds, body)

    def send(self, record: bytes, *, now: bool = True) -> None:
        """Send a record, or, unless `now`, together with the next ones."""
        with self._lock:
            self._records.append(record)
            clock = time.monotonic()
            if now or clock - self._sent > DELAY:
                self._output.sendall(b"".join(self._records))
                self._records.clear()
                self._sent = clock

    def wait_for_rate(self) -> float:
        """Return the seconds to wait before the next task may start."""
        if not self.job.interval:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._next_start = max(self._next_start, now) + self.job.interval
            return self._next_start - self.job.interval - now

    def started(self, item: Item) -> None:
        """Tell the rank that a task has started, since several run at once."""
        self.send(encode(b"", -2 - item.task, item.attempt, DONE, time.time(), 0.0))

    def work(self, stream: io.BufferedReader) -> None:
        """Work on all tasks of a stream, one after the other."""
        while items := receive(stream):
            for item in items:
                if self.job.interval:
                    time.sleep(self.wait_for_rate())
                self.send(self.run(item), now=item is items[-1])

    def work_in_threads(self, stream: io.BufferedReader) -> None:
        """Work on several tasks at once, in threads."""
        free = threading.Semaphore(self.job.concurrency)

        def run(item: Item) -> None:
            try:
                self.started(item)
                self.send(self.run(item))
            finally:
                free.release()

        with ThreadPoolExecutor(self.job.concurrency) as pool:
            while items := receive(stream):
                for item in items:
                    free.acquire()
                    time.sleep(self.wait_for_rate())
                    pool.submit(contextvars.copy_context().run, run, item)

    async def outcome_of(self, item: Item) -> tuple[int, Outcome]:
        """Await the function for a task; return the status and the outcome.

        No error leaves the coroutine: SystemExit would end the event loop with all other tasks, and TimeoutError would
        look like that of --task-timeout.
        """
        try:
            return DONE, Outcome(await self.call(item))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return failure(error)

    async def work_as_coroutines(self, stream: io.BufferedReader) -> None:
        """Work on several tasks at once, as coroutines."""
        loop, free, running = asyncio.get_running_loop(), asyncio.Semaphore(self.job.concurrency), set()

        async def run(item: Item) -> None:
            self.started(item)
            start, began = time.time(), time.perf_counter()
            printed = self.begin(item)
            try:
                status, outcome = await asyncio.wait_for(self.outcome_of(item), self.job.timeout or None)
            except asyncio.TimeoutError:
                status, outcome = TIMED_OUT, Outcome(error=f"took longer than --task-timeout {self.job.timeout:g}")
            except BaseException as error:
                status, outcome = failure(error)
            self.send(self.record(item, status, start, began, outcome, printed).encode())
            free.release()

        while items := await loop.run_in_executor(None, receive, stream):
            for item in items:
                await free.acquire()
                await asyncio.sleep(self.wait_for_rate())
                running.add(task := loop.create_task(run(item)))
                task.add_done_callback(running.discard)
        await asyncio.gather(*running)


def receive(stream: io.BufferedReader) -> list[Item]:
    """Return the next tasks; an empty list at the end."""
    try:
        return [*map(Item._make, pickle.load(stream))]
    except (EOFError, OSError):
        return []


def text_of(error: BaseException) -> str:
    """Return the class and the text of an error, whose text may raise anything."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:
        return f"{type(error).__name__} (its text raises)"


def failure(error: BaseException) -> tuple[int, Outcome]:
    """Return the status and the outcome of a task that raised."""
    text = text_of(error)
    kept = b""
    with suppress(BaseException):
        kept = pickle.dumps(error)
        pickle.loads(kept)
    if isinstance(error, calls.CommandError):
        status = TIMED_OUT if isinstance(error, calls.CommandTimeoutError) else FAILED
        return status, Outcome(error=str(error))
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OWN):
        trace = trace.tb_next
    lines = "".join(traceback.format_exception(type(error), error, trace))
    return FAILED, Outcome(None, "", text, lines, kept)


def main() -> None:
    """Work for a rank; the arguments are the descriptors of the socket, and of the memory for the present task."""
    output = socket.socket(fileno=int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGQUIT):  # they ask the rank to stop
        signal.signal(number, signal.SIG_IGN)
    stream: Any = output.makefile("rb", 1 << 16)
    sys.stdout = sys.stderr = _Capture(sys.stdout)  # type: ignore[assignment]
    job: Job = pickle.load(stream)
    try:
        worker = Worker(job, output, memoryview(mmap.mmap(int(sys.argv[2]), 8)).cast("q"))
    except BaseException as error:
        outcome = failure(error)[1]
        output.sendall(Record(NO_TASK, 0, FAILED, time.time(), 0.0, outcome.encode()).encode())
        return
    output.sendall(Record(NO_TASK, 0, DONE, time.time(), 0.0, b"").encode())
    if worker.is_async:
        try:
            # Without asyncio.run, which would cancel all other tasks, and wait for the thread that receives tasks.
            asyncio.new_event_loop().run_until_complete(worker.work_as_coroutines(stream))
        except BaseException:  # SystemExit of a task of asyncio that a function has started
            traceback.print_exc()
            os._exit(1)
    elif job.concurrency > 1:
        worker.work_in_threads(stream)
    else:
        worker.work(stream)
