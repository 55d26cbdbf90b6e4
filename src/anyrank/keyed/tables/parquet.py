"""Parquet files, read by row groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from anyrank.keyed.tables.dialect import CsvOptions
from anyrank.keyed.tables.source import BATCH_BYTES, BadRows, Rows, TableFile, rows_of_size
from anyrank.keyed.types import arrow, canonical, is_text, to_type

DUPLICATE = "duplicated"
#: The bytes of a column chunk that are decoded at once whatever they hold; rows at a time of a front-coded column.
_SMALL, _FRONT_CODED_ROWS = 1 << 26, 1 << 10


class ParquetFile(TableFile):
    """A Parquet file. A row group is read by one rank: the one whose byte range contains the group's scaled offset."""

    suffixes = (".parquet", ".pq")
    isolated = True

    def __init__(self, path: Path, size: int, options: CsvOptions):
        super().__init__(path, size, options)
        with arrow("parquet").ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
            self.types = {field.name: canonical(field.type) or str(field.type) for field in schema}
            self.types |= {name: DUPLICATE for name, count in Counter(schema.names).items() if count > 1}
            self.nullable = {*self.types}
            groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
            #: The bytes and the rows of each row group.
            self.groups: list[tuple[int, int]] = [(group.total_byte_size, group.num_rows) for group in groups]
            if min((min(group) for group in self.groups), default=0) < 0:
                raise ValueError("a row group has a negative size or a negative number of rows")
            if sum(rows for _, rows in self.groups) != metadata.num_rows:
                raise ValueError(f"its row groups do not have {metadata.num_rows} rows, the number of rows of the file")
        #: Columns of text that are read as dictionaries, and the rows of each row group to read at a time.
        self.dictionaries: list[str] = []
        self.batch_rows: list[int] = []

    def examine(self, columns: Collection[str]) -> None:
        """Check the extents of the column chunks, and find nulls, dictionaries and the rows to read at a time."""
        with arrow("parquet").ParquetFile(self.path) as file:
            metadata = file.metadata
            numbers = {metadata.schema.column(k).path: k for k in range(metadata.num_columns)}
            names = [name for name in numbers if name in columns]
            chunks = {
                name: [metadata.row_group(k).column(numbers[name]) for k in range(metadata.num_row_groups)]
                for name in names
            }
        for name in names:
            for (_, rows), chunk in zip(self.groups, chunks[name], strict=True):
                self._check_chunk(name, rows, chunk)
        self.nullable = {name for name in names if any(map(_may_have_nulls, chunks[name]))}
        texts = [name for name in names if not isinstance(self.types[name], str) and is_text(self.types[name])]
        # A value of text that is not in a dictionary takes at least 4 bytes, so most of these are in a dictionary.
        self.dictionaries = [
            name
            for name in texts
            if all(c.physical_type == "BYTE_ARRAY" and c.has_dictionary_page for c in chunks[name])
            and sum(c.total_uncompressed_size for c in chunks[name]) < 4 * sum(c.num_values for c in chunks[name])
        ]
        self.batch_rows = [
            min((self._rows_at_a_time(number, name, chunks[name][number]) for name in texts), default=rows_of_size(1))
            for number in range(len(self.groups))
        ]

    def _check_chunk(self, name: str, rows: int, chunk: Any) -> None:
        begin = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
        if not 0 <= begin <= begin + chunk.total_compressed_size <= self.size or chunk.total_uncompressed_size < 0:
            raise ValueError(f"the pages of column {name!r} are not in the file")
        if self.types.get(name) is not None and not isinstance(self.types[name], str) and chunk.num_values != rows:
            raise ValueError(f"column {name!r} has {chunk.num_values} values in a row group of {rows} rows")

    def _rows_at_a_time(self, number: int, name: str, chunk: Any) -> int:
        """Return how many rows of text to read at a time: a short dictionary may stand for long text."""
        size, rows = chunk.total_uncompressed_size, max(1, self.groups[number][1])
        if chunk.physical_type != "BYTE_ARRAY" or "DELTA_BYTE_ARRAY" in chunk.encodings:
            return _FRONT_CODED_ROWS
        most = rows_of_size(size // rows)
        if not chunk.has_dictionary_page or size * min(rows, rows_of_size(1)) <= _SMALL:
            return most
        with arrow("parquet").ParquetFile(self.path, read_dictionary=[name]) as file:
            values = next(file.iter_batches(1, [number], [name], use_threads=False))[name].dictionary
        longest = arrow("compute").max(arrow("compute").binary_length(values)).as_py() or 0
        return min(most, rows_of_size(longest))

    def read(self, begin: int, end: int, types: Mapping[str, Any], bad: BadRows) -> Iterator[Rows]:
        """Yield batches of rows; a batch is from one row group."""
        file = arrow("parquet").ParquetFile(
            self.path,
            read_dictionary=self.dictionaries,
            pre_buffer=False,  # it would hold all bytes of a row group
            buffer_size=BATCH_BYTES,
            page_checksum_verification=True,
        )
        total, before, row = max(1, sum(size for size, _ in self.groups)), 0, 0
        with file:
            for number, (size, rows) in enumerate(self.groups):
                offset, first = self.size * before // total, row
                before, row = before + size, row + rows
                if begin <= offset < end:
                    for batch in file.iter_batches(self.batch_rows[number], [number], [*types], use_threads=False):
                        yield Rows(
                            self.path, {name: to_type(batch[name], type_) for name, type_ in types.items()}, first
                        )
                        first += batch.num_rows
                    if first != row:
                        raise ValueError(f"row group {number} has {first - row + rows} rows, not {rows}")


def _may_have_nulls(chunk: Any) -> bool:
    """Return whether the statistics of a column chunk do not rule out nulls."""
    return not (chunk.is_stats_set and chunk.statistics.has_null_count) or bool(chunk.statistics.null_count)
