"""An executor of `concurrent.futures` whose functions run on the ranks of a farm, also of several hosts."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import spawn
from pathlib import Path
from typing import Any, BinaryIO

from anyrank.errors import UsageError
from anyrank.farm.calls import check_not_importing, importing
from anyrank.farm.executor import TaskExecutor, dumps, main_module
from anyrank.farm.inputs import PICKLED
from anyrank.farm.streams import END
from anyrank.launcher import without_launch
from anyrank.runtime.children import die_with_parent

#: Seconds between two looks for results, and characters of the farm's errors that are shown.
TICK, SHOWN = 0.01, 1000
#: Seconds for which the farm waits for further tasks.
FOREVER = 1e9


class RankExecutor(TaskExecutor):
    """Run functions on the ranks of a farm: an executor over several hosts.

    It starts `anyrank farm`, which takes tasks from a file and writes results to another one, in a folder that all
    hosts see. A task takes about 0.1 s from `submit` to its result: for tasks of a second and more. `Executor` is
    faster, on this host.

    Parameters
    ----------
    ranks : int
        The number of MPI ranks, each with a worker.
    hosts : str
        The hosts as for `anyrank run --hosts`, such as `node1:8,node2:8`; by default this one.
    folder : path, optional
        The folder for the files, which all hosts must see; by default a temporary one under the current folder, which
        is removed.
    **options
        Parameters of `anyrank farm`: `attempts=3`, `task_timeout=60`, `task_memory=4000`, `prepare="setup.py:load"`,
        and options of the run, such as `max_restarts=2`, with which it continues on the remaining hosts.

    Raises
    ------
    UsageError
        If the number of ranks is out of range.

    Examples
    --------
    >>> with farm.RankExecutor(2) as executor:
    ...     list(executor.map(abs, [-1, 2, -3]))
    [1, 2, 3]
    """

    def __init__(self, ranks: int, hosts: str = "", folder: Path | str | None = None, **options: Any):
        check_not_importing("farm.RankExecutor")
        if ranks < 1:
            raise UsageError(f"ranks={ranks}: use at least 1 rank.")
        super().__init__()
        parent = Path(folder or ".").absolute()
        self._temporary = tempfile.TemporaryDirectory(prefix=".farm-", dir=parent, ignore_cleanup_errors=True)
        self._folder = Path(self._temporary.name)
        self._results = self._folder / "results.jsonl"
        self._file: BinaryIO | None = None
        self._inode = 0
        function = self._folder / f"function{PICKLED}"
        function.write_bytes(pickle.dumps(partial(invoke_line, main_module(), sys.path)))
        self._tasks = (self._folder / "tasks.jsonl").open("wb", 0)
        self._process = self._start(_words(function, Path(self._tasks.name), self._results, ranks, hosts, options))
        self._thread = threading.Thread(target=self._watch, name="anyrank-ranks", daemon=True)
        self._thread.start()

    def _start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("wb") as log:
            return subprocess.Popen(
                [*words, "--out", str(self._folder / "run")],
                env=without_launch(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, signal.SIGTERM),
            )

    def _send(self, number: int, payload: bytes) -> None:
        if self._process.poll() is not None or self._tasks.closed:
            raise self._broken()
        self._tasks.write(json.dumps({"call": _text(payload)}).encode() + b"\n")

    def _end(self) -> None:
        if not self._tasks.closed:
            self._tasks.write(END + b"\n")

    def _watch(self) -> None:
        """Set the results of futures, in a thread."""
        while True:
            ended = self._process.poll() is not None
            self._read()
            if ended:
                break
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(TICK)
        with self._lock:
            left = [*self._futures.values()]
            self._futures.clear()
            self._tasks.close()
        for future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(self._broken())
        if self._file is not None:
            self._file.close()
        self._temporary.cleanup()

    def _read(self) -> None:
        """Set the results of the new complete lines.

        A farm that was restarted, because a host is lost, begins another file, with the tasks that are done already.
        """
        try:
            inode = self._results.stat().st_ino
        except FileNotFoundError:
            return
        if self._file is None or inode != self._inode:
            last, self._file = self._file, self._results.open("rb")
            self._inode = os.fstat(self._file.fileno()).st_ino
            if last is not None:  # while it was open, no other file could have its inode
                last.close()
        data = self._file.read()
        end = data.rfind(b"\n") + 1
        self._file.seek(end - len(data), os.SEEK_CUR)
        for line in data[:end].splitlines():
            row = json.loads(line)
            with self._lock:
                future = self._futures.pop(row["task"], None)
            if future is not None and future.set_running_or_notify_cancel():
                _set(future, row)

    def _broken(self) -> BrokenProcessPool:
        with suppress(OSError):
            return BrokenProcessPool(f"the farm has ended:\n{(self._folder / 'log').read_text('utf-8')[-SHOWN:]}")
        return BrokenProcessPool("the farm has ended")


def _words(function: Path, tasks: Path, results: Path, ranks: int, hosts: str, options: Mapping[str, Any]) -> list[str]:
    """Return the command line of the farm."""
    words = [sys.executable, "-m", "anyrank", "run", "farm", "--function", function, "--table", tasks, "--quiet"]
    words += ["--follow", FOREVER, "--as-completed", results, "-n", ranks, *(["--hosts", hosts] if hosts else [])]
    words += [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    return [*map(str, words)]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def invoke_line(main: bytes, path: list[str], call: str) -> str:
    """Call the function that was submitted, and return its value or exception as text (in the worker)."""
    if path:
        sys.path[:] = [*dict.fromkeys([*path, *sys.path])]
        path.clear()
        with importing("the main script"):
            spawn.prepare(pickle.loads(main))
    function, args, kwargs = pickle.loads(base64.b64decode(call))
    try:
        return _text(dumps((True, function(*args, **kwargs))))
    except Exception as error:
        with suppress(Exception):
            pickle.loads(kept := pickle.dumps(error))
            return _text(pickle.dumps((False, kept)))
        raise


def _set(future: concurrent.futures.Future[Any], row: Mapping[str, Any]) -> None:
    """Set the result or the exception of a future."""
    if row["status"] == "timed out":
        future.set_exception(TimeoutError(row["failure"]))
    elif row["status"] != "done":
        kind = BrokenProcessPool if row["status"] in ("died", "out of memory") else RuntimeError
        future.set_exception(kind(row["failure"]))
    else:
        try:
            good, value = pickle.loads(base64.b64decode(row["value"]))
            value = value if good else pickle.loads(value)
        except Exception as error:
            good, value = False, error
        future.set_result(value) if good else future.set_exception(value)
