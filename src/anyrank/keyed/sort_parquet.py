"""Rows of Parquet files for `sort`: the types, the metadata and the compression of the first file are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.rows import Columns
from anyrank.keyed.sort_output import Output
from anyrank.keyed.sort_tables import Piece, TableRows
from anyrank.keyed.tables.parquet import DUPLICATE, ParquetFile
from anyrank.keyed.types import array_of, arrow, is_restorable, is_wide, to_stored
from anyrank.keyed.values import Values

#: The memory that writing Parquet takes: of the libraries, and copies of a block.
_WRITER_BYTES, _COPIES = 24 << 20, 4
#: Prefix for the names of null masks.
NULLS = "null"


class ParquetRows(TableRows):
    """Rows of Parquet files, as columns."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")

    def _check_names(self, given: Mapping[str, Any]) -> None:
        super()._check_names(given)
        for spec in self.wanted:
            if isinstance(type_ := self.files[0].types[spec.column], str):
                why = "several columns have this name" if type_ == DUPLICATE else f"it has type {type_}"
                raise UsageError(f"{self.paths[0]}: column {spec.column!r} cannot be sorted: {why}. Remove it.")
        for file in self.files:
            if more := [name for name in file.types if name not in self.files[0].types]:
                raise UsageError(f"{file.path} has column {more[0]!r}, which {self.paths[0]} lacks. Sort it alone.")

    @property
    def output_bytes(self) -> int:
        """The uncompressed bytes of the row groups."""
        return sum(size for size, _ in self._groups)

    def write_bytes(self, block: int) -> int:
        """See TableRows: rank 0 has the rows of a block, as messages, as columns of either type, and as pages."""
        return _WRITER_BYTES + _COPIES * min(block, self.output_bytes)

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


class ParquetOutput(Output):
    """A Parquet file: rank 0 receives each block of rows and writes it as one row group."""

    def __init__(self, source: ParquetRows, path: Path, blocks: int):
        super().__init__(path)
        self.source, self._left = source, blocks
        self._writer: Any = None
        self._tables: list[Any] = []

    def create(self) -> None:
        """See Output."""
        schema, codec = self.source.schema()
        self._writer = arrow("parquet").ParquetWriter(self.path, schema, compression=codec)

    def open(self) -> None:
        """See Output; only rank 0 writes."""

    def locate(self, columns: Columns, start: int) -> int:
        """See Output."""
        with self.source.world.raise_on_all_ranks(Exception):
            table = self.source.to_arrow(columns)
        self._tables += self.source.world.gather(table) or []
        return start

    def flush(self) -> None:
        """See Output. The last block completes the file, before a checkpoint says that it is written."""
        if self._writer is None:
            return
        self._left -= 1
        if self._tables:
            table, schema = arrow().concat_tables(self._tables).combine_chunks(), self._writer.schema
            arrays = [to_stored(table[field.name].combine_chunks(), field.type) for field in schema]
            rows = arrow().Table.from_arrays(arrays, schema=schema)
            self._writer.write_table(rows, row_group_size=max(1, len(rows)))
            self._tables = []
        if not self._left:
            self.close()

    def close(self) -> None:
        """See Output."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
