"""The output file of `sort`: blocks of sorted rows, one after another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anyrank.keyed.rows import Columns
from anyrank.keyed.types import arrow, to_stored
from anyrank.storage.durable import sync, write_all

if TYPE_CHECKING:
    from anyrank.keyed.arrays import ArrayFile
    from anyrank.keyed.sort_tables import CsvRows, ParquetRows


class Output:
    """The output of all ranks, a plain file. Only rank 0 calls `create` and `complete`, and all ranks the others."""

    #: Whether blocks follow each other without known offsets: a resumed run then writes the file again from its begin.
    appends = True

    def __init__(self, path: Path):
        self.path, self._descriptor = path, -1

    def create(self) -> None:
        """Create the file. Raises OSError."""

    def open(self) -> None:
        """Open the file. Raises OSError."""
        self._descriptor = os.open(self.path, os.O_WRONLY)

    def locate(self, columns: Columns, start: int) -> int:
        """Return where `put` writes this rank's part of the next rows; `start` is its first row. Collective."""
        return start

    def put(self, columns: Columns, where: int) -> None:
        """Write this rank's part of the next rows. Raises OSError."""

    def flush(self) -> None:
        """Wait until this rank's parts of a block are on the disk. Raises OSError."""
        sync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def complete(self) -> None:
        """Do what is left when all blocks are written. Raises OSError."""

    def _write(self, array: np.ndarray, offset: int) -> None:
        data: Any = np.ascontiguousarray(array).view(np.uint8)
        write_all(self._descriptor, memoryview(data), offset)


class ArrayOutput(Output):
    """A .npy or HDF5 file; rows are written at their offsets."""

    appends = False

    def __init__(self, source: ArrayFile, path: Path):
        super().__init__(path)
        self.source = source

    def create(self) -> None:
        """See Output."""
        self.source.lay_out(self.path)

    def open(self) -> None:
        """See Output."""
        self._extents = self.source.extents(self.path)
        super().open()

    def put(self, columns: Columns, where: int) -> None:
        """See Output."""
        for name, column in columns.items():
            array = np.asarray(column)
            self._write(array, self._extents[name] + where * array.itemsize)

    def complete(self) -> None:
        """See Output."""
        self.source.restore_storage(self.path)


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
        self._tables += self.source.world.gather(self.source.to_arrow(columns)) or []
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
