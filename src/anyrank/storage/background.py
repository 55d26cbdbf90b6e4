"""Run a call in a thread while the rank computes."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from time import perf_counter
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """A call in its own thread, with its result or its error, and its duration.

    The thread is a daemon, so that it does not keep a process alive that ends. `call` must not use MPI.
    """

    result: T

    def __init__(self, call: Callable[[], T]):
        self.done = False
        self.error: Exception | None = None
        self.seconds = 0.0
        self._call = call
        self._thread = Thread(target=self._run, name="anyrank checkpoint", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        started = perf_counter()
        try:
            self.result = self._call()
        except Exception as error:
            self.error = error
        self.seconds = perf_counter() - started
        self.done = True

    def wait(self) -> None:
        """Wait until the call has ended."""
        self._thread.join()
