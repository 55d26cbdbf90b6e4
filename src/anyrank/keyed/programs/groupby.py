"""Group by: aggregate the rows of tables by groups of equal keys."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.aggregate import Aggregates, parse_aggregate
from anyrank.keyed.files import absolute, check_unchanged, fingerprint, with_stdin
from anyrank.keyed.order import ordered
from anyrank.keyed.rows import Column, Columns, Text
from anyrank.keyed.table import Table
from anyrank.keyed.tables import TableFiles
from anyrank.keyed.tables.columns import ColumnSpec, parse_key, parse_name, split_names
from anyrank.keyed.tables.dialect import CsvOptions
from anyrank.keyed.tables.times import check_zone
from anyrank.keyed.types import array_of, arrow, is_wide, joined, name_of, parse_type, values_of
from anyrank.keyed.values import Values, concat_values, masked_rows
from anyrank.keyed.write import cells_of, write_csv, write_hdf5
from anyrank.program import Program, param
from anyrank.state import State

#: A rank reads 1/SHARE of its memory budget in bytes of files, then checks its memory.
SHARE = 16
#: The Table key types; all others are int64.
_KEYS = {"text": "text", "bool": "uint8", "float64": "float64", "uint64": "uint64"}


class GroupBy(Program):
    """Aggregate the rows of tables by groups: count, sum, mean, min, max, var and std, exact and independent of order.

    Tables are CSV of any dialect, Parquet, HDF5 and structured .npy files. Keys are columns, or date, year, month, day,
    hour, minute or weekday (Monday is 0) of a column of times: timestamps, ISO 8601, or Unix seconds. Aggregates are
    count, and count, sum, mean, min, max, var (divided by n − 1) and std of columns. Sums, means and variances are
    computed exactly and rounded once, a std twice; sums of integers and decimals are exact. Nulls are ignored: the sum
    of no values is 0, the mean, minimum or maximum of no values is null. Null keys form one group, the last. A step
    reads a chunk of the bytes of the files; a run can stop and resume after each step. All groups, sorted by key, are
    written to groups.csv and groups.h5 in the run folder.

        anyrank run groupby -n 4 --table 'log/*.parquet' --by 'user,date(timestamp)' --aggregate 'count,mean(price)'
    """

    name = "groupby"
    table: str = param(..., "files, folders and globs, separated by commas; - is CSV from standard input")
    by: str = param(..., "keys, separated by commas, such as 'user,date(timestamp)'")
    aggregate: str = param("count", "aggregates, separated by commas, such as 'count,sum(price),mean(price)'")
    on_bad: Literal["error", "skip"] = param("error", "at a malformed row: stop with an error, or skip and count it")
    types: str = param("", "types of CSV columns, such as 'user=text,price=decimal(10,2)'  [found in all rows]")
    tz: str = param("", "time zone of dates and hours, such as Europe/Oslo  [UTC]")
    delimiter: str = param("", "delimiter of CSV: one character, or tab  [found in the first line]")
    quote: str = param('"', "quote of CSV; empty: none")
    decimal: str = param(".", "decimal mark of CSV: . or ,")
    comment: str = param("", "lines of CSV that begin with this character are left out")
    header: Literal["yes", "no"] = param("yes", "whether CSV has a line of names; without one, columns are c1, c2, …")
    encoding: str = param("utf-8", "encoding of CSV, such as latin-1")
    union: Literal["no", "by-name"] = param("no", "by-name: a column that only some files have is null in the others")
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
        self.keys = [*{key.label: key for key in map(parse_key, split_names(self.by))}.values()]
        self.aggregates = [*dict.fromkeys(map(parse_aggregate, split_names(self.aggregate)))]
        self.csv_types = dict(_type_of(text) for text in split_names(self.types) if text)
        if same := {key.label for key in self.keys} & {spec.label for spec in self.aggregates}:
            raise UsageError(f"groupby: {min(same)} is a key and an aggregate; column names must differ. Drop one.")
        check_zone(self.tz)
        self.options = CsvOptions(
            _character(self.delimiter), self.quote, self.decimal, self.comment, self.header == "yes", self.encoding
        )
        self.options.check()

    def declare(self, state: State) -> None:
        """Declare the table of groups, the rows read so far, and hashes of the input."""
        wanted = [*self.keys, *(ColumnSpec(a.column, role=a.role) for a in self.aggregates if a.column)]
        options = self.on_bad, self.csv_types, self.options, self.tz, self.union == "by-name"
        names = state.world.on_root(partial(with_stdin, self.table, state.folder, ".csv"))
        self.files = TableFiles(names, wanted, state.world, *options)
        nullable = {label for label in self.files.types if self.files.nullable(label)}
        self.combined = Aggregates(self.aggregates, self.files.types, nullable)
        keys: dict[str, str] = {}
        for k, key in enumerate(self.keys):
            type_ = self.files.types[key.label]
            keys |= {f"null{k}": "uint8"} if key.label in nullable and not self.files.empty_is_null(key.label) else {}
            keys[f"key{k}"] = _KEYS.get(name_of(type_), "int64")
            keys |= {f"key{k}_low": "uint64"} if is_wide(type_) else {}
        description = "groups and the combined values of their rows"
        state.add(Table("groups", state.world, keys, self.combined.table_values(), description=description))
        state.scalar("rows", 0, description="rows so far")
        state.scalar("bad", 0, description="bad rows skipped so far")
        state.scalar("input", self.files.fingerprint, description="hash of the files' names and sizes")
        self.known = fingerprint((label, name_of(type_)) for label, type_ in self.files.types.items())
        state.scalar("kinds", self.known, description="hash of the columns' names and types")

    def step(self, state: State) -> None:
        """Read and combine this rank's part of the chunk, in rounds that fit into the memory budget."""
        self.files.check(state.input)
        check_unchanged("columns", self.known, state.kinds)
        budget, before, rows = state.budget(), self.files.bad.count, 0
        self.files.check_memory(budget)
        batches = self.files.read(*self.files.part(state.step, self.chunk))
        more = True
        while not state.world.all(not more):
            with state.world.raise_on_all_ranks():
                part, more = read_some(batches, budget // SHARE)
            rows += self._gather(state, part)
            state.groups.keep_within(budget)
        counts = np.array([rows, self.files.bad.count - before], np.int64)
        rows, bad = state.world.allreduce(counts).tolist()
        state.rows += rows
        state.bad += bad

    def _gather(self, state: State, batches: list[dict[str, Values]]) -> int:
        """Add rows to their groups and return their number. Collective."""
        empty = {label: values_of(joined([], type_), type_) for label, type_ in self.files.types.items()}
        batch = {label: concat_values([part[label] for part in batches], empty[label]) for label in empty}
        keys: list[Column] = []
        for k, key in enumerate(self.keys):
            column, nulls = _key(batch[key.label])
            keys += [nulls] if f"null{k}" in state.groups.keys else []
            if f"key{k}_low" in state.groups.keys:
                keys += [np.ascontiguousarray(column[:, 1]), np.ascontiguousarray(column[:, 0]).view(np.uint64)]
            else:
                keys.append(column)
        state.groups.gather(*keys, **self.combined.values(batch))
        return len(keys[0])

    def result(self, state: State) -> dict[str, Any]:
        """Return the number of rows and groups and the first groups; write all groups to groups.csv and groups.h5."""
        keys = self._keys(state.groups.columns)
        groups = ordered(state.world, keys | self.combined.results(state.groups), [*keys], unique=True)
        output = {key.label: self._output_key(k, groups) for k, key in enumerate(self.keys)}
        for label, type_ in self.combined.types.items():
            column = groups[label]
            nulls = masked_rows(column) if isinstance(column, np.ma.MaskedArray) else None
            output[label] = array_of(np.asarray(column), nulls, type_)
        if state.folder is not None:
            write_csv(state.world, state.folder / "groups.csv", output)
            flat = {label.replace("/", "."): column for label, column in output.items()}
            write_hdf5(state.world, state.folder / "groups.h5", flat)
        parts = state.world.comm.allgather([_plain(column.slice(0, self.top)) for column in output.values()])
        columns = [[value for part in parts for value in part[k]][: self.top] for k in range(len(output))]
        return {
            "rows": state.rows,
            "groups": state.groups.rows,
            "left_out": state.bad,
            "columns": [*output],
            "first": [[*row] for row in zip(*columns, strict=True)],
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
            result |= {name: columns[name] for name in (f"key{k}", f"key{k}_low") if name in columns}
        return result

    def _output_key(self, k: int, groups: Columns) -> Any:
        """Return a key column for the output."""
        column: Any = groups[f"key{k}"]
        nulls = np.asarray(groups[f"null{k}"], bool) if f"null{k}" in groups else None
        if f"key{k}_low" in groups:
            column = np.stack([np.asarray(groups[f"key{k}_low"]).view(np.int64), column], axis=1)
        return array_of(column, nulls, self.files.types[self.keys[k].label])

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


def _clear_nulls(column: Text, nulls: np.ndarray) -> Text:
    kept = column[~nulls]
    sizes = np.where(nulls, 0, column.sizes)
    return Text.sized(kept.data, sizes)


def read_some(batches: Iterator[dict[str, Values]], most: int) -> tuple[list[dict[str, Values]], bool]:
    """Return the next batches, of at least `most` bytes, and whether there may be more."""
    part, size = [], 0
    for batch in batches:
        part.append(batch)
        size += sum(values.nbytes for values in batch.values())
        if size >= most:
            return part, True
    return part, False


def _character(text: str) -> str:
    return {"tab": "\t", "\\t": "\t"}.get(text, text)


def _type_of(text: str) -> tuple[str, Any]:
    name, equals, kind = text.rpartition("=")
    if not equals or not name:
        raise UsageError(f"--types {text!r} must be COLUMN=TYPE, such as user=text.")
    return parse_name(name), parse_type(kind.strip())


def _plain(column: Any) -> list[Any]:
    """Return values for JSON: numbers as numbers, decimals, times and text as text, nulls as None."""
    t = arrow().types
    if t.is_decimal(column.type) and column.type.scale == 0:
        return [None if value is None else int(value) for value in column.to_pylist()]
    if t.is_integer(column.type) or t.is_floating(column.type) or t.is_boolean(column.type):
        values: list[Any] = column.to_pylist()
        return values
    texts = cells_of(column).to_pylist()
    return [None if null else text for text, null in zip(texts, column.is_null().to_pylist(), strict=True)]
