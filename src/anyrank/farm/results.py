"""The results of a farm: one row for each task, in the order of the tasks, the same on any number of ranks.

Only a block of tasks is in memory at a time. The ranks read all blocks once, to agree on the columns and their kinds,
and then again for each file that they write. Block k has the tasks after those of block k - 1, divided evenly among the
ranks, because the files have the rows in this order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyrank.farm.columns import (
    OWN,
    VALUE,
    array_of,
    columns_of,
    digest_of,
    kinds_of,
    line_of,
    name_columns,
    plain_column,
    read_outcome,
    texts_of,
)
from anyrank.farm.inputs import Inputs
from anyrank.farm.journal import Entries, Records
from anyrank.farm.streams import Stream
from anyrank.farm.tasks import DONE, STATUSES, Outcome
from anyrank.keyed.types import arrow
from anyrank.keyed.write import write_csv, write_hdf5, write_parquet
from anyrank.layout import even_cuts
from anyrank.storage.durable import open_collectively
from anyrank.world import World

#: Errors shown at the end.
SHOWN = 3
#: The most tasks of a rank in a block, and the most bytes of their records, if all records have the same length.
BLOCK_TASKS, BLOCK_BYTES = 1 << 16, 1 << 26


class Totals(NamedTuple):
    """What became of the tasks: their number by status, a digest of status and values, and the first errors."""

    by_status: list[int]
    digest: int
    first_errors: list[str]


@dataclass
class _Block:
    """Tasks of this rank in a block: records, columns of the table and of values, and rare outcomes."""

    number: int
    entries: Entries
    table: dict[str, list[Any]]
    values: dict[str, list[Any]]
    #: What tasks printed, why they failed, and their tracebacks, by row; most have none of these.
    longer: dict[int, Outcome]
    #: Whether a value is a dict.
    named: bool
    arrays: dict[str, Any] = field(default_factory=dict)

    def sparse(self, texts: Mapping[int, str]) -> list[str | None]:
        """Return a column from the texts of some rows."""
        column: list[str | None] = [None] * len(self.entries.heads)
        for row, text in texts.items():
            column[row] = text or None
        return column


class _Facts(NamedTuple):
    """What all ranks must know of a rank's block: the kinds of its columns, numbers of tasks by status, errors."""

    table: dict[str, set[str]]
    values: dict[str, set[str]]
    failures: set[str]
    counts: np.ndarray
    errors: list[str]
    named: bool
    longer: bool


