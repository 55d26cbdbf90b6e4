"""An executor of `concurrent.futures`: functions run in worker processes of this host, which may die without harm."""

from __future__ import annotations

import concurrent.futures
import os
import pickle
import queue
import selectors
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from typing import Any, TypeVar

from anyrank.errors import UsageError
from anyrank.farm.calls import check_not_importing
from anyrank.farm.lane import Lane, WorkerError
from anyrank.farm.tasks import DONE, TIMED_OUT, Outcome, Record
from anyrank.farm.worker import Item, Job

T = TypeVar("T")
#: Tasks that a worker has at a time: the next one is there when the first ends.
DEPTH = 2
#: Seconds between two looks at workers that may have died or take too long.
TICK = 0.05


def invoke(payload: bytes) -> Any:
    """Call the function that was submitted (in the worker)."""
    function, args, kwargs = pickle.loads(payload)
    return function(*args, **kwargs)


def dumps(value: Any) -> bytes:
    """Pickle a function and its arguments; with cloudpickle, if it is installed, any function."""
    try:
        return pickle.dumps(value, 5)
    except Exception as error:
        try:
            import cloudpickle  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            raise error from None
        return cloudpickle.dumps(value)  # type: ignore[no-any-return]


def main_module() -> bytes:
    """Return what multiprocessing needs to import this process's main module in another one, pickled."""
    main = get_preparation_data("anyrank-farm")
    del main["authkey"]
    return pickle.dumps(main)


