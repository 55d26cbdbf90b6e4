"""The inputs of tasks: rows of a table or objects, kept in the run folder in blocks that any rank can read."""

from __future__ import annotations

import json
import pickle
import re
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from anyrank.errors import AnyrankError, UsageError
from anyrank.keyed.files import absolute
from anyrank.keyed.tables import TableFiles
from anyrank.keyed.tables.columns import ColumnSpec
from anyrank.keyed.text import TextFiles
from anyrank.keyed.types import array_of, arrow, is_text
from anyrank.layout import even_cuts
from anyrank.storage.durable import make_folder, sync_file, write_atomically
from anyrank.world import World

#: Rows of a block, and blocks that are kept in memory.
ROWS, KEPT = 1024, 8
#: The suffixes of lines of JSON, and of pickled lists of arguments, which `farm.map` writes.
JSON_LINES, PICKLED = (".jsonl", ".ndjson"), ".pickle"
MANIFEST = "inputs.json"


class Inputs:
    """The inputs of all tasks by index. The constructor is collective; reading is not.

    At the first start the ranks read the table in parallel, and each writes its rows. A resumed farm reads these files.

    Parameters
    ----------
    folder : Path
        The folder for the files.
    source : Source
        The table.
    world : World
        The ranks.

    Attributes
    ----------
    open : bool
        False: no tasks will be added, as in a `Stream`.
    columns : list of str
        The names of the columns; empty for pickled arguments.
    rows : int
        The number of tasks.

    Raises
    ------
    UsageError
        On all ranks, if the table cannot be read.
    """

    open = False

    def __init__(self, folder: Path, source: Source, world: World):
        self._folder = folder
        if not world.on_root((folder / MANIFEST).is_file):
            self._write(source, world)
        manifest = world.on_root(lambda: json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
        self.columns: list[str] = manifest["columns"]
        self._parts = manifest["rows"]
        self._firsts = [0, *accumulate(self._parts)]
        self.rows: int = self._firsts[-1]
        self._blocks: OrderedDict[tuple[int, int], list[Any]] = OrderedDict()
        self._offsets: dict[int, np.ndarray] = {}

    def _write(self, source: Source, world: World) -> None:
        """Read the table and write this rank's rows. Collective."""
        world.on_root(lambda: make_folder(self._folder))
        path, count = self._folder / f"part-{world.rank}", 0
        with world.raise_on_all_ranks(OSError, AnyrankError):
            count = write_blocks(path, source.rows())
        manifest = json.dumps({"columns": source.columns, "rows": world.comm.allgather(count)})
        world.on_root(lambda: write_atomically(self._folder / MANIFEST, manifest))

    def rows_of(self, indices: Iterable[int]) -> list[Any]:
        """Return the rows of tasks: each a dict, or a tuple of arguments."""
        rows: list[Any] = []
        first, last = 0, 0
        block: list[Any] = []
        for index in indices:
            if not first <= index < last:
                part = bisect_right(self._firsts, index) - 1
                number = (index - self._firsts[part]) // ROWS
                block, first = self._block(part, number), self._firsts[part] + number * ROWS
                last = first + len(block)
            rows.append(block[index - first])
        return rows

    def _block(self, part: int, block: int) -> list[Any]:
        rows = self._blocks.get((part, block))
        if rows is None:
            path = self._folder / f"part-{part}"
            if part not in self._offsets:
                self._offsets[part] = np.fromfile(path.with_suffix(".offsets"), np.int64)
            with path.open("rb") as file:
                file.seek(int(self._offsets[part][block]))
                rows = self._blocks[part, block] = pickle.load(file)
            if len(self._blocks) > KEPT:
                self._blocks.popitem(last=False)
        return rows

    def column(self, name: str) -> Iterator[Any]:
        """Yield the values of a column, in the order of the tasks."""
        for part, rows in enumerate(self._parts):
            for block in range(-(-rows // ROWS)):
                yield from (row.get(name) for row in self._block(part, block))


def write_blocks(path: Path, rows: Iterable[Any]) -> int:
    """Write rows in blocks, and the offsets of the blocks to a second file; returns the number of rows."""
    offsets: list[int] = []
    block: list[Any] = []
    count = 0
    with path.open("wb") as file:

        def write() -> None:
            offsets.append(file.tell())
            file.write(pickle.dumps(block, 5))
            block.clear()

        for row in rows:
            block.append(row)
            count += 1
            if len(block) == ROWS:
                write()
        if block:
            write()
    np.array(offsets, np.int64).tofile(path.with_suffix(".offsets"))
    for written in (path, path.with_suffix(".offsets")):
        sync_file(written)
    return count


def _identifiers(column: Iterable[Any], name: str) -> Iterator[str]:
    for row, value in enumerate(column):
        if value is None:
            raise UsageError(f"--id {name}: row {row} of the table (from 0) has no {name!r}. Give each task one.")
        yield str(value)


def check_ids(column: Callable[[], Iterator[Any]], name: str) -> None:
    """Raise UsageError if a task has no identifier, or that of another one.

    Only identifiers with the same hash are kept in memory.
    """

    def ids() -> Iterator[str]:
        return _identifiers(column(), name)

    hashes = np.sort(np.fromiter(map(hash, ids()), np.int64))
    several = {*hashes[1:][hashes[1:] == hashes[:-1]].tolist()}
    seen: dict[str, int] = {}
    for row, task in enumerate(ids() if several else ()):
        if task in seen:
            raise UsageError(
                f"--id {name}: {task!r} is in rows {seen[task]} and {row} of the table (from 0). Identifiers must "
                "differ."
            )
        if hash(task) in several:
            seen[task] = row


def check_folders(ids: Iterable[str], name: str) -> None:
    """Raise UsageError if an identifier cannot be the name of a run folder."""
    for task in ids:
        if not re.fullmatch(r"[^/\0]{1,200}", task) or task in (".", ".."):
            raise UsageError(f"--id {name}: {task!r} cannot be the name of a run folder. Use another column.")


class Source:
    """The table of a farm: its columns, a fingerprint, and the rows of this rank. The constructor is collective.

    Parameters
    ----------
    table : str
        Names as for `TableFiles`, files of JSON lines, or a file of pickled arguments.
    world : World
        The ranks.
    options : mapping
        The options of `TableFiles`.

    Raises
    ------
    UsageError
        On all ranks, if the table cannot be read.
    """

    def __init__(self, table: str, world: World, options: Mapping[str, Any]):
        names, suffixes = absolute(table), {Path(name).suffix for name in table.split(",")}
        self.columns: list[str] = []
        if suffixes == {PICKLED}:
            files = TextFiles(names, world)
            self.rows: Callable[[], Iterator[Any]] = lambda: _pickled(Path(names), world)
        elif suffixes & {*JSON_LINES}:
            files = TextFiles(names, world)
            own: dict[str, None] = {}
            with world.raise_on_all_ranks():
                own = dict.fromkeys(name for row in _json_rows(files) for name in row)
            self.columns = [*dict.fromkeys(name for part in world.comm.allgather(own) for name in part)]
            self.rows = lambda: _json_rows(files)
        else:
            known = TableFiles(names, [], world, **{**options, "types": {}}).files
            readable = (name for file in known for name, type_ in file.types.items() if not isinstance(type_, str))
            self.columns = [*dict.fromkeys(readable)]
            wanted = [ColumnSpec(name, role="operand") for name in self.columns]
            table_files = files = TableFiles(names, wanted, world, **options)
            cuts = even_cuts(files.size, world.size)
            self.rows = lambda: _table_rows(table_files, cuts[world.rank], cuts[world.rank + 1])
        self.fingerprint = files.fingerprint


def _table_rows(files: TableFiles, begin: int, end: int) -> Iterator[dict[str, Any]]:
    for batch in files.read(begin, end):
        columns = []
        for label, values in batch.items():
            array = array_of(values.values, values.nulls, files.types[label])
            if is_text(array.type):
                array = array.cast(arrow().large_string())
                array = _nulls(array) if files.empty_is_null(label) else array
            columns.append(array.to_pylist())
        yield from (dict(zip(batch, row, strict=True)) for row in zip(*columns, strict=True))


def _nulls(array: Any) -> Any:
    """Return texts with null in place of empty ones."""
    return arrow("compute").if_else(arrow("compute").equal(array, ""), arrow().scalar(None, array.type), array)


def _json_rows(files: TextFiles) -> Iterator[dict[str, Any]]:
    """Yield the rows of this rank's lines."""
    cuts = even_cuts(files.size, files.world.size)
    for block in files.blocks(cuts[files.world.rank], cuts[files.world.rank + 1], b"\n"):
        position = block.offset
        for line in bytes(block).split(b"\n"):
            if line.strip():
                yield json_row(line, f"{block.path} at byte {position}")
            position += len(line) + 1


def began_at(folder: Path) -> float:
    """Return the time at which the farm was first started."""
    file = folder / "began.json"
    if not file.exists():
        file.write_text(json.dumps(time.time()), encoding="utf-8")
    return float(json.loads(file.read_text(encoding="utf-8")))


def json_row(line: bytes, where: str) -> dict[str, Any]:
    """Return the object in a line of JSON. Raises UsageError for anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f'{where} is not JSON ({error}). Write one object on each line, such as {{"x": 1}}, not CSV.'
        ) from None
    if not isinstance(row, dict):
        raise UsageError(f'{where} is {row!r}, not an object. Write one object on each line, such as {{"x": 1}}.')
    return row


def _pickled(path: Path, world: World) -> Iterator[Any]:
    """Yield the arguments of this rank's tasks: the file has blocks of them."""
    offsets = np.fromfile(path.with_suffix(".offsets"), np.int64)
    cuts = even_cuts(len(offsets), world.size)
    with path.open("rb") as file:
        for offset in offsets[cuts[world.rank] : cuts[world.rank + 1]].tolist():
            file.seek(offset)
            yield from pickle.load(file)
