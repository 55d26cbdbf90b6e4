"""Rows of CSV and Parquet files for `sort`: keys as codes, and the rest of the rows.

A row of CSV is sorted as the bytes of its record, so that the output has every value as it was read. The rows of
Parquet are sorted as columns. Texts that are keys are first replaced by their numbers in the order of the texts of all
ranks: this takes memory for the distinct texts of each rank, and everything else may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anyrank.errors import AnyrankError, UsageError, of_all_ranks
from anyrank.keyed.files import find_files, fingerprint
from anyrank.keyed.order import text_codes
from anyrank.keyed.rows import Columns, Text
from anyrank.keyed.sort_keys import Key
from anyrank.keyed.sort_output import CsvOutput, Output, ParquetOutput
from anyrank.keyed.tables import TableFiles, named_errors
from anyrank.keyed.tables.columns import ColumnSpec
from anyrank.keyed.tables.csv import CsvFile
from anyrank.keyed.tables.dialect import CsvOptions
from anyrank.keyed.tables.parquet import DUPLICATE, ParquetFile
from anyrank.keyed.tables.source import BadRows, table_class
from anyrank.keyed.types import array_of, arrow, is_restorable, is_text, is_wide, joined, name_of, text_of, values_of
from anyrank.keyed.values import Values
from anyrank.layout import even_cuts
from anyrank.world import World

#: The keys and the other columns of rows.
Piece: TypeAlias = tuple[list[NDArray[Any]], Columns]
#: The column of the records of CSV; of Parquet, columns are numbered, and NULLS marks their null masks.
RECORD, NULLS = "record", "null"
#: A rank needs this many times the bytes of the texts of keys to sort them.
_TEXT_COPIES = 6


def table_rows(
    names: str, by: Sequence[Key], world: World, on_bad: str, types: Mapping[str, Any], options: CsvOptions
) -> TableRows:
    """Return the rows of CSV or of Parquet files. Collective.

    Raises UsageError on all ranks if files are of both formats or of others, or a key is missing.
    """

    def columns_of() -> tuple[bool, list[str]]:
        paths = [*find_files(names, TableFiles.hidden)]
        classes = {path: table_class(path) for path in paths}
        for path, found in classes.items():
            if found is ParquetFile and {*classes.values()} == {ParquetFile}:
                continue
            if not issubclass(found, CsvFile):
                raise UsageError(f"--input {path}: name one .npy or .h5 file, or CSV files, or Parquet files.")
        csv = issubclass(classes[paths[0]], CsvFile)
        try:
            return csv, [] if csv else arrow("parquet").read_schema(paths[0]).names
        except (OSError, arrow().ArrowException) as error:
            raise UsageError(f"{paths[0]} cannot be read as a table: {error}") from None

    csv, columns = world.on_root(columns_of)
    if not by or not all(key.name for key in by):
        raise of_all_ranks(UsageError("--by is missing: name the columns to sort by, such as --by 'country,-price'."))
    others = [ColumnSpec(name, role="any") for name in columns if name not in {key.name for key in by}]
    return (CsvRows if csv else ParquetRows)(names, by, others, world, on_bad, types, options)


class TableRows(TableFiles):
    """The rows of table files, for a Sorter. The constructor is collective."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    #: What `size` counts.
    unit: ClassVar[str] = "bytes"
    row_bytes = 1

    def __init__(
        self,
        names: str,
        by: Sequence[Key],
        others: Sequence[ColumnSpec],
        world: World,
        on_bad: str,
        types: Mapping[str, Any],
        options: CsvOptions,
    ):
        self.by = by
        super().__init__(names, [*(ColumnSpec(key.name) for key in by), *others], world, on_bad, types, options)
        self._codes: dict[str, NDArray[Any]] = {}
        self._row = 0
        #: The directions of the arrays that are the keys of the Sorter: for each key its null mask, which is always
        #: ascending, and one or two arrays.
        self.descending: list[bool] = []
        for key in by:
            words = 2 if is_wide(self.types[key.name]) else 1
            self.descending += [False] * self.nullable(key.name) + [key.descending] * words
        identity = self.fingerprint, [(key, name_of(self.types[key.name])) for key in by]
        self.fingerprint = fingerprint(identity)

    def prepare(self, budget: int) -> None:
        """Read the keys that are text, and number them in the order of the texts of all ranks. Collective.

        Raises AnyrankError if the distinct texts of a rank need more memory than `budget`.
        """
        texts = [key.name for key in self.by if is_text(self.types[key.name])]
        parts: dict[str, list[Any]] = {name: [] for name in texts}
        if not texts:
            return
        cuts, size = even_cuts(self.size, self.world.size), 0
        with self.world.raise_on_all_ranks():
            for batch in self._key_files().read(cuts[self.world.rank], cuts[self.world.rank + 1]):
                for name in texts:
                    column = array_of(batch[name].values, None, arrow().large_binary()).dictionary_encode()
                    parts[name].append(column)
                    size += column.nbytes
                if size * _TEXT_COPIES > budget:
                    raise AnyrankError(
                        f"the texts of {', '.join(texts)} take more than {size} bytes on this rank, and sorting them "
                        f"{_TEXT_COPIES} times as much memory. Use more ranks or a larger --memory-limit."
                    )
        for name, columns in parts.items():
            text, rows = _dictionary(columns)
            self._codes[name] = text_codes(self.world, text)[rows]

    def _key_files(self) -> TableFiles:
        """Return a reader of the same rows that reads only the keys."""
        files = copy(self)
        files.bad = BadRows(self.bad.skip)
        files.wanted = [ColumnSpec(key.name) for key in self.by]
        files.columns = {key.name: self.columns[key.name] for key in self.by}
        return files

    def reads(self, chunk: int) -> int:
        """Return the number of steps that read the input."""
        return self.chunks(chunk)

    def writes(self, block: int) -> int:
        """Return the number of steps that write the output."""
        return max(1, -(-self.output_bytes // block))

    def block_rows(self, block: int, rows: int) -> int:
        """Return the number of rows of a block of the output."""
        return max(1, -(-rows // self.writes(block)))

    @property
    def output_bytes(self) -> int:
        """The approximate size of the output in bytes."""
        return self.size

    def pieces(self, begin: int, end: int, most: int) -> Iterator[Piece]:
        """Yield keys and other columns of the rows in a range of bytes, at least one piece. Not collective.

        Ranges must be in the order of the rows.
        """
        raise NotImplementedError

    def output(self, path: Path, blocks: int) -> Output:
        """Return the writer of a file, in a number of blocks."""
        raise NotImplementedError

    def output_columns(self, keys: Sequence[NDArray[Any]], others: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of the output."""
        return {**others}

    def ends(self, path: Path) -> list[list[Any]]:
        """Return no keys: those of the first and the last row are in the output, but not as codes."""
        return []

    def _no_rows(self) -> dict[str, Values]:
        return {label: values_of(joined([], type_), type_) for label, type_ in self.types.items()}

    def _keys(self, batch: Mapping[str, Values]) -> list[NDArray[Any]]:
        """Return the keys of the next rows."""
        keys: list[NDArray[Any]] = []
        for key in self.by:
            column, nulls = batch[key.name].values, batch[key.name].nulls
            last = self._row + len(column)
            if self.nullable(key.name):
                keys.append(np.zeros(len(column), bool) if nulls is None else nulls)
            if key.name in self._codes:
                keys.append(self._codes[key.name][self._row : last])
            elif is_wide(self.types[key.name]):
                words = np.asarray(column)
                keys += [words[:, 1], np.ascontiguousarray(words[:, 0]).view(np.uint64)]
            else:
                keys.append(np.asarray(column))
        self._row = last
        return keys


def _dictionary(columns: Sequence[Any]) -> tuple[Text, NDArray[Any]]:
    """Return the distinct texts of dictionary arrays, and the number of the text of each row."""
    if not columns:
        return Text.of([]), np.empty(0, np.int64)
    whole = arrow().chunked_array(columns).unify_dictionaries().combine_chunks()
    return text_of(whole.dictionary), whole.indices.to_numpy()


class CsvRows(TableRows):
    """Records of CSV files. All files have the same columns."""

    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv")

    def _check_names(self, given: Mapping[str, Any]) -> None:
        super()._check_names(given)
        first, *rest = self._csv()
        for file in rest:
            if (file.dialect.names, file.dialect.delimiter) != (first.dialect.names, first.dialect.delimiter):
                raise UsageError(
                    f"{file.path} has the columns {', '.join(file.dialect.names)} with the delimiter "
                    f"{file.dialect.delimiter!r}, and {first.path} has {', '.join(first.dialect.names)} with "
                    f"{first.dialect.delimiter!r}; all files must have the same. Convert one of them."
                )

    def pieces(self, begin: int, end: int, most: int) -> Iterator[Piece]:
        """Yield the keys and the records."""
        yield self._keys(self._no_rows()), {RECORD: Text.of([])}
        for file, low, high in self._pieces(begin, end):
            if isinstance(file, CsvFile):
                with named_errors(file):
                    for records in file.read(low, high, self.columns, self.bad):
                        lines = records.lines(self._line_end)
                        lines = lines if records.wrong is None else lines[~records.wrong]
                        yield self._keys(self._requested(records)), {RECORD: lines}

    def head(self) -> bytes:
        """Return the bytes of the first file before its first row."""
        first = self._csv()[0]
        with named_errors(first):
            head = first.part(0, first.dialect.begin).tobytes()
        return head if not head or head.endswith((b"\r", b"\n")) else head + b"\n"

    @cached_property
    def _line_end(self) -> bytes:
        """The line end for a last record that has none."""
        return b"\r\n" if self.head().endswith(b"\r\n") else self.head()[-1:] or b"\n"

    def output(self, path: Path, blocks: int) -> CsvOutput:
        """Return the writer of a file."""
        return CsvOutput(self, path)


class ParquetRows(TableRows):
    """Rows of Parquet files, as columns."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")

    def _check_names(self, given: Mapping[str, Any]) -> None:
        super()._check_names(given)
        for spec in self.wanted:
            if isinstance(type_ := self.files[0].types[spec.column], str):
                why = "several columns have this name" if type_ == DUPLICATE else f"it has type {type_}"
                raise UsageError(f"{self.paths[0]}: column {spec.column!r} cannot be sorted: {why}. Remove it.")

    @property
    def output_bytes(self) -> int:
        """The uncompressed bytes of the row groups."""
        return sum(size for size, _ in self._groups)

    @property
    def row_bytes(self) -> int:  # type: ignore[override]
        """The mean bytes of a row."""
        return max(1, self.output_bytes // max(1, sum(rows for _, rows in self._groups)))

    @property
    def _groups(self) -> list[tuple[int, int]]:
        """The bytes and the rows of all row groups."""
        return [group for file in self.files if isinstance(file, ParquetFile) for group in file.groups]

    def pieces(self, begin: int, end: int, most: int) -> Iterator[Piece]:
        """Yield the keys and all columns, in parts of at most `most` rows."""
        for batch in chain([self._no_rows()], self.read(begin, end)):
            size = len(next(iter(batch.values())).values)
            for first in range(0, max(size, 1), most):
                part = {label: values[first : first + most] for label, values in batch.items()}
                yield self._keys(part), self._columns(part)

    def _columns(self, batch: Mapping[str, Values]) -> Columns:
        """Return columns with one axis, and a null mask for each column that may have nulls."""
        columns = Columns()
        for number, (label, values) in enumerate(batch.items()):
            column = values.values
            if self.nullable(label):
                nulls = values.nulls
                columns[f"{NULLS}{number}"] = np.zeros(len(column), bool) if nulls is None else nulls
            if isinstance(column, np.ndarray) and column.ndim == 2:
                column = np.ascontiguousarray(column).view("V16").reshape(-1)
            columns[str(number)] = column
        return columns

    def to_arrow(self, columns: Columns) -> Any:
        """Return columns as an Arrow table with the types of `self.types`, in the order of the columns of the file."""
        arrays = {}
        for number, (label, type_) in enumerate(self.types.items()):
            column: Any = columns[str(number)]
            nulls: Any = columns.get(f"{NULLS}{number}")
            if is_wide(type_):
                column = np.ascontiguousarray(column).view(np.int64).reshape(len(column), 2)
            arrays[label] = array_of(column, nulls, type_)
        names = [name for name in self.files[0].types if name in arrays]
        return arrow().table([arrays[name] for name in names], names)

    def schema(self) -> tuple[Any, str]:
        """Return the schema of the output and its compression, those of the input; for rank 0.

        A column whose type differs between files, or cannot be restored, has the common type.
        """
        pa, parquet = arrow(), arrow("parquet")
        schemas = [parquet.read_schema(path) for path in self.paths]
        fields = []
        for field in schemas[0]:
            common = self.types[field.name]
            same = all(schema.field(field.name).type == field.type for schema in schemas)
            fields.append(field if same and is_restorable(common, field.type) else pa.field(field.name, common))
        groups = parquet.read_metadata(self.paths[0])
        codec = groups.row_group(0).column(0).compression if groups.num_row_groups and groups.num_columns else "SNAPPY"
        return pa.schema(fields, schemas[0].metadata), "NONE" if codec == "UNCOMPRESSED" else codec

    def output(self, path: Path, blocks: int) -> ParquetOutput:
        """Return the writer of a file."""
        return ParquetOutput(self, path, blocks)
