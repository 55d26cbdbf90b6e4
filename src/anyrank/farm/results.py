"""The results of a farm: one row for each task, in the order of the tasks, the same on any number of ranks."""

from __future__ import annotations

import base64
import json
import math
import pickle
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyrank.farm.inputs import Inputs
from anyrank.farm.journal import Records
from anyrank.farm.tasks import DONE, STATUSES, Outcome
from anyrank.keyed.types import arrow
from anyrank.keyed.write import write_csv, write_hdf5, write_parquet
from anyrank.layout import even_cuts
from anyrank.numerics.digest import local_digest
from anyrank.storage.durable import open_collectively
from anyrank.world import World

#: Errors shown at the end.
SHOWN = 3
#: Columns of results.*; if the table has one of these, its column is `input_NAME`, and of a result `result_NAME`.
OWN = ("task", "id", "status", "failure")
VALUE = "value"


class Totals(NamedTuple):
    """What became of the tasks: their number by status, a digest of status and values, and the first errors."""

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


class Results:
    """The results of the tasks that this rank owns, as columns. The constructor is collective.

    Parameters
    ----------
    records : Records
        The records of all ranks.
    world : World
        The ranks.
    inputs : Inputs
        The rows of the tasks.
    ids : list of str
        The identifiers of the tasks; empty: their indices.
    """

    def __init__(self, records: Records, world: World, inputs: Inputs, ids: Sequence[str]):
        self._world, self._records = world, records
        cuts = even_cuts(inputs.rows, world.size)
        self._first = cuts[world.rank]
        self._entries = entries = records.last(cuts)
        self._tasks = entries.task.tolist()
        rows = inputs.rows_of(self._tasks)
        outcomes = [*map(_loads, records.bodies(entries))]
        values = [outcome[0] for outcome in outcomes]
        #: What tasks printed, why they failed, and their tracebacks; most have none of these.
        longer = {row: Outcome(*outcome) for row, outcome in enumerate(outcomes) if len(outcome) > 1}
        self._outputs = self._sparse({row: outcome.output for row, outcome in longer.items()})
        self._traces = self._sparse({row: outcome.trace for row, outcome in longer.items()})
        columns: dict[str, list[Any]] = {"task": self._tasks, "id": [ids[k] if ids else str(k) for k in self._tasks]}
        for name in inputs.columns:
            columns[f"input_{name}" if name in (*OWN, VALUE) else name] = [row.get(name) for row in rows]
        columns["status"] = [STATUSES[status] for status in entries.status.tolist()]
        found = {
            f"result_{name}" if name in columns or name in OWN else name: column
            for name, column in _columns_of(values, entries.status == DONE).items()
        }
        self._columns = columns | found
        for name, column in self._columns.items():
            if not {*map(type, column)} <= {int, float, str, bool, type(None)}:
                self._columns[name] = [plain(value, False) for value in column]
        self._failures = self._sparse({row: outcome.error for row, outcome in longer.items()})
        if longer:
            self._columns["failure"] = self._failures
        self._arrays = self._joint_arrays()
        #: The columns of values, of all ranks.
        self._values = sorted({name for part in world.comm.allgather([*found]) for name in part})

    def _sparse(self, texts: Mapping[int, str]) -> list[str | None]:
        """Return a column from the texts of some rows."""
        column: list[str | None] = [None] * len(self._tasks)
        for row, text in texts.items():
            column[row] = text or None
        return column

    def _joint_arrays(self) -> dict[str, Any]:
        """Return the columns of all ranks, in one order and with the same types. Collective."""
        joint: dict[str, set[str]] = {}
        for part in self._world.comm.allgather({name: _kinds(column) for name, column in self._columns.items()}):
            for name, own in part.items():
                joint[name] = joint.get(name, set()) | own
        ordered = sorted(joint, key=lambda name: name == "failure")
        missing: list[Any] = [None] * len(self._tasks)
        return {name: _array(self._columns.get(name, missing), joint[name]) for name in ordered}

    def totals(self) -> Totals:
        """Return the number of tasks by status, the digest, and the first errors. Collective."""
        counts = np.bincount(self._entries.status, minlength=len(STATUSES)).astype(np.int64)
        digest = _digest("", arrow().array(self._entries.status), self._first)
        digest += sum(_digest(name, self._arrays[name], self._first) for name in self._values)
        ids, statuses = self._columns["id"], self._columns["status"]
        lines = (f"task {ids[row]} {statuses[row]}: {text}" for row, text in enumerate(self._failures) if text)
        parts = self._world.comm.allgather((digest, [*islice(lines, SHOWN)]))
        first = [error for _, own in parts for error in own][:SHOWN]
        return Totals(self._world.allreduce(counts).tolist(), sum(part for part, _ in parts) % 2**64, first)

    def write(self, folder: Path, formats: Sequence[str]) -> None:
        """Write results.FORMAT for each format, and tasks.csv with times and ranks. Collective."""
        writers = {"csv": write_csv, "parquet": write_parquet, "hdf5": write_hdf5}
        for name in formats:
            if name == "jsonl":
                self._write_lines(folder / "results.jsonl")
            else:
                writers[name](self._world, folder / f"results.{'h5' if name == 'hdf5' else name}", self._arrays)
        write_csv(self._world, folder / "tasks.csv", self._about())

    def _write_lines(self, path: Path) -> None:
        """Write one JSON object for each task; what a task does not have is left out. Collective."""
        names = [name for name in self._arrays if name in self._columns]
        rows = zip(*(self._columns[name] for name in names), strict=True)
        lines = [_line(dict(zip(names, row, strict=True))) for row in rows]
        sizes = self._world.comm.allgather(sum(map(len, lines)))
        begin = sum(sizes[: self._world.rank])
        data = memoryview(b"".join(lines))
        with open_collectively(self._world, path, lambda temporary: temporary.write_bytes(b"")) as (_, put):
            put([(begin, data)])

    def _about(self) -> dict[str, Any]:
        """Return the attempts, the times and the output of this rank's tasks as Arrow arrays."""
        pa, entries = arrow(), self._entries
        numbers = range(len(self._records.files))
        execution = np.array([self._records.execution(number) for number in numbers], np.int64)
        rank = np.array([self._records.rank_of(number) for number in numbers], np.int64)
        text = pa.large_string()
        return {
            "task": pa.array(entries.task),
            "id": self._arrays["id"],
            "status": self._arrays["status"],
            "attempts": pa.array(entries.attempts),
            "execution": pa.array(execution[entries.file]),
            "rank": pa.array(rank[entries.file]),
            "started": pa.array((entries.start * 1e6).astype("M8[us]"), pa.timestamp("us", "UTC")),
            "seconds": pa.array(entries.seconds),
            "output": pa.array(self._outputs, text),
            "traceback": pa.array(self._traces, text),
        }


