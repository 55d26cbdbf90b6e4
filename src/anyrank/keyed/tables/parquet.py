"""Parquet files, read by row groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from anyrank.keyed.tables.arrow import arrow, kind_of, of_arrow
from anyrank.keyed.tables.source import ROWS, BadRows, Rows, TablePiece, TableSource


class Parquet(TableSource):
    """Parquet files. A row group is read by one rank: the one whose byte range contains the group's scaled offset."""

    suffixes = (".parquet", ".pq")

    @staticmethod
    def kinds(path: Path) -> dict[str, str]:
        """Return the kinds of the columns in the schema."""
        return {field.name: kind_of(field.type) for field in arrow("parquet").read_schema(path)}

    @staticmethod
    def nullable(path: Path) -> set[str]:
        """Return the columns whose statistics do not rule out nulls."""
        names = set()
        metadata = arrow("parquet").read_metadata(path)
        for group in (metadata.row_group(k) for k in range(metadata.num_row_groups)):
            for column in (group.column(k) for k in range(group.num_columns)):
                known = column.is_stats_set and column.statistics.has_null_count
                if not known or column.statistics.null_count:
                    names.add(column.path_in_schema)
        return names

    @staticmethod
    def read(piece: TablePiece, wanted: Mapping[str, str], bad: BadRows) -> Iterator[Rows]:
        """Yield batches of rows; a batch is from one row group."""
        with arrow("parquet").ParquetFile(piece.path) as file:
            groups = [file.metadata.row_group(k) for k in range(file.metadata.num_row_groups)]
            total, before, row = max(1, sum(g.total_byte_size for g in groups)), 0, 0
            for number, group in enumerate(groups):
                offset, first = piece.files.sizes[piece.index] * before // total, row
                before, row = before + group.total_byte_size, row + group.num_rows
                if piece.begin <= offset < piece.end:
                    for batch in file.iter_batches(ROWS, [number], [*wanted], use_threads=False):
                        yield Rows(piece.path, {n: of_arrow(batch[n], k) for n, k in wanted.items()}, first)
                        first += batch.num_rows
