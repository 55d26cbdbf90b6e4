"""Table input: CSV, Parquet, HDF5 and `.npy` files as one table, divided between ranks."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from anyrank.errors import AnyrankError, UsageError
from anyrank.keyed.rows import Text
from anyrank.keyed.tables import arrays, csv, parquet  # noqa: F401 (registers them)
from anyrank.keyed.tables.arrow import times_of
from anyrank.keyed.tables.source import BadRows, Rows, TablePiece, table_source
from anyrank.keyed.text import TextFiles
from anyrank.keyed.values import DAY, KINDS, NUMBERS, ColumnSpec, Values, time_component
from anyrank.world import World

_TIMES = (*DAY, "text")


class TableFiles(TextFiles):
    """Columns of the rows of table files. The constructor is collective.

    All files must have the requested columns, with the same kind in all files. Chunks are ranges of bytes of the
    files, so that they depend only on the files.

    Parameters
    ----------
    names : str or sequence of str
        Files, folders and globs, as for `TextFiles`.
    wanted : sequence of ColumnSpec
        The columns, and functions of columns, to read.
    world : World
        The ranks that read the files.
    on_bad : str
        `error`: a malformed row or an invalid time raises UsageError in `read`; `skip`: `bad` counts such rows, and
        they are left out.
    types : mapping of str to str, optional
        The kinds of CSV columns whose first rows do not show them.

    Attributes
    ----------
    kinds : dict of str to str
        The kinds of the requested columns by label.

    Raises
    ------
    UsageError
        On all ranks, if a file or column cannot be read.

    Examples
    --------
    >>> from anyrank.keyed.values import ColumnSpec
    >>> _ = keyed.write_csv(World(), Path("rows.csv"), {"x": np.array([1, 2]), "y": np.array([0.5, 0.7])})
    >>> files = keyed.TableFiles("rows.csv", [ColumnSpec("x")], World())
    >>> [batch["x"].values for batch in files.read(0, files.size)]
    [array([1, 2])]
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
        #: The kinds of all columns of each file, in their order, and the kinds of the requested columns.
        self.schemas: list[dict[str, str]]
        self.schemas, self.columns, self._nullable = world.on_root(lambda: self._look(wanted, types or {}))
        self.kinds = {label: spec.kind(self.columns[spec.column]) for label, spec in self.wanted.items()}

    def nullable(self, label: str) -> bool:
        """Return whether a column may have nulls. Not collective.

        Parameters
        ----------
        label : str
            The label of a requested column.
        """
        return self.wanted[label].column in self._nullable

    def empty_is_null(self, label: str) -> bool:
        """Return whether a column is text that is null if and only if it is empty. Not collective.

        Parameters
        ----------
        label : str
            The label of a requested column.
        """
        return self.kinds[label] == "text" and {*map(table_source, self.paths)} == {csv.Csv}

    def read(self, begin: int, end: int) -> Iterator[dict[str, Values]]:
        """Yield batches of rows, as columns by label. Not collective.

        Parameters
        ----------
        begin, end : int
            The range in bytes of the concatenated files. Adjacent ranges, such as those from `part` and `rounds`,
            partition the rows.

        Raises
        ------
        UsageError
            For a bad row.
        AnyrankError
            If a file cannot be read.
        """
        for index, path in enumerate(self.paths):
            first = self._ends[index] - self.sizes[index]
            if max(begin, first) < min(end, self._ends[index]):
                low, high = max(begin - first, 0), min(end - first, self.sizes[index])
                piece = TablePiece(self, index, low, high, self.schemas[index])
                try:
                    for rows in table_source(path).read(piece, self.columns, self.bad):
                        yield self._derive(rows)
                except (OSError, ValueError) as error:  # includes the errors of Arrow
                    raise AnyrankError(f"{path} cannot be read: {error}") from None

    def _look(
        self, wanted: Sequence[ColumnSpec], types: Mapping[str, str]
    ) -> tuple[list[dict[str, str]], dict[str, str], set[str]]:
        """Return the schemas of all files, the common kinds of the requested columns, and the nullable columns."""
        schemas: list[dict[str, str]] = []
        nullable: set[str] = set()
        known: set[str] = set()
        for path in self.paths:
            try:
                source = table_source(path)
                schemas.append({**source.kinds(path)})
                nullable |= source.nullable(path)
            except (OSError, ValueError) as error:
                raise UsageError(f"{path} cannot be read as a table: {error}") from None
            if source is csv.Csv:
                given = {name: kind for name, kind in types.items() if name in schemas[-1]}
                schemas[-1] |= given
                known |= given.keys()
        if unknown := types.keys() - known:
            raise UsageError(f"--types {min(unknown)}: no CSV file has this column. Remove it, or correct its name.")
        columns = {spec.column: self._kind(spec.column, schemas) for spec in wanted}
        numbers = {spec.column for spec in wanted if spec.number}
        columns |= {n: "float64" if n in numbers else "text" for n, kind in columns.items() if kind == "null"}
        for spec in wanted:
            _check(spec, columns[spec.column])
        return schemas, columns, nullable

    def _kind(self, column: str, schemas: list[dict[str, str]]) -> str:
        """Return the common kind of a column in all files."""
        kind, where = "null", self.paths[0]
        for path, schema in zip(self.paths, schemas, strict=True):
            if column not in schema:
                close = difflib.get_close_matches(column, schema, 1)
                fix = f"Did you mean {close[0]!r}?" if close else f"They are {', '.join(schema)}."
                raise UsageError(f"{path} has no column {column!r}. {fix}")
            other = schema[column]
            if "null" in (kind, other) or kind == other:
                kind, where = (other, path) if kind == "null" else (kind, where)
            elif {kind, other} == {"int64", "float64"} and {table_source(path), table_source(where)} == {csv.Csv}:
                kind = "float64"
            else:
                raise UsageError(
                    f"column {column!r} is {kind} in {where} and {other} in {path}; a column must have one type. "
                    "Convert one of the files."
                )
        return kind

    def _derive(self, rows: Rows) -> dict[str, Values]:
        """Return the requested values of rows, without the rows with invalid times."""
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
            rows.drop(wrong, self.bad, lambda: f"{rows.where(row)}: {spec.column} {_repr(values, row)} is not a time")
            times = np.where(wrong, 0, times)
        return Values(time_component(spec.function, "timestamp" if kind == "text" else kind, times), values.nulls)


def _check(spec: ColumnSpec, kind: str) -> None:
    """Raise UsageError if the kind of a column does not suit its use."""
    if kind not in KINDS:
        raise UsageError(f"column {spec.column!r} is {kind}, which cannot be read. Use a column of {', '.join(KINDS)}.")
    if spec.function and kind not in _TIMES:
        raise UsageError(
            f"{spec.label}: column {spec.column!r} is {kind}, not a time. Use times, ISO 8601 or Unix seconds."
        )
    if spec.number and kind not in NUMBERS:
        raise UsageError(f"column {spec.column!r} is {kind} and must be numbers to be aggregated. Use another column.")


def _repr(values: Values, row: int) -> str:
    column = values.values
    return repr(column[row : row + 1].strings()[0]) if isinstance(column, Text) else str(column[row])
