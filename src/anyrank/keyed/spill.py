"""Sorted runs of rows, and arrays: in memory, or in an unnamed temporary file on a local disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyrank.errors import AnyrankError
from anyrank.keyed.rows import Column, Columns, Text
from anyrank.storage.durable import write_all
from anyrank.storage.on_disk import DiskArray

#: The name of the column of codes by which rows are sorted.
KEY = ""
#: One key in SAMPLE keys of a run on disk is kept in memory: 512 keys of 8 bytes are 4 KiB of disk. The last GAPS
#: groups of keys between two samples are cached, because a bisection reads the same few groups repeatedly.
SAMPLE, GAPS = 512, 8
#: Bytes of memory beside the rows: for code and messages that are still to come, and unused parts of huge pages; with
#: tables also for the libraries that read and write files.
OTHER_BYTES, TABLE_BYTES = 8 << 20, 72 << 20


def data_share(budget: int, other: int = OTHER_BYTES) -> int:
    """Return the bytes of a memory budget that rows may take: what is left beside `other`, from 1/4 to 3/4 of it."""
    return max(budget // 4, budget - max(other, budget // 4))


def table_budgets(budget: int, limited: bool) -> tuple[int, int]:
    """Return the bytes of a memory budget for rows, and the budget of tables.

    Without --memory-limit, tables may take twice as much of it before they are written to disk: the budget is then a
    part of the free memory, and leaves enough for libraries and copies.
    """
    share = data_share(budget, TABLE_BYTES) if limited else budget
    return share, share if limited else 2 * share


class SortedInMemory:
    """A sorted run in memory."""

    def __init__(self, columns: Columns):
        self.columns = columns
        self.keys: Any = columns[KEY]

    @property
    def nbytes(self) -> int:
        """Bytes of memory in use."""
        return sum(column.nbytes for column in self.columns.values())

    def read(self, name: str, first: int, last: int) -> Column:
        """Return rows `first` to `last` of a column as a view."""
        return self.columns[name][first:last]


class ScratchFile:
    """A temporary file for runs and arrays. The system removes it when nothing uses it, or when the process ends."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.size = 0
        self._file: Any = None

    def spill(self, run: SortedInMemory, gaps: int = GAPS) -> SortedOnDisk:
        """Write a run to disk and return it as a SortedOnDisk. Raises AnyrankError if the disk is full.

        `gaps` is the number of groups of keys that are cached.
        """
        with self._refusing(run.nbytes):
            offsets = {name: [*map(self._append, _parts(column))] for name, column in run.columns.items()}
        return SortedOnDisk(self, offsets, run, gaps)

    @contextmanager
    def _refusing(self, nbytes: int) -> Iterator[None]:
        """Raise AnyrankError if the disk is full; opens the file before the block."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115
            yield
        except OSError as error:
            self.close()
            raise AnyrankError(
                f"--scratch {self.folder} cannot take {nbytes} bytes more of the rows that do not fit into memory; "
                f"this rank had written {self.size} bytes ({error.strerror}). They were removed. Free space for all "
                "rows of the ranks of a node, or use --scratch on another disk, more ranks or a larger --memory-limit."
            ) from None

    def _append(self, column: Any) -> int:
        """Write a column at the end of the file and return its offset."""
        offset = self.size
        self._write(column, offset)
        self.size += column.nbytes
        return offset

    def _write(self, column: Any, offset: int) -> None:
        data: Any = np.ascontiguousarray(column).reshape(-1).view(np.uint8)
        write_all(self._file.fileno(), memoryview(data), offset)

    def array(self, shape: Sequence[int], dtype: np.dtype[Any]) -> DiskArray:
        """Return a new array at the end of the file, which may be written once."""
        offset, row_shape = self.size, tuple(shape[1:])
        row = dtype.itemsize * prod(row_shape)
        self.size += row * shape[0]

        def write(first: int, rows: np.ndarray) -> None:
            with self._refusing(rows.nbytes):
                self._write(rows, offset + first * row)

        array = DiskArray(dtype, row_shape, [(shape[0], partial(self.read_rows, offset, dtype, row_shape))])
        array.write = write
        return array

    def read_rows(
        self, offset: int, dtype: np.dtype[Any], row_shape: tuple[int, ...], first: int, last: int
    ) -> np.ndarray:
        """Return rows `first` to `last` of the array at a byte offset."""
        size = prod(row_shape)
        elements = self.read(offset + first * size * dtype.itemsize, (last - first) * size, dtype)
        return elements.reshape(last - first, *row_shape)

    def read(self, offset: int, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return `count` elements from a byte offset."""
        result = np.empty(count, dtype)
        rest = memoryview(result.view(np.uint8))  # type: ignore[arg-type]
        while rest:
            size = os.preadv(self._file.fileno(), [rest], offset)
            if not size:
                raise AnyrankError(f"{self.folder}: the temporary file of sorted rows became shorter while in use.")
            rest, offset = rest[size:], offset + size
        return result

    def close(self) -> None:
        """Close the file, which removes it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    __del__ = close


def _parts(column: Column) -> list[NDArray[Any]]:
    """Return the arrays of a column: of a Text the offsets and the bytes."""
    return [column.offsets, column.data] if isinstance(column, Text) else [column]


class SortedOnDisk:
    """A sorted run on disk; the splitter search uses `keys` like an array."""

    def __init__(self, scratch: ScratchFile, offsets: dict[str, list[int]], run: SortedInMemory, gaps: int):
        self._scratch, self._offsets = scratch, offsets
        self.columns = {
            name: [(part.dtype, part.shape[1:]) for part in _parts(column)] for name, column in run.columns.items()
        }
        read = partial(scratch.read_rows, offsets[KEY][0], *self.columns[KEY][0])
        self.keys = KeysOnDisk(read, len(run.keys), run.keys[::SAMPLE].copy(), gaps)

    @property
    def nbytes(self) -> int:
        """Bytes of memory in use."""
        return int(self.keys.samples.nbytes)

    def read(self, name: str, first: int, last: int) -> Column:
        """Return rows `first` to `last` of a column."""
        first, last = int(first), int(last)
        if len(self.columns[name]) == 1:
            return self.read_part(name, 0, first, last)
        offsets = self.read_part(name, 0, first, last + 1)
        return Text(self.read_part(name, 1, int(offsets[0]), int(offsets[-1])), offsets - offsets[0])

    def read_part(self, name: str, part: int, first: int, last: int) -> NDArray[Any]:
        """Return elements of an array of a column: of a Text 0 for the offsets and 1 for the bytes."""
        return self._scratch.read_rows(self._offsets[name][part], *self.columns[name][part], first, last)

    def sizes(self, name: str, first: int, last: int) -> NDArray[Any]:
        """Return the sizes of the elements `first` to `last` of a Text."""
        return np.diff(self.read_part(name, 0, first, last + 1))

    def text_bytes(self, name: str) -> int:
        """Return the number of bytes of a Text."""
        return int(self.read_part(name, 0, len(self.keys), len(self.keys) + 1)[0])


class KeysOnDisk:
    """The keys of a run on disk. Samples in memory select the group of keys that must be read."""

    def __init__(self, read: Callable[[int, int], NDArray[Any]], size: int, samples: NDArray[Any], gaps: int):
        self._size, self.samples, self.dtype = size, samples, samples.dtype
        # No reference to this object, so that the file is removed as soon as nothing uses it.
        self._gap = lru_cache(gaps)(lambda gap: read(gap * SAMPLE, min((gap + 1) * SAMPLE, size)))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Any:
        index %= self._size
        return self._gap(index // SAMPLE)[index % SAMPLE]

    def searchsorted(self, keys: NDArray[Any], side: Any = "left") -> list[int]:
        """Return for each key the number of smaller keys in the run, or with side "right", not greater ones."""
        return [self._search(keys[i : i + 1], side) for i in range(len(keys))]

    def _search(self, key: NDArray[Any], side: Any) -> int:
        gap = int(self.samples.searchsorted(key, side)[0]) - 1
        return gap * SAMPLE + int(self._gap(gap).searchsorted(key, side)[0]) if gap >= 0 else 0