class Results:
    """The results of all tasks, as columns. The constructor is collective.

    Parameters
    ----------
    records : Records
        The records of all ranks.
    world : World
        The ranks.
    inputs : Inputs or Stream
        The rows of the tasks.
    id : str
        The column with the identifiers of the tasks; empty: their indices.

    Raises
    ------
    AnyrankError
        On all ranks, if a task has no record.
    """

    def __init__(self, records: Records, world: World, inputs: Inputs | Stream, id: str = ""):
        self._records, self._world, self._inputs, self._id = records, world, inputs, id
        tasks = max(1, min(BLOCK_TASKS, BLOCK_BYTES * inputs.rows // max(1, records.size()))) * world.size
        firsts = range(0, max(1, inputs.rows), tasks)
        blocks = [(first, min(tasks, inputs.rows - first)) for first in firsts]
        self._cuts = [[first + cut for cut in even_cuts(rows, world.size)] for first, rows in blocks]
        self._places = records.last(self._cuts)
        self._input_names = name_columns(inputs.columns, "input_", (*OWN, VALUE))
        #: The block that was read last: if there is only one, nothing is read twice.
        self._kept: _Block | None = None
        #: The blocks in which tasks of this rank have more than a value.
        self._with_more: set[int] = set()
        #: The digest of this rank's tasks of the first blocks, and the number of these.
        self._digest, self._digested = 0, 0
        self._agree()

    def _agree(self) -> None:
        """Agree on the columns and their kinds, the number of tasks by status, and the first errors. Collective."""
        table: dict[str, set[str]] = {}
        values: dict[str, set[str]] = {}
        failures: set[str] = set()
        counts, self._errors = np.zeros(len(STATUSES), np.int64), list[str]()
        named = longer = False
        for number in range(len(self._cuts)):
            for part in self._world.comm.allgather(self._facts(self._block(number))):
                for joint, kinds in ((table, part.table), (values, part.values)):
                    for name, own in kinds.items():
                        joint[name] = joint.get(name, set()) | own
                counts += part.counts
                self._errors = [*self._errors, *part.errors][:SHOWN]
                named, longer = named or part.named, longer or part.longer
                failures |= part.failures
        if not named:  # also if no task is done
            values.setdefault(VALUE, set())
        self._counts = counts
        #: The columns of values as they are named in the results, and in the values.
        self._names = {new: name for name, new in name_columns(values, "result_", {*table, *OWN}).items()}
        #: The kinds of all columns, in their order.
        self._kinds = table | {name: values[own] for name, own in self._names.items()}
        if longer:
            self._kinds["failure"] = failures

    def _facts(self, block: _Block) -> _Facts:
        """Return what all ranks must know of a block."""
        status, ids = block.entries.heads["status"], block.table["id"]
        errors = {row: outcome.error for row, outcome in block.longer.items()}
        lines = (f"task {ids[row]} {STATUSES[status[row]]}: {text}" for row, text in errors.items() if text)
        return _Facts(
            {name: kinds_of(column) for name, column in block.table.items()},
            {name: kinds_of(column) for name, column in block.values.items()},
            kinds_of(block.sparse(errors)),
            np.bincount(status, minlength=len(STATUSES)),
            [*islice(lines, SHOWN)],
            block.named,
            bool(block.longer),
        )

    def _block(self, number: int) -> _Block:
        """Return a block of this rank's tasks. Not collective."""
        if self._kept is not None and self._kept.number == number:
            return self._kept
        self._kept = None  # before there is another one
        entries = self._records.read(self._places[number])
        tasks = entries.heads["task"].tolist()
        rows = self._inputs.rows_of(tasks)
        outcomes = [*map(read_outcome, entries.bodies)]
        entries.bodies.clear()
        values = [outcome[0] for outcome in outcomes]
        longer = {row: Outcome(*outcome) for row, outcome in enumerate(outcomes) if len(outcome) > 1}
        table: dict[str, list[Any]] = {"task": tasks, "id": self._ids(tasks, rows)}
        for name, new in self._input_names.items():
            table[new] = [row.get(name) for row in rows]
        table["status"] = [STATUSES[status] for status in entries.heads["status"].tolist()]
        columns = columns_of(values, (entries.heads["status"] == DONE).tolist())
        named = dict in {*map(type, values)}
        self._kept = _Block(number, entries, _plain(table), _plain(columns), longer, named)
        if longer:
            self._with_more.add(number)
        return self._kept

    def _ids(self, tasks: list[int], rows: list[Any]) -> list[str]:
        return [str(row.get(self._id)) for row in rows] if self._id else [*map(str, tasks)]

    def _columns(self, block: _Block) -> dict[str, list[Any]]:
        """Return the columns that all ranks have."""
        missing: list[Any] = [None] * len(block.entries.heads)
        columns = block.table | {name: block.values.get(own, missing) for name, own in self._names.items()}
        if "failure" in self._kinds:
            columns["failure"] = block.sparse({row: outcome.error for row, outcome in block.longer.items()})
        return columns

    def _arrays(self, number: int) -> dict[str, Any]:
        """Return the columns of a block as Arrow arrays. Not collective."""
        block = self._block(number)
        if not block.arrays:
            block.arrays = {name: array_of(column, self._kinds[name]) for name, column in self._columns(block).items()}
        if number == self._digested:
            first = self._cuts[number][self._world.rank]
            status = arrow().array(block.entries.heads["status"].astype(np.int64))
            self._digest += digest_of("", status, first)
            self._digest += sum(digest_of(name, block.arrays[name], first) for name in self._names)
            self._digested += 1
        return block.arrays

    def _datasets(self, number: int) -> dict[str, Any]:
        """Return the columns of a block with names that HDF5 takes. Not collective."""
        named: dict[str, Any] = {}
        for name, array in self._arrays(number).items():
            new = re.sub(r"[/\0]|^\.?$", "_", name)
            while new in named or (new != name and new in self._kinds):
                new += "_"
            named[new] = array
        return named

    def totals(self) -> Totals:
        """Return the number of tasks by status, the digest, and the first errors. Collective.

        Without another reading of the blocks after `write`.
        """
        for number in range(self._digested, len(self._cuts)):
            self._arrays(number)
        digest = sum(self._world.comm.allgather(self._digest)) % 2**64
        return Totals(self._counts.tolist(), digest, self._errors)

    def write(self, folder: Path, formats: Sequence[str]) -> None:
        """Write results.FORMAT for each format, and tasks.csv with times and ranks. Collective."""
        writers = {"csv": write_csv, "parquet": write_parquet}
        for name in formats:
            if name == "jsonl":
                self._write_lines(folder / "results.jsonl")
            elif name == "hdf5":
                write_hdf5(self._world, folder / "results.h5", lambda: map(self._datasets, range(len(self._cuts))))
            else:
                writers[name](
                    self._world, folder / f"results.{name}", lambda: map(self._arrays, range(len(self._cuts)))
                )
        write_csv(self._world, folder / "tasks.csv", lambda: map(self._about, range(len(self._cuts))))

    def _write_lines(self, path: Path) -> None:
        """Write one JSON object for each task; what a task does not have is left out. Collective."""
        start, rank = 0, self._world.rank
        with open_collectively(self._world, path, lambda temporary: temporary.write_bytes(b"")) as (_, put):
            for number in range(len(self._cuts)):
                data = self._lines(number)
                sizes = self._world.comm.allgather(len(data))
                put([(start + sum(sizes[:rank]), memoryview(data))])
                start += sum(sizes)

    def _lines(self, number: int) -> bytes:
        if number == self._digested:
            self._arrays(number)
        columns = self._columns(self._block(number))
        rows = zip(*columns.values(), strict=True)
        return b"".join([line_of(dict(zip(columns, row, strict=True))) for row in rows])

    def _about(self, number: int) -> dict[str, Any]:
        """Return the attempts, the times and the output of this rank's tasks of a block as Arrow arrays."""
        pa, kept = arrow(), self._kept is not None and self._kept.number == number
        if kept or self._id or number in self._with_more:
            block = self._block(number)
        else:  # the bodies of the records say nothing more
            entries = self._records.read(self._places[number], bodies=False)
            tasks = entries.heads["task"].tolist()
            block = _Block(number, entries, {"id": self._ids(tasks, [])}, {}, {}, False)
        heads, file = block.entries.heads, block.entries.file
        numbers = range(len(self._records.files))
        execution = np.array([self._records.execution(number) for number in numbers], np.int64)
        rank = np.array([self._records.rank_of(number) for number in numbers], np.int64)
        return {
            "task": pa.array(heads["task"].astype(np.int64)),
            "id": texts_of(block.table["id"]),
            "status": texts_of([STATUSES[status] for status in heads["status"].tolist()]),
            "attempts": pa.array(heads["attempts"].astype(np.int64)),
            "execution": pa.array(execution[file]),
            "rank": pa.array(rank[file]),
            "started": pa.array((heads["start"] * 1e6).astype("M8[us]"), pa.timestamp("us", "UTC")),
            "seconds": pa.array(heads["seconds"].astype(np.float64)),
            "output": texts_of(block.sparse({row: outcome.output for row, outcome in block.longer.items()})),
            "traceback": texts_of(block.sparse({row: outcome.trace for row, outcome in block.longer.items()})),
        }


def _plain(columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: plain_column(column) for name, column in columns.items()}