class TaskExecutor(concurrent.futures.Executor):
    """What the executors have in common: numbered futures; a thread, which the subclass starts, sets their results.

    The subclass has `_send`, which gives a task to a worker, and `_end`, which lets the thread end when no future is
    left.
    """

    _thread: threading.Thread

    def __init__(self) -> None:
        self._futures: dict[int, concurrent.futures.Future[Any]] = {}
        self._count, self._closing, self._lock = 0, False, threading.Lock()

    def _send(self, number: int, payload: bytes) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """Schedule `fn(*args, **kwargs)` and return its future. Not collective.

        Parameters
        ----------
        fn : callable
            A function that can be pickled; with cloudpickle installed, any function.
        *args, **kwargs
            Its arguments, which must be picklable.

        Returns
        -------
        concurrent.futures.Future
            The future of its value. Its exception is that of the function; BrokenProcessPool if the function ended its
            worker or all of them have ended, and TimeoutError if it took too long.
        """
        payload = dumps((fn, args, kwargs))
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        with self._lock:
            if self._closing:
                raise RuntimeError("cannot schedule new futures after shutdown")
            number, self._count = self._count, self._count + 1
            self._futures[number] = future  # before the thread can ask for it
            try:
                self._send(number, payload)
            except BaseException:
                self._futures.pop(number, None)
                raise
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers when all futures are done. Not collective.

        Parameters
        ----------
        wait : bool
            Whether to wait for that.
        cancel_futures : bool
            Whether to cancel the futures that have not started.
        """
        with self._lock:
            if not self._closing:
                self._closing = True  # before the thread is woken
                self._end()
            for future in [*self._futures.values()] if cancel_futures else ():
                future.cancel()
        if wait:
            self._thread.join()


class Executor(TaskExecutor):
    """Run functions in worker processes of this host: what takes an executor takes this one.

    It differs from `concurrent.futures.ProcessPoolExecutor` in what a task can destroy: one that exits, crashes, is
    killed or takes too long fails alone, with an exception, and its worker is replaced.

    Parameters
    ----------
    workers : int, optional
        The number of worker processes; by default as many as cores that this process may use.
    timeout : float
        Seconds after which a task is ended and its future raises TimeoutError; 0: never.

    Raises
    ------
    UsageError
        If a number is out of range.

    Examples
    --------
    >>> with farm.Executor(2) as executor:
    ...     list(executor.map(abs, [-1, 2, -3]))
    [1, 2, 3]
    """

    def __init__(self, workers: int | None = None, timeout: float = 0.0):
        check_not_importing("farm.Executor")
        workers = len(os.sched_getaffinity(0)) if workers is None else workers
        if workers < 1 or timeout < 0:
            raise UsageError(f"workers={workers}, timeout={timeout}: use at least 1 worker, and a time from 0.")
        super().__init__()
        self._workers, self._timeout = workers, timeout
        self._job = Job(log="", path=sys.path, pickled=pickle.dumps(invoke), main=main_module())
        self._new: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._thread = threading.Thread(target=self._serve, name="anyrank-farm", daemon=True)
        self._thread.start()

    def _send(self, number: int, payload: bytes) -> None:
        self._new.put(Item(number, 1, str(number), (payload,)))
        self._call()

    def _end(self) -> None:
        self._call()

    def _call(self) -> None:
        with suppress(OSError):
            self._wake.send(b"x")

    def _serve(self) -> None:
        """Give tasks to the workers and set the results of futures, in a thread."""
        lanes: list[Lane] = []
        waiting: deque[Item] = deque()
        with tempfile.TemporaryDirectory(prefix="anyrank-farm-") as folder:
            job = self._job._replace(log=str(Path(folder, "log")))
            try:
                while not (self._closing and not self._futures):
                    with suppress(queue.Empty):
                        while True:
                            waiting.append(self._new.get_nowait())
                    while waiting and len(lanes) < min(self._workers, len(waiting) + len(lanes)):
                        lanes.append(Lane(job))
                    for lane in [*lanes]:
                        if not self._attend(lane, waiting):
                            lane.close()
                            lanes.remove(lane)
                    self._distribute(lanes, waiting)
                    self._wait(lanes)
            except BaseException as error:
                for future in self._futures.values():
                    if not future.done():
                        future.set_exception(BrokenProcessPool(str(error)))
                raise
            finally:
                for lane in lanes:
                    lane.close()

    def _attend(self, lane: Lane, waiting: deque[Item]) -> bool:
        """Take the results of a worker; returns False if it has died, or has been ended."""
        try:
            for record in lane.receive().records():
                self._finish(record)
        except WorkerError as failure:
            raise BrokenProcessPool(f"a worker cannot start:\n{failure}") from None
        how, late = lane.ended(), [*lane.running().values()] and self._late(lane)
        if not how and not late:
            return True
        for record in lane.receive().records() if how else ():
            self._finish(record)
        for number in lane.running():
            lane.pending.pop(number)
            error: Exception = BrokenProcessPool(f"the task ended its worker with {how}")
            error = TimeoutError(f"the task took longer than {self._timeout:g} s") if late else error
            self._finish(Record(number, 1, TIMED_OUT, 0.0, 0.0, Outcome(exception=pickle.dumps(error)).encode()))
        waiting.extendleft(reversed([*lane.pending.values()]))
        return False

    def _late(self, lane: Lane) -> bool:
        return bool(self._timeout) and any(time.monotonic() - t > self._timeout for t in lane.running().values())

    def _distribute(self, lanes: list[Lane], waiting: deque[Item]) -> None:
        for depth in range(1, DEPTH + 1):
            for lane in lanes:
                while waiting and len(lane.pending) < depth:
                    item = waiting.popleft()
                    future = self._futures[item.task]
                    if future.running() or future.set_running_or_notify_cancel():
                        lane.send([item])
                    else:
                        del self._futures[item.task]

    def _finish(self, record: Record) -> None:
        future = self._futures.pop(record.task)
        try:
            outcome = record.outcome()
        except Exception as error:  # the value cannot be read back
            future.set_exception(error)
            return
        if record.status == DONE:
            future.set_result(outcome.value)
            return
        future.set_exception(exception_of(outcome))

    def _wait(self, lanes: list[Lane]) -> None:
        """Wait until a worker or `submit` has something."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            for lane in lanes:
                lane.register(selector)
            selector.select(TICK if self._futures or self._closing else None)
        with suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass


def exception_of(outcome: Outcome) -> BaseException:
    """Return the exception of a task that failed, with its traceback as the cause; RuntimeError if it is not known."""
    try:
        error: BaseException = pickle.loads(outcome.exception)
        if outcome.trace:
            error.__cause__ = RuntimeError(f"\n{outcome.trace}")
    except Exception:
        error = RuntimeError(outcome.error or "the task failed")
    return error
