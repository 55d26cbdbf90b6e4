"""Group by: aggregate the rows of tables by groups of equal keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise, starmap
from pathlib import Path
from typing import Any, Literal

import numpy as np

from anyrank.errors import AnyrankError, UsageError
from anyrank.keyed.aggregate import Aggregate, Aggregates, parse_aggregate
from anyrank.keyed.cells import cells_of
from anyrank.keyed.distinct import Distinct
from anyrank.keyed.expressions import parse_condition, parse_definition, split_definitions
from anyrank.keyed.files import absolute, check_unchanged, fingerprint, with_stdin
from anyrank.keyed.group_keys import key_columns, key_kinds, sort_columns
from anyrank.keyed.order import ordered, ordered_on_disk
from anyrank.keyed.query import Query
from anyrank.keyed.rows import Column, Columns, Text
from anyrank.keyed.runs import Runs
from anyrank.keyed.spill import table_budgets
from anyrank.keyed.table import Table
from anyrank.keyed.tables.columns import ColumnSpec, parse_key, split_names
from anyrank.keyed.tables.options import CsvParameters
from anyrank.keyed.tables.times import check_zone
from anyrank.keyed.types import array_of, arrow, joined, name_of, values_of
from anyrank.keyed.values import Values, concat_values, masked_rows
from anyrank.keyed.write import write_csv, write_hdf5, write_parquet
from anyrank.layout import even_cuts
from anyrank.program import Program, param
from anyrank.state import State
from anyrank.world import World

#: A rank reads 1/SHARE of its memory budget in bytes of files, but at most ROUND, then checks its memory. Rounds of
#: this size reuse memory; larger ones take new pages each time, which takes longer than the work.
SHARE = 16
ROUND = 1 << 26


class GroupBy(CsvParameters, Program):
    """Aggregate the rows of tables by groups: count, sum, mean, median and others, exact and independent of order.

    Tables are CSV of any dialect, Parquet, HDF5 and structured .npy files. Keys are columns, or date, year, month, day,
    hour, minute or weekday (Monday is 0) of a column of times: timestamps, ISO 8601, or Unix seconds. Aggregates are
    count, and count, sum, mean, min, max, var (divided by n − 1), std, nunique (the number of distinct values), median
    and quantile(column, 0.9) of columns. Sums, means, variances and quantiles are computed exactly and rounded once, a
    std twice; sums of integers and decimals are exact. Nulls are ignored: the sum of no values is 0, the mean, minimum,
    maximum or median of no values is null. Null keys form one group, the last.

    --where keeps the rows that satisfy a condition, and --let derives columns. Expressions have the operators of Python
    and the nulls of SQL; names with other characters than letters, digits and _ are in backticks. docs/keyed.md lists
    what they may have.

    A step reads a chunk of the bytes of the files; a run can stop and resume after each step. Groups that do not fit
    into --memory-limit are written to temporary files in --scratch, which are removed when the run ends in any way. All
    groups, sorted by key or by --order, are written to groups.csv, groups.h5 and groups.parquet (--formats) in the run
    folder.

        anyrank run groupby -n 4 --table 'log/*.parquet' --by 'user,date(timestamp)' --aggregate 'count,mean(price)'
    """

    branchable = False

    name = "groupby"
    table: str = param(..., "files, folders and globs, separated by commas; - is CSV from standard input")
    by: str = param(..., "keys, separated by commas, such as 'user,date(timestamp)'")
    aggregate: str = param("count", "aggregates, separated by commas, such as 'count,sum(price),mean(price)'")
    where: str = param("", "condition for rows, such as 'price > 0 and country == \"NO\"'  [all rows]")
    let: list[str] = param([], "derived columns, such as 'total = price * amount'; may be repeated")
    tz: str = param("", "time zone of dates and hours, such as Europe/Oslo  [UTC]")
    union: Literal["no", "by-name"] = param("no", "by-name: a column that only some files have is null in the others")
    chunk: int = param(1 << 30, "bytes read in a step; a run can stop after each step", ge=1, lt=2**62)
    order: str = param("", "keys and aggregates to sort by, - for descending, such as '-sum(price)'  [the keys]")
    formats: list[Literal["csv", "hdf5", "parquet"]] = param(
        ["csv", "hdf5"], "files with all groups, in the run folder"
    )
    top: int = param(10, "number of groups in the result, the first ones", ge=0)
    scratch: str = param("", "folder on a local disk for groups that do not fit into memory; default: the run folder")
    files: Query

    @property
    def steps(self) -> int:
        """The number of chunks."""
        return self.files.chunks(self.chunk) if hasattr(self, "files") else 1

    def check(self) -> None:
        """Make paths absolute, so that the run can be resumed in any folder; parse keys, aggregates and types."""
        self.table, self.scratch = absolute(self.table), absolute(self.scratch)
        self.keys = [*{key.label: key for key in map(parse_key, split_names(self.by))}.values()]
        self.aggregates = [*dict.fromkeys(map(parse_aggregate, split_names(self.aggregate)))]
        self.stated_types, self.options = self.csv_types(), self.csv_options()
        if same := {key.label for key in self.keys} & {spec.label for spec in self.aggregates}:
            raise UsageError(f"groupby: {min(same)} is a key and an aggregate; column names must differ. Drop one.")
        self.sorted_by = [*map(self._parse_order, split_names(self.order))]
        self.condition = parse_condition(self.where) if self.where.strip() else None
        definitions = [*map(parse_definition, split_definitions(",".join(self.let)))]
        self.derived = dict(definitions)
        if len(self.derived) < len(definitions):
            raise UsageError(f"--let defines a name twice: {', '.join(name for name, _ in definitions)}. Rename one.")
        check_zone(self.tz)

    def _parse_order(self, text: str) -> tuple[str, bool]:
        """Return the label of a key or an aggregate to sort by, and whether in descending order."""
        name, labels = text.removeprefix("-"), [*(key.label for key in self.keys), *(a.label for a in self.aggregates)]
        for parse in (parse_aggregate, parse_key):
            with suppress(UsageError):
                if (label := parse(name).label) in labels:
                    return label, name != text
        raise UsageError(f"--order {text!r} must be a key or an aggregate of this run: {', '.join(labels)}.")

    def declare(self, state: State) -> None:
        """Declare the table of groups, the rows read so far, and hashes of the input."""
        wanted = [*self.keys, *(ColumnSpec(a.column, role=self._role(a)) for a in self.aggregates if a.column)]
        options = {"on_bad": self.on_bad, "types": self.stated_types, "options": self.options, "zone": self.tz}
        names = state.world.on_root(partial(with_stdin, self.table, state.folder, ".csv"))
        union = self.union == "by-name"
        self.files = Query(names, wanted, state.world, self.condition, self.derived, union=union, **options)
        nullable = {label for label in self.files.types if self.files.nullable(label)}
        self.combined = Aggregates(self.aggregates, self.files.types, nullable)
        keys: dict[str, str] = {}
        for k, key in enumerate(self.keys):
            type_ = self.files.types[key.label]
            keys |= {f"null{k}": "uint8"} if key.label in nullable and not self.files.empty_is_null(key.label) else {}
            keys |= key_kinds(f"key{k}", type_)
        description = "groups and the combined values of their rows"
        state.add(Table("groups", state.world, keys, self.combined.table_values(), description=description))
        self.distinct = {
            name: Distinct(f"distinct{k}", state.world, keys, self.files.types[name])
            for k, name in enumerate(self.combined.quantiles)
        }
        for distinct in self.distinct.values():
            state.add(distinct.table)
        self.tables = [state.groups, *(distinct.table for distinct in self.distinct.values())]
        self.budget, self.table_budget = table_budgets(state.budget(), state.memory_limit is not None)
        self.spill_folder = Path(self.scratch or state.folder or ".")
        self._limit_tables()
        state.scalar("rows", 0, description="rows so far")
        state.scalar("bad", 0, description="bad rows skipped so far")
        if self.condition:
            state.scalar("removed", 0, description="rows that --where removed so far")
        state.scalar("input", self.files.fingerprint, description="hash of the files' names and sizes")
        self.known = fingerprint((label, name_of(type_)) for label, type_ in self.files.types.items())
        state.scalar("kinds", self.known, description="hash of the columns' names and types")

    def _role(self, aggregate: Aggregate) -> str:
        """Return what values are for; those of which only the distinct ones are counted stay as written, like keys."""
        functions = {other.function for other in self.aggregates if other.column == aggregate.column}
        return "key" if aggregate.function == "nunique" and functions <= {"nunique", "count"} else aggregate.role

    def step(self, state: State) -> None:
        """Read and combine this rank's part of the chunk, in rounds that fit into the memory budget."""
        self.files.check(state.input)
        check_unchanged("columns", self.known, state.kinds)
        before, rows = np.array([self.files.bad.count, self.files.removed]), 0
        self.files.check_memory(self.budget)
        batches = self.files.read(*self.files.part(state.step, self.chunk))
        more = True
        while not state.world.all(not more):
            with state.world.raise_on_all_ranks():
                part, more = read_some(batches, min(self.budget // SHARE, ROUND))
            rows += self._gather(state, part)
        counts = np.array([rows, *(np.array([self.files.bad.count, self.files.removed]) - before)], np.int64)
        rows, bad, removed = state.world.allreduce(counts).tolist()
        state.rows += rows
        state.bad += bad
        if self.condition:
            state.removed += removed

    def _limit_tables(self) -> None:
        """Write groups and values to disk if they take too much memory. Collective."""
        for table in self.tables:
            table.keep_within(self.table_budget // len(self.tables), self.spill_folder)

    def _gather(self, state: State, batches: list[dict[str, Values]]) -> int:
        """Add rows to their groups, in pieces that fit into memory as groups; return their number. Collective."""
        empty = {label: values_of(joined([], type_), type_) for label, type_ in self.files.types.items()}
        batch = {label: concat_values([part[label] for part in batches], empty[label]) for label in empty}
        keys: list[Column] = []
        for k, key in enumerate(self.keys):
            columns, nulls = key_columns(batch[key.label])
            keys += [nulls] if f"null{k}" in state.groups.keys else []
            keys += columns
        rows, values = len(keys[0]), self.combined.values(batch)
        row = max(table.row_bytes for table in self.tables) + sum(key.nbytes for key in keys) // max(1, rows)
        pieces = -(-rows * row * len(self.tables) * SHARE // self.budget)
        pieces = int(state.world.allreduce(np.array([pieces], np.int64), "max")[0])
        for piece in starmap(slice, pairwise(even_cuts(rows, max(1, pieces)))):
            state.groups.gather(*(key[piece] for key in keys), **{name: x[piece] for name, x in values.items()})
            for name, distinct in self.distinct.items():
                distinct.gather([key[piece] for key in keys], batch[name][piece])
            self._limit_tables()
        return rows

    def result(self, state: State) -> dict[str, Any]:
        """Return the number of rows and groups and the first groups; write all groups to groups.csv and groups.h5."""
        blocks = self._blocks(state)
        if state.folder is not None:
            path = state.folder / "groups.csv"
            if "csv" in self.formats:
                write_csv(state.world, path, blocks)
            if "parquet" in self.formats:
                write_parquet(state.world, path.with_suffix(".parquet"), blocks)
            if "hdf5" in self.formats:
                write_hdf5(state.world, path.with_suffix(".h5"), lambda: map(_with_dots, blocks()))
        return {
            "rows": state.rows,
            "groups": state.groups.rows,
            "left_out": state.bad,
            **({"removed_by_where": state.removed} if self.condition else {}),
            "columns": [*(key.label for key in self.keys), *self.combined.types],
            "first": self._first(state.world, blocks()),
        }

    def _first(self, world: World, blocks: Iterator[dict[str, Any]]) -> list[list[Any]]:
        """Return the first groups as values for JSON. Collective."""
        rows: list[list[Any]] = []
        for block in blocks:
            local = zip(*(_plain(column.slice(0, self.top)) for column in block.values()), strict=True)
            rows += [[*row] for part in world.comm.allgather([*local]) for row in part]
            if len(rows) >= self.top:
                break
        return rows[: self.top]

    def _blocks(self, state: State) -> Callable[[], Iterator[dict[str, Any]]]:
        """Return what yields the groups in their order, as Arrow arrays by label. Collective."""
        world, groups = state.world, state.groups
        for table in self.tables:
            table.settle()
        if not any(table.on_disk for table in self.tables):
            columns, by = self._finish(groups, self.distinct)
            block = self._to_arrow(ordered(world, columns, by, unique=True))
            return lambda: iter([block])
        size = self.budget // SHARE
        values = {name: distinct.by_group(size, self.spill_folder) for name, distinct in self.distinct.items()}
        parts = partial(self._parts, groups, values, size)
        none = {name: distinct.empty_part(1) for name, distinct in self.distinct.items()}
        _, by = self._finish(groups.empty_part(1), none)
        blocks = ordered_on_disk(world, parts, by, len(groups), self.budget, self.spill_folder)
        return lambda: map(self._to_arrow, blocks())

    def _parts(self, groups: Table, values: dict[str, Runs], size: int) -> Iterator[Columns]:
        """Yield this rank's groups in parts of about `size` bytes with their values. Not collective."""
        total = groups.nbytes + groups.bytes_on_disk + sum(runs.size for runs in values.values())
        try:
            parts = max(1, -(-total // size))
            for number in range(parts):
                distinct = {name: d.part(values[name], number, parts, 2 * size) for name, d in self.distinct.items()}
                yield self._finish(groups.part(number, parts), distinct)[0]
        except AnyrankError as error:
            error.collective = False  # of the World of one rank
            raise

    def _finish(self, groups: Table, distinct: dict[str, Distinct]) -> tuple[Columns, list[str]]:
        """Return the groups of a Table with their aggregates, and the columns to sort by. Collective."""
        keys = self._keys(groups.columns)
        columns, by = keys | self.combined.results(groups, distinct), [*keys]
        for label, descending in reversed(self.sorted_by):
            if label in self.combined.types:
                values = _of_masked(columns[label])
            else:
                values = self._key_values([key.label for key in self.keys].index(label), columns)
            added = sort_columns(f"order{len(by)}", values)
            by = [*(f"-{name}" if k and descending else name for k, name in enumerate(added)), *by]
            columns |= added
        return columns, by

    def _to_arrow(self, groups: Columns) -> dict[str, Any]:
        output = {key.label: self._key_values(k, groups) for k, key in enumerate(self.keys)}
        output |= {label: _of_masked(groups[label]) for label in self.combined.types}
        types = self.files.types | self.combined.types
        return {label: array_of(values.values, values.nulls, types[label]) for label, values in output.items()}

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

    def _key_values(self, k: int, groups: Columns) -> Values:
        """Return the values of a key."""
        column = groups[f"key{k}"]
        nulls = np.asarray(groups[f"null{k}"], bool) if f"null{k}" in groups else None
        if f"key{k}_low" in groups:
            column = np.stack([np.asarray(groups[f"key{k}_low"]).view(np.int64), np.asarray(column)], axis=1)
        return Values(column, nulls)

    def work(self) -> tuple[float, str]:
        """Return the mean bytes per step, because the last chunk may be shorter."""
        return (self.files.size / max(1, self.steps), "bytes") if hasattr(self, "files") else (1.0, "chunks")


def _with_dots(columns: dict[str, Any]) -> dict[str, Any]:
    """Return columns with names for HDF5, where `/` separates groups."""
    return {label.replace("/", "."): column for label, column in columns.items()}


def _of_masked(column: Column) -> Values:
    """Return the values of a result, which may be masked."""
    nulls = masked_rows(column) if isinstance(column, np.ma.MaskedArray) else None
    return Values(np.asarray(column), nulls)


def read_some(batches: Iterator[dict[str, Values]], most: int) -> tuple[list[dict[str, Values]], bool]:
    """Return the next batches, of at least `most` bytes, and whether there may be more."""
    part, size = [], 0
    for batch in batches:
        part.append(batch)
        size += sum(values.nbytes for values in batch.values())
        if size >= most:
            return part, True
    return part, False


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
