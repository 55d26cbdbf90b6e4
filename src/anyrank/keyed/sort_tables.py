"""Rows of CSV and Parquet files for `sort`: keys as codes, and the rest of the rows.

A row of CSV is sorted as the bytes of its record, so that the output has every value as it was read. The rows of
Parquet are sorted as columns (`sort_parquet`). Texts that are keys are first replaced by their numbers in the order of
the texts of all ranks. This takes memory for the texts of each rank; everything else may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anyrank.errors import AnyrankError, UsageError
from anyrank.keyed.files import fingerprint
from anyrank.keyed.order import text_codes
from anyrank.keyed.rows import Columns, Text
from anyrank.keyed.sort_keys import Key
from anyrank.keyed.sort_output import Output
from anyrank.keyed.tables import TableFiles, named_errors
from anyrank.keyed.tables.columns import ColumnSpec
from anyrank.keyed.tables.csv import CsvFile
from anyrank.keyed.tables.dialect import CsvOptions
from anyrank.keyed.tables.source import BadRows
from anyrank.keyed.types import (
    array_of,
    arrow,
    is_text,
    is_wide,
    joined,
    name_of,
    text_of,
    values_of,
)
from anyrank.keyed.values import Values
from anyrank.layout import even_cuts
from anyrank.world import World

#: The keys and the other columns of rows.
Piece: TypeAlias = tuple[list[NDArray[Any]], Columns]
#: The column of the records of CSV; of Parquet, columns are numbered, and NULLS marks their null masks.
RECORD, NULLS = "record", "null"
#: A rank needs this many times the bytes of the texts of keys to sort them.
_TEXT_COPIES = 6


class TableRows(TableFiles):
    """The rows of table files, for a Sorter. The constructor is collective."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    #: What `size` counts.
    unit: ClassVar[str] = "bytes"
    unites = False
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

    def _check_names(self, given: Mapping[str, Any]) -> None:
        super()._check_names(given)
        for file in self.files:
            if folders := [key.name for key in self.by if key.name in file.constants]:
                raise UsageError(
                    f"{file.path}: the key {folders[0]!r} is the name of a folder, which is in no row. Sort the files "
                    "of each folder, or name other keys."
                )

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

    def write_bytes(self, block: int) -> int:
        """Return the bytes of memory that a rank needs, outside of the Sorter, to write a block."""
        return 0

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


class CsvOutput(Output):
    """A CSV file of records as they were read."""

    def __init__(self, source: CsvRows, path: Path):
        super().__init__(path)
        self.source, self._size = source, 0

    def create(self) -> None:
        """See Output."""
        self.path.write_bytes(self.source.head())

    def open(self) -> None:
        """See Output."""
        super().open()
        self._size = self.path.stat().st_size

    def locate(self, columns: Columns, start: int) -> int:
        """See Output."""
        (record,) = columns.values()
        sizes = self.source.world.comm.allgather(len(record.data))
        offset = self._size + sum(sizes[: self.source.world.rank])
        self._size += sum(sizes)
        return int(offset)

    def put(self, columns: Columns, where: int) -> None:
        """See Output."""
        (record,) = columns.values()
        self._write(np.asarray(record.data), where)
