"""Sorted runs of rows: in memory, or in an unnamed temporary file on a local disk."""

from __future__ import annotations

import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyrank.errors import AnyrankError
from anyrank.keyed.rows import Column, Columns, Text
from anyrank.storage.durable import write_all

#: The name of the column of codes by which rows are sorted.
KEY = ""
#: One key in SAMPLE keys of a run on disk is kept in memory: 512 keys of 8 bytes are 4 KiB of disk. The last GAPS
#: groups of keys between two samples are cached, because a bisection reads the same few groups repeatedly.
SAMPLE, GAPS = 512, 8


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
    """A temporary file for runs. The system removes it on `close` or when the process ends in any way."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.size = 0
        self._file: Any = None

    def spill(self, run: SortedInMemory) -> SortedOnDisk:
        """Write a run to disk and return it as a SortedOnDisk. Raises AnyrankError if the disk is full."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115
            offsets = {name: [*map(self._append, _parts(column))] for name, column in run.columns.items()}
        except OSError as error:
            self.close()
            raise AnyrankError(
                f"--scratch {self.folder} cannot take {run.nbytes} bytes more of the rows that do not fit into memory; "
                f"this rank had written {self.size} bytes ({error.strerror}). They were removed. Free space for all "
                "rows of the ranks of a node, or use --scratch on another disk, more ranks or a larger --memory-limit."
            ) from None
        return SortedOnDisk(self, offsets, run)

    def _append(self, column: Any) -> int:
        """Write a column at the end of the file and return its offset."""
        offset, data = self.size, memoryview(column.reshape(-1).view(np.uint8))
        write_all(self._file.fileno(), data, offset)
        self.size += len(data)
        return offset

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


def _parts(column: Column) -> list[NDArray[Any]]:
    """Return the arrays of a column: of a Text the offsets and the bytes."""
    return [column.offsets, column.data] if isinstance(column, Text) else [column]


class SortedOnDisk:
    """A sorted run on disk; the splitter search uses `keys` like an array."""

    def __init__(self, scratch: ScratchFile, offsets: dict[str, list[int]], run: SortedInMemory):
        self._scratch, self._offsets = scratch, offsets
        self.columns = {name: [part.dtype for part in _parts(column)] for name, column in run.columns.items()}
        self.keys = KeysOnDisk(self, len(run.keys), run.keys[::SAMPLE].copy())

    @property
    def nbytes(self) -> int:
        """Bytes of memory in use."""
        return int(self.keys.samples.nbytes)

    def read(self, name: str, first: int, last: int) -> Column:
        """Return rows `first` to `last` of a column."""
        first, count = int(first), int(last - first)
        if len(self.columns[name]) == 1:
            return self._read(name, 0, first, count)
        offsets = self._read(name, 0, first, count + 1)
        return Text(self._read(name, 1, int(offsets[0]), int(offsets[-1] - offsets[0])), offsets - offsets[0])

    def _read(self, name: str, part: int, first: int, count: int) -> NDArray[Any]:
        dtype = self.columns[name][part]
        return self._scratch.read(self._offsets[name][part] + first * dtype.itemsize, count, dtype)


class KeysOnDisk:
    """The keys of a run on disk. Samples in memory select the group of keys that must be read."""

    def __init__(self, run: SortedOnDisk, size: int, samples: NDArray[Any]):
        self._run, self._size, self.samples, self.dtype = run, size, samples, samples.dtype
        self._gap = lru_cache(GAPS)(self._read_gap)

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

    def _read_gap(self, gap: int) -> Any:
        return self._run.read(KEY, gap * SAMPLE, min((gap + 1) * SAMPLE, self._size))
