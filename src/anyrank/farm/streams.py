"""Tasks that arrive while the farm runs, as lines of standard input or of a file that grows; results as tasks end."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyrank import launcher
from anyrank.errors import AnyrankError, UsageError
from anyrank.farm.columns import OWN, VALUE, line_of, name_columns, read_outcome
from anyrank.farm.inputs import json_row
from anyrank.farm.journal import Records
from anyrank.farm.tasks import DONE, STATUSES, Outcome, Record, decode
from anyrank.keyed.files import STDIN
from anyrank.storage.durable import make_folder, sync_file
from anyrank.world import World

#: Bytes that are read at a time, and parts of standard input that wait to be taken.
PART, WAITING = 1 << 18, 16
#: The line that ends a table.
END = b"null"
#: Seconds between two looks at a file that may have grown.
LOOK = 0.02
#: Tasks of an earlier execution whose results are written at a time.
SOME = 4096


class _Arrived(NamedTuple):
    """What all ranks know of a stream: the number of tasks, the columns, bad lines, and whether there may be more."""

    rows: int
    columns: list[str]
    bad: int
    open: bool


class Stream:
    """The inputs of tasks that arrive while the farm runs. The constructor and `receive` are collective.

    Rank 0 reads lines of JSON and appends them to a file of the run folder, where all ranks read them. A resumed farm
    has these, and goes on behind the last line that was taken from a file, or with its own standard input.

    Parameters
    ----------
    folder : Path
        The folder for the lines and their ends.
    table : str
        A file, or `-` for standard input.
    id : str
        The column with the identifiers of the tasks; empty: their indices.
    patience : float
        The seconds without a new line after which a file has ended; standard input ends itself.
    skip : bool
        Whether bad lines are counted and left out, and are no error.
    world : World
        The ranks.

    Attributes
    ----------
    rows : int
        The number of tasks so far.
    columns : list of str
        The names of their columns.
    bad : int
        The number of bad lines in this execution.
    open : bool
        Whether more tasks may come.
    """

    def __init__(self, folder: Path, table: str, id: str, patience: float, skip: bool, world: World):
        self._lines, self._ends = folder / "stream.jsonl", folder / "stream.ends"
        self._world, self._id, self._skip = world, id, skip
        self._bad, self._names, self._seen = 0, dict[str, None](), set[str]()
        position = world.on_root(lambda: self._prepare(folder))
        self._source: _File | _Input | None = None
        with world.raise_on_all_ranks():
            if world.rank == 0:
                self._source = _Input(position > 0) if table in STDIN else _File(Path(table), position, patience)
        self.rows, self.columns, self.bad, self.open = world.on_root(self._arrived)

    def _prepare(self, folder: Path) -> int:
        """Remove what a killed process has left after the last complete line; return the position of the source."""
        make_folder(folder)
        ends = np.fromfile(self._ends, np.int64) if self._ends.exists() else np.zeros(0, np.int64)
        ends = ends[: len(ends) // 2 * 2].reshape(-1, 2)
        size = self._lines.stat().st_size if self._lines.exists() else 0
        ends = ends[ends[:, 0] <= size]
        with self._ends.open("ab") as file:  # written anew, it would be empty if this process were killed
            file.truncate(ends.nbytes)
        with self._lines.open("ab") as file:
            file.truncate(int(ends[-1, 0]) if len(ends) else 0)
        self._count = len(ends)
        for row in self._read(0, self._count):
            self._note(row, "a line of the run folder")
        return int(ends[-1, 1]) if len(ends) else 0

    def _arrived(self) -> _Arrived:
        assert self._source is not None
        return _Arrived(self._count, [*self._names], self._bad, not self._source.ended)

    def receive(self, wait: float = 0.0) -> None:
        """Take the lines that have arrived; if there are none, wait for some time in seconds. Collective.

        Raises
        ------
        UsageError
            On all ranks, for a line that is no JSON object, or has no identifier or one of another task.
        """
        self.rows, self.columns, self.bad, self.open = self._world.on_root(lambda: self._take(wait))

    def _take(self, wait: float) -> _Arrived:
        assert self._source is not None
        good: list[tuple[bytes, int]] = []
        try:
            for line, position in self._source.read(wait):
                if line.strip() == END:
                    self._source.end()
                    break
                try:
                    if line.strip():
                        self._note(json_row(line, f"{self._source.name} up to byte {position}"), self._source.name)
                        good.append((line, position))
                except UsageError as error:
                    if not self._skip:
                        raise UsageError(f"{error} Or leave out such lines with --on-bad skip.") from None
                    self._bad += 1
        finally:
            if good:
                self._append(good)
        return self._arrived()

    def _note(self, row: dict[str, Any], where: str) -> None:
        """Note the columns and the identifier of a task."""
        if self._id:
            name = row.get(self._id)
            if name is None or str(name) in self._seen:
                what = "has no" if name is None else f"has {name!r} again as"
                raise UsageError(f"{where}: a line {what} {self._id!r}, which --id names. Identifiers must differ.")
            self._seen.add(str(name))
        self._names.update(dict.fromkeys(row))

    def _append(self, lines: list[tuple[bytes, int]]) -> None:
        end = self._lines.stat().st_size
        with self._lines.open("ab") as file:
            file.write(b"".join([line + b"\n" for line, _ in lines]))
        sync_file(self._lines)  # other nodes read it
        sizes = np.cumsum([len(line) + 1 for line, _ in lines]) + end
        with self._ends.open("ab") as file:
            file.write(np.stack([sizes, [position for _, position in lines]], axis=1).astype(np.int64).tobytes())
        sync_file(self._ends)
        self._count += len(lines)

    def rows_of(self, indices: Iterable[int]) -> list[dict[str, Any]]:
        """Return the rows of tasks. Not collective."""
        wanted = [*indices]
        rows: list[dict[str, Any]] = []
        while len(rows) < len(wanted):
            first = last = len(rows)
            while last < len(wanted) and wanted[last] == wanted[first] + last - first:
                last += 1
            rows += self._read(wanted[first], wanted[first] + last - first)
        return rows

    def column(self, name: str) -> Iterator[Any]:
        """Yield the values of a column, in the order of the tasks. Not collective."""
        for first in range(0, self.rows, SOME):
            yield from (row.get(name) for row in self._read(first, min(first + SOME, self.rows)))

    def _read(self, first: int, last: int) -> list[dict[str, Any]]:
        if first == last:
            return []
        before = min(first, 1)  # the end of the line before is the begin of the first one
        ends = np.fromfile(self._ends, np.int64, 2 * (last - first + before), offset=16 * (first - before))[::2]
        begin = int(ends[0]) if before else 0
        with self._lines.open("rb") as file:
            file.seek(begin)
            return [json.loads(line) for line in file.read(int(ends[-1]) - begin).splitlines()]


class _File:
    """Lines of a file that may grow, from a position. It has ended when no line came for a time."""

    def __init__(self, path: Path, position: int, patience: float):
        self.name, self.ended = str(path), False
        self._path, self._position, self._patience, self._since = path, position, patience, time.monotonic()
        if not path.is_file():
            raise UsageError(f"--table {path} is no file. With --follow, give one file of JSON lines.")
        self._inode = path.stat().st_ino

    def read(self, wait: float) -> Iterator[tuple[bytes, int]]:
        """Yield new lines, each with the position of its end."""
        data, deadline = b"", time.monotonic() + wait
        while not self.ended and not (data := self._new()) and time.monotonic() < deadline:
            time.sleep(LOOK)
        for line in data.splitlines(keepends=True):
            self._position += len(line)
            yield line.rstrip(b"\r\n"), self._position

    def end(self) -> None:
        """Take no more lines."""
        self.ended = True

    def _new(self) -> bytes:
        """Return the new bytes up to a line end, or to the end if the file has ended."""
        self._check()
        with self._path.open("rb") as file:
            file.seek(self._position)
            data = file.read(PART)
            while data and b"\n" not in data and (more := file.read(PART)):
                data += more
        if lines := data[: data.rfind(b"\n") + 1]:
            self._since = time.monotonic()
            return lines
        self.ended = time.monotonic() - self._since >= self._patience
        return data if self.ended else b""

    def _check(self) -> None:
        """Raise AnyrankError if the file is no longer the one that the farm follows."""
        try:
            found = self._path.stat()
        except OSError as error:
            what = f"cannot be read ({error.strerror})"
        else:
            if found.st_ino == self._inode and found.st_size >= self._position:
                return
            what = f"became shorter: it now has {found.st_size} bytes"
            what = what if found.st_ino == self._inode else "was replaced by another file"
        raise AnyrankError(f"{self._path} {what} while the farm followed it. Append lines, and keep the others.")


class _Input:
    """Lines of standard input, which a thread reads, so that the farm never waits for it."""

    name = "standard input"

    def __init__(self, resumed: bool):
        self._parts: queue.Queue[bytes] = queue.Queue(WAITING)
        self._rest, self._position, self._closed = b"", 0, False
        if resumed and sys.stdin is not None and sys.stdin.isatty():
            self._closed = True  # a resume does not wait for somebody to type
        else:
            threading.Thread(target=self._read_all, name="anyrank-stdin", daemon=True).start()

    def _read_all(self) -> None:
        # Without Python's buffer: its lock would be held by this thread when the process ends.
        pipe = os.environ.get(launcher.STDIN)
        with suppress(OSError, ValueError, AttributeError):
            source = os.open(pipe, os.O_RDONLY) if pipe else sys.stdin.fileno()
            while data := os.read(source, PART):
                self._parts.put(data)
        self._parts.put(b"")

    @property
    def ended(self) -> bool:
        """Whether no line will come any more."""
        return self._closed and not self._rest

    def end(self) -> None:
        """Take no more lines."""
        self._closed, self._rest = True, b""

    def read(self, wait: float) -> Iterator[tuple[bytes, int]]:
        """Yield new lines, each with the position of its end."""
        with suppress(queue.Empty):
            while not self._closed and (len(self._rest) < PART or b"\n" not in self._rest):  # a line may be longer
                data = self._parts.get(timeout=wait) if wait else self._parts.get_nowait()
                self._closed, wait = not data, 0.0
                self._rest += data
        end = len(self._rest) if self._closed else self._rest.rfind(b"\n") + 1
        lines, self._rest = self._rest[:end].splitlines(keepends=True), self._rest[end:]
        for line in lines:
            self._position += len(line)
            yield line.rstrip(b"\r\n"), self._position


class AsCompleted:
    """Writes a JSON line for each task when it has ended, to a file or to standard output.

    The constructor and `write` are collective.

    Parameters
    ----------
    path : str
        The file, or `-`. A file is written anew, with the tasks that are done already.
    inputs : Inputs or Stream
        The rows of the tasks.
    id : str
        The column with the identifiers of the tasks; empty: their indices.
    records : Records
        The records of earlier executions.
    places : int64 array
        The places of tasks that are done, −1 for others.
    """

    def __init__(self, path: str, inputs: Any, id: str, records: Records, places: np.ndarray):
        self._inputs, self._id, self._world = inputs, id, records.world
        self._world.on_root(lambda: self._open(path, records, places))

    def _open(self, path: str, records: Records, places: np.ndarray) -> None:
        if (real := Path(path).resolve()).is_file():
            real.unlink()  # who reads the file of an earlier execution sees by the inode that this is another one
        self._file = sys.stdout if path in STDIN else Path(path).open("w", encoding="utf-8")  # noqa: SIM115
        done = np.flatnonzero(places >= 0) if path not in STDIN else np.zeros(0, np.int64)
        for first in range(0, len(done), SOME):
            entries = records.read(places[done[first : first + SOME]])
            tasks = done[first : first + SOME].tolist()
            self._write([Record(k, 1, DONE, 0.0, 0.0, body) for k, body in zip(tasks, entries.bodies, strict=True)])

    def write(self, encoded: Sequence[bytes]) -> None:
        """Write the lines of the encoded records of all ranks. Collective."""
        parts = self._world.comm.gather(b"".join(encoded)) or []
        self._world.on_root(lambda: self._write([record for part in parts for record, _ in decode(part, check=False)]))

    def _write(self, records: list[Record]) -> None:
        rows = self._inputs.rows_of([record.task for record in records])
        names = name_columns(self._inputs.columns, "input_", (*OWN, VALUE))
        try:
            self._file.writelines(self._line(record, row, names) for record, row in zip(records, rows, strict=True))
            self._file.flush()
        except BrokenPipeError:  # nobody reads any more: stop, like `| head` stops other tools
            os.dup2(nowhere := os.open(os.devnull, os.O_WRONLY), self._file.fileno())
            os.close(nowhere)
            signal.raise_signal(signal.SIGTERM)

    def _line(self, record: Record, row: Any, names: dict[str, str]) -> str:
        outcome = Outcome(*read_outcome(record.body))
        columns = row if isinstance(row, dict) else {}
        line = {"task": record.task, "id": str(columns.get(self._id, record.task))}
        line |= {names[name]: cell for name, cell in columns.items()} | {"status": STATUSES[record.status]}
        line |= {VALUE: outcome.value} if record.status == DONE else {"failure": outcome.error}
        return line_of(line).decode()
