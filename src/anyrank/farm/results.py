"""The results of a farm: one row for each task, in the order of the tasks, the same on any number of ranks."""

from __future__ import annotations

import base64
import json
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyrank.farm.journal import Entries, Records
from anyrank.farm.tasks import DONE, STATUSES, Outcome, Record
from anyrank.keyed.types import arrow
from anyrank.keyed.write import write_csv, write_hdf5, write_parquet
from anyrank.storage.durable import Piece, write_collectively
from anyrank.world import World

#: Records read at a time.
BATCH = 4096
#: Columns of results.*; if the table has one of these, its column is `input_NAME`, and of a result `result_NAME`.
OWN = ("task", "id", "status", "error")
VALUE = "value"


class Totals(NamedTuple):
    """What became of the tasks: their number by status, and a digest of all values."""

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


def digest_of(record: Record, outcome: Outcome) -> int:
    """Return the digest of the result of a task; those of all tasks are added."""
    text = json.dumps([record.task, record.status, plain(outcome.value)], sort_keys=True)
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


class Results:
    """The last records of the tasks that this rank owns, and what is written from them. Construction is collective."""

    def __init__(self, records: Records, world: World, tasks: int, item: Any):
        from anyrank.layout import even_cuts

        self._records, self._world, self._item = records, world, item
        self.entries: Entries = records.last(even_cuts(tasks, world.size))

    def rows(self) -> Iterator[tuple[Record, Outcome]]:
        """Yield the records of this rank's tasks in their order. Not collective."""
        for batch in self._records.load(self.entries, BATCH):
            for record in batch:
                yield record, record.outcome()

    def totals(self) -> Totals:
        """Return the number of tasks by status, the digest, and the first errors. Collective."""
        digest = 0
        errors: list[str] = []
        for record, outcome in self.rows():
            digest = (digest + digest_of(record, outcome)) % 2**64
            if record.status != DONE and len(errors) < 3:
                errors.append(f"task {self._item(record.task, 1).id} {STATUSES[record.status]}: {outcome.error}")
        counts = np.bincount(self.entries.status, minlength=len(STATUSES)).astype(np.int64)
        parts = self._world.comm.allgather((digest, errors))
        joint = sum(part for part, _ in parts) % 2**64
        first = [error for _, own in parts for error in own][:3]
        return Totals(self._world.allreduce(counts).tolist(), joint, first)

    def write(self, folder: Path, formats: Sequence[str]) -> None:
        """Write results.FORMAT for each format, and tasks.csv with times and ranks. Collective."""
        if "jsonl" in formats:
            self._write_lines(folder / "results.jsonl")
        tables = {"csv": write_csv, "parquet": write_parquet, "hdf5": write_hdf5}
        chosen = [name for name in formats if name in tables]
        columns = self._columns() if chosen else {}
        for name in chosen:
            tables[name](self._world, folder / f"results.{'h5' if name == 'hdf5' else name}", columns)
        write_csv(self._world, folder / "tasks.csv", self._times())

    def _write_lines(self, path: Path) -> None:
        """Write one JSON object for each task. Collective."""
        own = path.with_name(f".{path.name}-{self._world.rank}")
        with self._world.raise_on_all_ranks(OSError), own.open("wb") as file:
            for record, outcome in self.rows():
                row = self._named(record) | {VALUE: plain(outcome.value)}
                row |= {"error": outcome.error} if outcome.error else {}
                file.write(json.dumps(row).encode() + b"\n")
        sizes = self._world.comm.allgather(own.stat().st_size)
        begin = sum(sizes[: self._world.rank])

        def pieces() -> Iterator[Piece]:
            offset = begin
            with own.open("rb") as file:
                while data := file.read(1 << 20):
                    yield offset, memoryview(data)
                    offset += len(data)

        write_collectively(self._world, path, lambda temporary: temporary.write_bytes(b""), lambda _: pieces())
        own.unlink()

    def _named(self, record: Record, finite: bool = True) -> dict[str, Any]:
        """Return the columns of a row before its value: task, id, inputs and status."""
        item = self._item(record.task, 1)
        row: dict[str, Any] = {"task": record.task, "id": item.id}
        if isinstance(item.arguments, Mapping):
            row |= {f"input_{k}" if k in (*OWN, VALUE) else k: plain(v, finite) for k, v in item.arguments.items()}
        return row | {"status": STATUSES[record.status]}

    def _columns(self) -> dict[str, Any]:
        """Return the rows of this rank as Arrow arrays, of the same types on all ranks. Collective."""
        names: dict[str, None] = {}
        rows = []
        for record, outcome in self.rows():
            row, value = self._named(record, False), plain(outcome.value, False)
            parts = value if isinstance(value, dict) and [*value] != ["pickle"] else {VALUE: value}
            row |= {f"result_{k}" if k in row else k: v for k, v in parts.items()} if record.status == DONE else {}
            row["error"] = outcome.error or None
            rows.append(row)
            names |= dict.fromkeys(row)
        joint = dict.fromkeys(name for part in self._world.comm.allgather([*names]) for name in part)
        ordered = [name for name in joint if name != "error"] + ["error"] * ("error" in joint)
        kinds = {name: {_kind(row.get(name)) for row in rows} for name in ordered}
        every = self._world.comm.allgather(kinds)
        return {
            name: _array([row.get(name) for row in rows], set().union(*(part[name] for part in every)))
            for name in ordered
        }

    def _times(self) -> dict[str, Any]:
        """Return the attempts, the times and the output of this rank's tasks. Collective because of its types."""
        pa, rows = arrow(), [*self.rows()]
        return {
            "task": pa.array([record.task for record, _ in rows], pa.int64()),
            "status": pa.array([STATUSES[record.status] for record, _ in rows], pa.large_string()),
            "attempts": pa.array([record.attempts for record, _ in rows], pa.int64()),
            "execution": pa.array([self._records.execution(n) for n in self.entries.file], pa.int64()),
            "rank": pa.array([self._records.rank_of(n) for n in self.entries.file], pa.int64()),
            "started": pa.array([int(record.start * 1e6) for record, _ in rows], pa.timestamp("us", "UTC")),
            "seconds": pa.array([record.seconds for record, _ in rows], pa.float64()),
            "output": pa.array([outcome.output or None for _, outcome in rows], pa.large_string()),
            "traceback": pa.array([outcome.trace or None for _, outcome in rows], pa.large_string()),
        }


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
