"""Aggregates of a table's rows by groups of keys."""

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

#: The bytes of files that a rank reads between two looks at its memory, as a part of its budget: one in so many.
SHARE = 16
#: What a Table makes of the kinds of keys that are none of its own.
_KEYS = {"text": "text", "timestamp": "int64", "date": "int64", "bool": "uint8"}

#: The units of times, and the bytes of their text.
_TIMES = {"timestamp": ("M8[ns]", "S29"), "date": ("M8[D]", "S16")}


class GroupBy(Program):
    """Counts, sums, means, extremes and variances of a table's rows by groups of keys, exact and without an order.

    Tables are CSV (a line of names first), Parquet, HDF5 and structured .npy files. Keys are columns, or date, year,
    month, hour or weekday (Monday is 0) of a column of times, in UTC: timestamps, ISO 8601, or Unix seconds. Aggregates
    are count, and count, sum, mean, min, max and var (over n − 1) of columns. Sums, means and variances are the exact
    ones, rounded once; sums of integers are integers, where all of them have 64 bits. Nulls take no part: a sum of none
    is 0, a mean or extreme of none is null. A null key is a group of its own, the last. A step takes a chunk of the
    files' bytes; a run that was stopped goes on at the next. groups.csv and groups.h5 in the run folder have all
    groups by their keys.

        anyrank run groupby -n 4 --table 'log/*.parquet' --by 'user,date(timestamp)' --aggregate 'count,mean(price)'
    """

    name = "groupby"
    table: str = param(..., "files, folders and globs, joined by commas")
    by: str = param(..., "keys, joined by commas, such as 'user,date(timestamp)'")
    aggregate: str = param("count", "aggregates, joined by commas, such as 'count,sum(price),mean(price)'")
    on_bad: Literal["error", "skip"] = param("error", "rows that are broken: stop, or leave them out and count them")
    types: str = param("", "types of CSV columns that their first rows do not show, such as 'user=text,price=float64'")
    chunk: int = param(1 << 30, "bytes of files between two chances to stop", ge=1, lt=2**62)
    top: int = param(10, "groups that the result shows, the first ones", ge=0)
    files: TableFiles

    @property
    def steps(self) -> int:
        """One per chunk."""
        return self.files.chunks(self.chunk) if hasattr(self, "files") else 1

    def check(self) -> None:
        """Keys and aggregates that can be read, of different names; files are result wherever the run is resumed."""
        self.table = absolute(self.table)
        self.keys = [*{key.label: key for key in map(parse_key, self.by.split(","))}.values()]
        self.aggregates = [*dict.fromkeys(map(parse_aggregate, self.aggregate.split(",")))]
        self.csv_types = dict(_type_of(one) for one in self.types.split(",") if one)
        if same := {key.label for key in self.keys} & {one.label for one in self.aggregates}:
            raise UsageError(f"groupby: {min(same)} is a key and an aggregate, and the output has one name for each.")

    def declare(self, state: State) -> None:
        """The table of groups, and what was read so far."""
        wanted = [ColumnSpec(a.column, number=a.function != "count") for a in self.aggregates if a.column]
        self.files = TableFiles(self.table, [*self.keys, *wanted], state.world, self.on_bad, self.csv_types)
        nullable = {label for label in self.files.kinds if self.files.nullable(label)}
        self.combined = Aggregates(self.aggregates, self.files.kinds, nullable)
        keys: dict[str, str] = {}
        for k, key in enumerate(self.keys):
            keys |= {f"null{k}": "uint8"} if key.label in nullable and not self.files.empty_is_null(key.label) else {}
            keys[f"key{k}"] = _KEYS.get(self.files.kinds[key.label], self.files.kinds[key.label])
        description = "groups and what was combined of their rows"
        state.add(Table("groups", state.world, keys, self.combined.table_values(), description=description))
        state.scalar("rows", 0, description="rows so far")
        state.scalar("bad", 0, description="rows that were left out so far")
        state.scalar("input", self.files.fingerprint, description="tells other files")
        self.known = fingerprint(self.files.kinds.items())
        state.scalar("kinds", self.known, description="tells other columns")

    def step(self, state: State) -> None:
        """Take this rank's part of the chunk, some bytes at a time where there is little memory."""
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
        """Add rows to their groups; how many they are. Collective."""
        batch = {
            label: concat_values([one[label] for one in batches], kind) for label, kind in self.files.kinds.items()
        }
        keys: list[Column] = []
        for k, key in enumerate(self.keys):
            column, nulls = _key(batch[key.label])
            keys += [nulls] if f"null{k}" in state.groups.keys else []
            keys.append(column)
        state.groups.gather(*keys, **self.combined.values(batch))
        return len(keys[0])

    def result(self, state: State) -> dict[str, Any]:
        """How many rows and groups there are, and the first groups; all of them go into groups.csv and groups.h5."""
        keys = self._keys(state.groups.columns)
        groups = ordered(state.world, keys | self.combined.results(state.groups), [*keys], unique=True)
        output = {key.label: self._output_key(k, groups) for k, key in enumerate(self.keys)}
        output |= {one.label: groups[one.label] for one in self.aggregates}
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
        """The keys of groups, each after where it is null."""
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
        """A key as the output has it: times as text of ISO 8601, and where it is null, nothing."""
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
        """A chunk; the last one may be shorter."""
        return (self.files.size / max(1, self.steps), "bytes") if hasattr(self, "files") else (1.0, "chunks")


def _key(values: Values) -> tuple[Column, np.ndarray]:
    """A column as keys, alike where keys are: one null, one NaN, no −0; and 1 where it is null."""
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
    """The columns for HDF5: names without slashes, and beside what has no NaN, where it is null."""
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
        raise UsageError(f"--types {text!r} is no type of a column. Write COLUMN={' or '.join(kinds)}.")
    return name, kind


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
