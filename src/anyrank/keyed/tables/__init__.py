"""Table input: CSV, Parquet, HDF5 and `.npy` files as one table, cut between ranks."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from anyrank.errors import AnyrankError, UsageError
from anyrank.keyed.rows import Text
from anyrank.keyed.tables import arrays, csv, parquet  # noqa: F401 (they register)
from anyrank.keyed.tables.arrow import times_of
from anyrank.keyed.tables.source import BadRows, Piece, Rows, source_of
from anyrank.keyed.text import TextFiles
from anyrank.keyed.values import DAY, KINDS, NUMBERS, ColumnSpec, Values, time_component
from anyrank.world import World

_TIMES = (*DAY, "text")


class TableFiles(TextFiles):
    """Columns of tables in files, one file after the other, found as TextFiles finds them. Collective to make.

    `wanted` are the columns and functions of columns that are read, `types` tells kinds of columns of CSV that their
    first rows do not show. All files must have the columns, of one kind each. `kinds` has those of what is read, by
    label. Chunks are cut by bytes of files, so that they depend on the files alone.
    With `on_bad` skip, rows that are broken or whose times do not parse are counted in `bad` and left out; else they
    raise UsageError when they are read. Raises UsageError on all ranks where a file or column cannot be read.
    """

    def __init__(
        self,
        names: str | Sequence[str],
        wanted: Sequence[ColumnSpec],
        world: World,
        on_bad: str = "error",
        types: Mapping[str, str] | None = None,
    ):
        super().__init__(names, world)
        self.wanted = {spec.label: spec for spec in wanted}
        self.bad = BadRows(on_bad == "skip")
        #: The kinds of all columns of each file, in their order, and of those that are read.
        self.schemas: list[dict[str, str]]
        self.schemas, self.columns, self._nullable = world.on_root(lambda: self._look(wanted, types or {}))
        self.kinds = {label: spec.kind(self.columns[spec.column]) for label, spec in self.wanted.items()}

    def nullable(self, label: str) -> bool:
        """Whether this may be null in some row."""
        return self.wanted[label].column in self._nullable

    def empty_is_null(self, label: str) -> bool:
        """Whether this is text that is null where it is empty, and nowhere else."""
        return self.kinds[label] == "text" and {*map(source_of, self.paths)} == {csv.Csv}

    def read(self, begin: int, end: int) -> Iterator[dict[str, Values]]:
        """The rows of the bytes from `begin` to `end` of all files together, by label, some at a time. Not collective.

        Ranges that touch, however cut, share no row and lose none; `part` and `rounds` give such.
        Raises UsageError where a row is bad, AnyrankError where a file cannot be read.
        """
        for index, path in enumerate(self.paths):
            first = self._ends[index] - self.sizes[index]
            if max(begin, first) < min(end, self._ends[index]):
                low, high = max(begin - first, 0), min(end - first, self.sizes[index])
                piece = Piece(self, index, low, high, self.schemas[index])
                try:
                    for rows in source_of(path).read(piece, self.columns, self.bad):
                        yield self._derive(rows)
                except (OSError, ValueError) as error:  # Arrow's errors are among these
                    raise AnyrankError(f"{path} cannot be read: {error}") from None

    def _look(
        self, wanted: Sequence[ColumnSpec], types: Mapping[str, str]
    ) -> tuple[list[dict[str, str]], dict[str, str], set[str]]:
        """The schemas of all files, the kinds that the wanted columns have in all of them, and which may be null."""
        schemas: list[dict[str, str]] = []
        nullable: set[str] = set()
        known: set[str] = set()
        for path in self.paths:
            try:
                source = source_of(path)
                schemas.append({**source.kinds(path)})
                nullable |= source.nullable(path)
            except (OSError, ValueError) as error:
                raise UsageError(f"{path} cannot be read as a table: {error}") from None
            if source is csv.Csv:
                given = {name: kind for name, kind in types.items() if name in schemas[-1]}
                schemas[-1] |= given
                known |= given.keys()
        if unknown := types.keys() - known:
            raise UsageError(f"--types {min(unknown)}: no CSV file has this column. Leave it out, or mend its name.")
        columns = {spec.column: self._kind(spec.column, schemas) for spec in wanted}
        numbers = {spec.column for spec in wanted if spec.number}
        columns |= {n: "float64" if n in numbers else "text" for n, kind in columns.items() if kind == "null"}
        for spec in wanted:
            _check(spec, columns[spec.column])
        return schemas, columns, nullable

    def _kind(self, column: str, schemas: list[dict[str, str]]) -> str:
        """The kind of a column in all files."""
        kind, where = "null", self.paths[0]
        for path, schema in zip(self.paths, schemas, strict=True):
            if column not in schema:
                close = difflib.get_close_matches(column, schema, 1)
                fix = f"Did you mean {close[0]!r}?" if close else f"They are {', '.join(schema)}."
                raise UsageError(f"{path} has no column {column!r}. {fix}")
            other = schema[column]
            if "null" in (kind, other) or kind == other:
                kind, where = (other, path) if kind == "null" else (kind, where)
            elif {kind, other} == {"int64", "float64"} and {source_of(path), source_of(where)} == {csv.Csv}:
                kind = "float64"
            else:
                raise UsageError(
                    f"column {column!r} is {kind} in {where} and {other} in {path}: a column has one type."
                )
        return kind

    def _derive(self, rows: Rows) -> dict[str, Values]:
        """What is wanted of the columns, without the rows whose times are none."""
        result = {label: self._value(spec, rows) for label, spec in self.wanted.items()}
        if rows.wrong is None:
            return result
        return {label: values[~rows.wrong] for label, values in result.items()}

    def _value(self, spec: ColumnSpec, rows: Rows) -> Values:
        values, kind = rows.columns[spec.column], self.columns[spec.column]
        if not spec.function:
            return values
        times, wrong = times_of(values, kind)
        if wrong is not None:
            row = int(np.argmax(wrong))
            rows.drop(wrong, self.bad, lambda: f"{rows.where(row)}: {spec.column} {_shown(values, row)} is no time")
            times = np.where(wrong, 0, times)
        return Values(time_component(spec.function, "timestamp" if kind == "text" else kind, times), values.nulls)


def _check(spec: ColumnSpec, kind: str) -> None:
    """Raise UsageError where a column's kind is not what it is wanted for."""
    if kind not in KINDS:
        raise UsageError(f"column {spec.column!r} is {kind}, which cannot be read. Use a column of {', '.join(KINDS)}.")
    if spec.function and kind not in _TIMES:
        raise UsageError(
            f"{spec.label}: column {spec.column!r} is {kind}, no time. Use times, ISO 8601 or Unix seconds."
        )
    if spec.number and kind not in NUMBERS:
        raise UsageError(f"column {spec.column!r} is {kind} and must be numbers to be aggregated. Use another column.")


def _shown(values: Values, row: int) -> str:
    column = values.values
    return repr(column[row : row + 1].strings()[0]) if isinstance(column, Text) else str(column[row])
