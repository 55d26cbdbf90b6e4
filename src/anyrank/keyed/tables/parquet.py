"""Parquet files, read by row groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from anyrank.keyed.tables.dialect import CsvOptions
from anyrank.keyed.tables.source import ROWS, BadRows, Rows, TableFile
from anyrank.keyed.types import arrow, canonical, to_type

DUPLICATE = "duplicated"


class ParquetFile(TableFile):
    """A Parquet file. A row group is read by one rank: the one whose byte range contains the group's scaled offset."""

    suffixes = (".parquet", ".pq")

    def __init__(self, path: Path, size: int, options: CsvOptions):
        super().__init__(path, size, options)
        with arrow("parquet").ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
            self.types = {field.name: canonical(field.type) or str(field.type) for field in schema}
            self.types |= {name: DUPLICATE for name, count in Counter(schema.names).items() if count > 1}
            groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
            self.nullable = {name for group in groups for name in _nullable(group)}
            #: The bytes and the rows of each row group.
            self.groups: list[tuple[int, int]] = [(max(0, group.total_byte_size), group.num_rows) for group in groups]
            if min((rows for _, rows in self.groups), default=0) < 0:
                raise ValueError("a row group has a negative number of rows")

    def read(self, begin: int, end: int, types: Mapping[str, Any], bad: BadRows) -> Iterator[Rows]:
        """Yield batches of rows; a batch is from one row group."""
        with arrow("parquet").ParquetFile(self.path) as file:
            total, before, row = max(1, sum(size for size, _ in self.groups)), 0, 0
            for number, (size, rows) in enumerate(self.groups):
                offset, first = self.size * before // total, row
                before, row = before + size, row + rows
                if begin <= offset < end:
                    for batch in file.iter_batches(ROWS, [number], [*types], use_threads=False):
                        yield Rows(
                            self.path, {name: to_type(batch[name], type_) for name, type_ in types.items()}, first
                        )
                        first += batch.num_rows


def _nullable(group: Any) -> set[str]:
    """Return the columns of a row group whose statistics do not rule out nulls."""
    columns = [group.column(k) for k in range(group.num_columns)]
    return {
        column.path_in_schema
        for column in columns
        if not (column.is_stats_set and column.statistics.has_null_count) or column.statistics.null_count
    }
