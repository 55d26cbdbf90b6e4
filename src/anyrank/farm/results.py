"""The results of a farm: one row for each task, in the order of the tasks, the same on any number of ranks."""

from __future__ import annotations

import base64
import json
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyrank.farm.journal import Records
from anyrank.farm.tasks import DONE, STATUSES, Record
from anyrank.farm.worker import Item
from anyrank.keyed.types import arrow
from anyrank.keyed.write import write_csv, write_hdf5, write_parquet
from anyrank.layout import even_cuts
from anyrank.storage.durable import write_collectively
from anyrank.world import World

#: Records read at a time, and errors shown at the end.
BATCH, SHOWN = 4096, 3
#: Columns of results.*; if the table has one of these, its column is `input_NAME`, and of a result `result_NAME`.
OWN = ("task", "id", "status", "failure")
VALUE = "value"


class Totals(NamedTuple):
    """What became of the tasks: their number by status, a digest of all values, and the first errors."""

    by_status: list[int]
    digest: int
    first_errors: list[str]


def plain(value: Any, finite: bool = True) -> Any:
    """Return a value for JSON: numbers, texts, lists and mappings; anything else as {"pickle": base64}.

    With `finite`, infinities and NaN become texts, which JSON has no numbers for.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) or not finite else str(value)
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biufSU":
        return plain(value.tolist(), finite)
    if isinstance(value, list | tuple):
        return [plain(element, finite) for element in value]
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: plain(element, finite) for name, element in value.items()}
    if isinstance(value, bytes | bytearray):
        return value.decode(errors="backslashreplace")
    if hasattr(value, "isoformat") or isinstance(value, Path):  # dates and times
        return value.isoformat() if hasattr(value, "isoformat") else str(value)
    return {"pickle": base64.b64encode(pickle.dumps(value, 5)).decode()}


def digest_of(record: Record, value: Any) -> int:
    """Return the digest of the result of a task; those of all tasks are added."""
    if isinstance(value, int | float | str | None):
        text = f"{record.task} {record.status} {type(value).__name__} {value!r}"
    else:
        text = json.dumps([record.task, record.status, plain(value)], sort_keys=True)
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


class Results:
    """The last records of the tasks that this rank owns, as columns. The constructor is collective.

    Parameters
    ----------
    records : Records
        The records of all ranks.
    world : World
        The ranks.
    tasks : int
        The number of tasks.
    item : callable
        Returns a task by its index and attempt.
    """

    def __init__(self, records: Records, world: World, tasks: int, item: Callable[[int, int], Item]):
        self._world, self._item = world, item
        entries = records.last(even_cuts(tasks, world.size))
        self._counts = np.bincount(entries.status, minlength=len(STATUSES)).astype(np.int64)
        self._digest, self._count = 0, len(entries.task)
        self._first_errors: list[str] = []
        #: The values of a row by the name of the column; a row that lacks one has None.
        self._columns: dict[str, list[Any]] = {}
        self._about: dict[str, list[Any]] = {
            "task": entries.task.tolist(),
            "status": [STATUSES[status] for status in entries.status.tolist()],
            "execution": [records.execution(number) for number in entries.file.tolist()],
            "rank": [records.rank_of(number) for number in entries.file.tolist()],
            **{name: [] for name in ("attempts", "started", "seconds", "output", "traceback")},
        }
        row = 0
        for batch in records.load(entries, BATCH):
            for record in batch:
                self._add(row, record)
                row += 1

    def _add(self, row: int, record: Record) -> None:
        """Add a record to the columns."""
        outcome, item = record.outcome(), self._item(record.task, 1)
        self._digest += digest_of(record, outcome.value)
        cells: dict[str, Any] = {"task": record.task, "id": item.id}
        if isinstance(item.arguments, Mapping):
            cells |= {f"input_{k}" if k in (*OWN, VALUE) else k: v for k, v in item.arguments.items()}
        cells["status"] = STATUSES[record.status]
        if record.status == DONE:
            value = outcome.value
            parts = value if isinstance(value, dict) and all(isinstance(k, str) for k in value) else {VALUE: value}
            cells |= {f"result_{k}" if k in cells or k in OWN else k: v for k, v in parts.items()}
        else:
            cells["failure"] = outcome.error
            if len(self._first_errors) < SHOWN:
                self._first_errors.append(f"task {item.id} {STATUSES[record.status]}: {outcome.error}")
        for name, cell in cells.items():
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = []
            if len(column) < row:
                column += [None] * (row - len(column))
            column.append(plain(cell, False))
        about = self._about
        about["attempts"].append(record.attempts)
        about["started"].append(int(record.start * 1e6))
        about["seconds"].append(record.seconds)
        about["output"].append(outcome.output or None)
        about["traceback"].append(outcome.trace or None)

    def totals(self) -> Totals:
        """Return the number of tasks by status, the digest, and the first errors. Collective."""
        parts = self._world.comm.allgather((self._digest, self._first_errors))
        first = [error for _, own in parts for error in own][:SHOWN]
        return Totals(self._world.allreduce(self._counts).tolist(), sum(part for part, _ in parts) % 2**64, first)

    def write(self, folder: Path, formats: Sequence[str]) -> None:
        """Write results.FORMAT for each format, and tasks.csv with times and ranks. Collective."""
        columns = self._joint_columns()
        writers = {"csv": write_csv, "parquet": write_parquet, "hdf5": write_hdf5}
        for name in formats:
            if name == "jsonl":
                self._write_lines(folder / "results.jsonl", [*columns])
            else:
                arrays = {label: _array(values, kinds) for label, (values, kinds) in columns.items()}
                writers[name](self._world, folder / f"results.{'h5' if name == 'hdf5' else name}", arrays)
        write_csv(self._world, folder / "tasks.csv", self._about_arrays())

    def _joint_columns(self) -> dict[str, tuple[list[Any], set[str]]]:
        """Return the columns of all ranks in one order, with the kinds of their values on all ranks. Collective."""
        for column in self._columns.values():
            column += [None] * (self._count - len(column))
        kinds = {name: set(map(_kind, column)) for name, column in self._columns.items()}
        joint: dict[str, set[str]] = {}
        for part in self._world.comm.allgather(kinds):
            for name, own in part.items():
                joint[name] = joint.get(name, set()) | own
        ordered = [name for name in joint if name != "failure"] + ["failure"] * ("failure" in joint)
        missing: list[Any] = [None] * self._count
        return {name: (self._columns.get(name, missing), joint[name]) for name in ordered}

    def _write_lines(self, path: Path, names: list[str]) -> None:
        """Write one JSON object for each task; what a task does not have is left out. Collective."""
        rows = zip(*(self._columns.get(name, [None] * self._count) for name in names), strict=True)
        lines = [_line(dict(zip(names, row, strict=True))) for row in rows]
        sizes = self._world.comm.allgather(sum(map(len, lines)))
        begin = sum(sizes[: self._world.rank])
        data = memoryview(b"".join(lines))
        write_collectively(self._world, path, lambda temporary: temporary.write_bytes(b""), lambda _: [(begin, data)])

    def _about_arrays(self) -> dict[str, Any]:
        """Return the attempts, the times and the output of this rank's tasks as Arrow arrays."""
        pa = arrow()
        types = {
            "task": pa.int64(),
            "status": pa.large_string(),
            "attempts": pa.int64(),
            "execution": pa.int64(),
            "rank": pa.int64(),
            "started": pa.timestamp("us", "UTC"),
            "seconds": pa.float64(),
            "output": pa.large_string(),
            "traceback": pa.large_string(),
        }
        return {name: pa.array(self._about[name], type_) for name, type_ in types.items()}


def _line(row: dict[str, Any]) -> bytes:
    kept = {name: plain(cell) for name, cell in row.items() if cell is not None or name == VALUE}
    return json.dumps(kept).encode() + b"\n"


def _kind(value: Any) -> str:
    """Return the kind of a value: `large` integers are not exact as float64."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if abs(value) <= 2**53 else "large" if -(2**63) <= value < 2**63 else "text"
    return "float" if isinstance(value, float) else "text"


def _array(values: list[Any], kinds: set[str]) -> Any:
    """Return values as an Arrow array of the type for the kinds of all ranks: int64, bool, float64 or text."""
    pa, kinds = arrow(), kinds - {""}
    if kinds <= {"int", "large"}:
        return pa.array(values, pa.int64())
    if kinds == {"bool"}:
        return pa.array(values, pa.bool_())
    if kinds <= {"int", "float"}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pa.array([text and text.encode(errors="backslashreplace").decode() for text in texts], pa.large_string())