def _loads(body: bytes) -> tuple[Any, ...]:
    """Return the fields of an outcome; a value that cannot be read back is described instead."""
    try:
        return pickle.loads(body)  # type: ignore[no-any-return]
    except Exception as error:
        return (f"cannot be read back: {type(error).__name__}: {error}",)


def _columns_of(values: list[Any], done: np.ndarray) -> dict[str, list[Any]]:
    """Return values as columns: those of mappings by name, all others in one."""
    columns: dict[str, list[Any]] = {}
    if dict not in {*map(type, values)}:
        return {VALUE: values}
    for row, (value, is_done) in enumerate(zip(values, done.tolist(), strict=True)):
        named = isinstance(value, dict) and all(isinstance(name, str) for name in value)
        for name, cell in (value if named else {VALUE: value} if is_done else {}).items():
            columns.setdefault(name, [None] * len(values))[row] = cell
    return columns


def _digest(name: str, array: Any, first: int) -> int:
    """Return the digest of a column: the sum over its rows, so that it does not depend on how they are divided."""
    key = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") | 1
    pa, rows = arrow(), len(array)
    if pa.types.is_large_string(array.type):
        texts = enumerate(array.to_pylist(), first)
        hashes = (blake2b(f"{row} {text}".encode(), digest_size=8).digest() for row, text in texts if text is not None)
        return key * sum(int.from_bytes(part, "little") for part in hashes) % 2**64
    nulls = array.is_null().to_numpy(zero_copy_only=False)
    values = array.fill_null(0).to_numpy(zero_copy_only=False)
    shape, offset = (max(1, first + rows),), (first,)
    return key * (local_digest(values, shape, offset) + 3 * local_digest(nulls, shape, offset)) % 2**64


def _line(row: dict[str, Any]) -> bytes:
    kept = {name: plain(cell) for name, cell in row.items() if cell is not None or name == VALUE}
    return json.dumps(kept).encode() + b"\n"


def _kinds(column: list[Any]) -> set[str]:
    """Return the kinds of the values of a column; `large` integers are not exact as float64."""
    types = {*map(type, column)} - {type(None)}
    kinds = {"bool" if type_ is bool else "float" if type_ is float else "text" for type_ in types - {int}}
    if int in types:
        largest = max((abs(value) for value in column if type(value) is int), default=0)
        kinds.add("int" if largest <= 2**53 else "large" if largest < 2**63 else "text")
    return kinds


def _array(values: list[Any], kinds: set[str]) -> Any:
    """Return values as an Arrow array of the type for the kinds of all ranks: int64, bool, float64 or text."""
    pa = arrow()
    if kinds <= {"int", "large"}:
        return pa.array(values, pa.int64())
    if kinds == {"bool"}:
        return pa.array(values, pa.bool_())
    if kinds <= {"int", "float"}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pa.array([text and text.encode(errors="backslashreplace").decode() for text in texts], pa.large_string())
