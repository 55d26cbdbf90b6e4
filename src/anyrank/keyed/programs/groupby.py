"""Group by: aggregate the rows of tables by groups of equal keys."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.aggregate import Aggregates, mask, parse_aggregate
from anyrank.keyed.files import absolute, check_unchanged, fingerprint
from anyrank.keyed.order import head, ordered
from anyrank.keyed.rows import Column, Columns, Text
from anyrank.keyed.table import Table
from anyrank.keyed.tables import TableFiles
from anyrank.keyed.values import KINDS, ColumnSpec, Values, concat_values, parse_key
from anyrank.keyed.write import write_csv, write_hdf5
from anyrank.program import Program, param
from anyrank.state import State

#: A rank reads 1/SHARE of its memory budget in bytes of files, then checks its memory.
SHARE = 16
#: The Table key types of kinds that a Table does not have.
_KEYS = {"text": "text", "timestamp": "int64", "date": "int64", "bool": "uint8"}

#: The NumPy type of times, and of their text.
_TIMES = {"timestamp": ("M8[ns]", "S29"), "date": ("M8[D]", "S16")}


class GroupBy(Program):
    """Aggregate the rows of tables by groups: count, sum, mean, min, max and var, exact and independent of order.

    Tables are CSV (with a header line), Parquet, HDF5 and structured .npy files. Keys are columns, or date, year,
    month, hour or weekday (Monday is 0), in UTC, of a column of times: timestamps, ISO 8601, or Unix seconds.
    Aggregates are count, and count, sum, mean, min, max and var (divided by n − 1) of columns. Sums, means and
    variances are computed exactly and rounded once; sums of integers are integers if all of them fit into 64 bits.
    Nulls are ignored: the sum of no values is 0, the mean, minimum or maximum of no values is null. Null keys form one
    group, the last. A step reads a chunk of the bytes of the files; a run can stop and resume after each step. All
    groups, sorted by key, are written to groups.csv and groups.h5 in the run folder.

        anyrank run groupby -n 4 --table 'log/*.parquet' --by 'user,date(timestamp)' --aggregate 'count,mean(price)'
    """

    name = "groupby"
    table: str = param(..., "files, folders and globs, separated by commas")
    by: str = param(..., "keys, separated by commas, such as 'user,date(timestamp)'")
    aggregate: str = param("count", "aggregates, separated by commas, such as 'count,sum(price),mean(price)'")
    on_bad: Literal["error", "skip"] = param("error", "at a malformed row: stop with an error, or skip and count it")
    types: str = param("", "types of CSV columns that their first rows do not show, such as 'user=text,price=float64'")
    chunk: int = param(1 << 30, "bytes read in a step; a run can stop after each step", ge=1, lt=2**62)
    top: int = param(10, "number of groups in the result, the first ones", ge=0)
    files: TableFiles

    @property
    def steps(self) -> int:
        """The number of chunks."""
        return self.files.chunks(self.chunk) if hasattr(self, "files") else 1

    def check(self) -> None:
        """Make paths absolute, so that the run can be resumed in any folder; parse keys, aggregates and types."""
        self.table = absolute(self.table)
        self.keys = [*{key.label: key for key in map(parse_key, self.by.split(","))}.values()]
        self.aggregates = [*dict.fromkeys(map(parse_aggregate, self.aggregate.split(",")))]
        self.csv_types = dict(_type_of(text) for text in self.types.split(",") if text)
        if same := {key.label for key in self.keys} & {spec.label for spec in self.aggregates}:
            raise UsageError(f"groupby: {min(same)} is a key and an aggregate; column names must differ. Drop one.")

    def declare(self, state: State) -> None:
        """Declare the table of groups, the rows read so far, and hashes of the input."""
        wanted = [ColumnSpec(a.column, number=a.function != "count") for a in self.aggregates if a.column]
        self.files = TableFiles(self.table, [*self.keys, *wanted], state.world, self.on_bad, self.csv_types)
        nullable = {label for label in self.files.kinds if self.files.nullable(label)}
        self.combined = Aggregates(self.aggregates, self.files.kinds, nullable)
        keys: dict[str, str] = {}
        for k, key in enumerate(self.keys):
            keys |= {f"null{k}": "uint8"} if key.label in nullable and not self.files.empty_is_null(key.label) else {}
            keys[f"key{k}"] = _KEYS.get(self.files.kinds[key.label], self.files.kinds[key.label])
        description = "groups and the combined values of their rows"
        state.add(Table("groups", state.world, keys, self.combined.table_values(), description=description))
        state.scalar("rows", 0, description="rows so far")
        state.scalar("bad", 0, description="bad rows skipped so far")
        state.scalar("input", self.files.fingerprint, description="hash of the files' names and sizes")
        self.known = fingerprint(self.files.kinds.items())
        state.scalar("kinds", self.known, description="hash of the columns' names and kinds")

    def step(self, state: State) -> None:
        """Read and combine this rank's part of the chunk, in rounds that fit into the memory budget."""
        self.files.check(state.input)
        check_unchanged("columns", self.known, state.kinds)
        budget, before, rows = state.budget(), self.files.bad.count, 0
        for begin, end in self.files.rounds(*self.files.part(state.step, self.chunk), budget // SHARE):
            with state.world.raise_on_all_ranks():
                batches = [*self.files.read(begin, end)]
            rows += self._gather(state, batches)
            state.groups.keep_within(budget)
        counts = np.array([rows, self.files.bad.count - before], np.int64)
        rows, bad = state.world.allreduce(counts).tolist()
        state.rows += rows
        state.bad += bad

    def _gather(self, state: State, batches: list[dict[str, Values]]) -> int:
        """Add rows to their groups and return their number. Collective."""
        kinds = self.files.kinds.items()
        batch = {label: concat_values([part[label] for part in batches], kind) for label, kind in kinds}
        keys: list[Column] = []
        for k, key in enumerate(self.keys):
            column, nulls = _key(batch[key.label])
            keys += [nulls] if f"null{k}" in state.groups.keys else []
            keys.append(column)
        state.groups.gather(*keys, **self.combined.values(batch))
        return len(keys[0])

    def result(self, state: State) -> dict[str, Any]:
        """Return the number of rows and groups and the first groups; write all groups to groups.csv and groups.h5."""
        keys = self._keys(state.groups.columns)
        groups = ordered(state.world, keys | self.combined.results(state.groups), [*keys], unique=True)
        output = {key.label: self._output_key(k, groups) for k, key in enumerate(self.keys)}
        output |= {spec.label: groups[spec.label] for spec in self.aggregates}
        nulls = {key.label: groups[f"null{k}"] for k, key in enumerate(self.keys) if f"null{k}" in groups}
        if state.folder is not None:
            write_csv(state.world, state.folder / "groups.csv", output)
            write_hdf5(state.world, state.folder / "groups.h5", _flat(output, nulls))
        first = head(state.world, output, self.top)
        for label, flags in head(state.world, nulls, self.top).items():
            first[label] = [None if null else value for value, null in zip(first[label], flags, strict=True)]
        rows = [[*map(_plain, row)] for row in zip(*first.values(), strict=True)]
        return {
            "rows": state.rows,
            "groups": state.groups.rows,
            "left_out": state.bad,
            "columns": [*first],
            "first": rows,
        }

    def _keys(self, columns: Columns) -> Columns:
        """Return the key columns of groups, each preceded by its null mask."""
        result = Columns()
        for k, key in enumerate(self.keys):
            column = columns[f"key{k}"]
            if f"null{k}" in columns:
                result[f"null{k}"] = columns[f"null{k}"]
            elif isinstance(column, Text) and self.files.empty_is_null(key.label):
                result[f"null{k}"] = (column.sizes == 0).astype(np.uint8)
            result[f"key{k}"] = column
        return result

    def _output_key(self, k: int, groups: Columns) -> Column:
        """Return a key column for the output: times as ISO 8601 text, nulls as empty."""
        column, kind = groups[f"key{k}"], self.files.kinds[self.keys[k].label]
        if isinstance(column, Text):
            return column
        nulls = np.asarray(groups.get(f"null{k}", np.zeros(len(column))), bool)
        if kind in _TIMES:
            unit, size = _TIMES[kind]
            return np.where(nulls, b"", np.datetime_as_string(column.view(unit)).astype(size))
        column = column.view(bool) if kind == "bool" else column
        return mask(column, nulls) if f"null{k}" in groups else column

    def work(self) -> tuple[float, str]:
        """Return the mean bytes per step, because the last chunk may be shorter."""
        return (self.files.size / max(1, self.steps), "bytes") if hasattr(self, "files") else (1.0, "chunks")


def _key(values: Values) -> tuple[Column, np.ndarray]:
    """Return a key column with one representation of null, NaN and zero, and its null mask as uint8."""
    column, nulls = values.values, values.nulls
    if isinstance(column, np.ndarray) and column.dtype.kind == "f":
        column = np.where(column == column, column + 0.0, np.nan)
    if nulls is None:
        return column, np.zeros(len(column), np.uint8)
    if isinstance(column, Text):
        column = column if not (column.sizes[nulls] > 0).any() else _clear_nulls(column, nulls)
    else:
        column = np.where(nulls, np.zeros(1, column.dtype), column)
    return column, nulls.astype(np.uint8)


def _flat(columns: Columns, nulls: Columns) -> Columns:
    """Return the columns for HDF5: names without slashes, with NAME_null beside columns that have no NaN."""
    result = Columns()
    for label, column in columns.items():
        name = label.replace("/", ".")
        result[name] = column
        if label in nulls:
            result[f"{name}_null"] = np.asarray(nulls[label], bool)
        if isinstance(column, np.ma.MaskedArray) and column.dtype.kind != "f":
            result |= {name: column.filled(0), f"{name}_null": np.ma.getmaskarray(column)}
    return result


def _clear_nulls(column: Text, nulls: np.ndarray) -> Text:
    kept = column[~nulls]
    sizes = np.where(nulls, 0, column.sizes)
    return Text.sized(kept.data, sizes)


def _type_of(text: str) -> tuple[str, str]:
    name, _, kind = text.partition("=")
    if kind not in (kinds := KINDS[:5]):
        raise UsageError(f"--types {text!r} is not a column type. Write COLUMN={' or '.join(kinds)}.")
    return name, kind


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
