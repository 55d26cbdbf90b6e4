"""Sorted runs of rows: in memory, or in a file without a name on a local disk."""

from __future__ import annotations

import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyrank.errors import AnyrankError
from anyrank.keyed.rows import Column, Columns
from anyrank.storage.durable import write_all

#: The name of the column of codes, by which rows are sorted.
KEY = ""
#: Every so many keys, one of a run on disk stays in memory: between two are 4 KiB of a disk's. So many such gaps stay
#: in memory, too: a bisection looks into the same few again and again.
SAMPLE, GAPS = 512, 8


class MemoryRun:
    """A sorted run in memory."""

    def __init__(self, columns: Columns):
        self.columns = columns
        self.keys: Any = columns[KEY]

    @property
    def nbytes(self) -> int:
        """The bytes of memory it takes."""
        return sum(column.nbytes for column in self.columns.values())

    def read(self, name: str, first: int, last: int) -> Column:
        """Some rows of a column: a view."""
        return self.columns[name][first:last]


class ScratchFile:
    """A file for runs that is gone when it is closed or the process ends, however it does."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.size = 0
        self._file: Any = None

    def spill(self, run: MemoryRun) -> DiskRun:
        """Write a run, and return it as one on disk. Raises AnyrankError where the disk has no room for it."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115
            places = {name: self._append(column) for name, column in run.columns.items()}
        except OSError as error:
            self.close()
            raise AnyrankError(
                f"--scratch {self.folder} cannot take {run.nbytes} bytes more of what does not fit into memory, beside "
                f"{self.size} of this rank ({error.strerror}). What was there is removed. Make room for all rows of "
                "the ranks of a node, or use --scratch on another disk, more ranks or a larger --memory-limit."
            ) from None
        return DiskRun(self, places, run)

    def _append(self, column: Any) -> int:
        """Write a column at the end; the place where it begins."""
        place, data = self.size, memoryview(column.reshape(-1).view(np.uint8))
        write_all(self._file.fileno(), data, place)
        self.size += len(data)
        return place

    def read(self, place: int, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """So many elements that begin at a place."""
        result = np.empty(count, dtype)
        rest = memoryview(result.view(np.uint8))  # type: ignore[arg-type]
        while rest:
            got = os.preadv(self._file.fileno(), [rest], place)
            if not got:
                raise AnyrankError(f"{self.folder}: a file of spilled rows became shorter while it was in use.")
            rest, place = rest[got:], place + got
        return result

    def close(self) -> None:
        """Give the space back."""
        if self._file is not None:
            self._file.close()
            self._file = None


class DiskRun:
    """A sorted run on disk; `keys` is what splitters take for an array."""

    def __init__(self, scratch: ScratchFile, places: dict[str, int], run: MemoryRun):
        self._scratch, self._places = scratch, places
        self.columns = {name: np.asarray(column).dtype for name, column in run.columns.items()}
        self.keys = KeysOnDisk(self, len(run.keys), run.keys[::SAMPLE].copy())

    @property
    def nbytes(self) -> int:
        """The bytes of memory it takes."""
        return int(self.keys.samples.nbytes)

    def read(self, name: str, first: int, last: int) -> Column:
        """Some rows of a column."""
        dtype = self.columns[name]
        return self._scratch.read(self._places[name] + int(first) * dtype.itemsize, int(last - first), dtype)


class KeysOnDisk:
    """The keys of a run on disk: some of them are in memory, and tell between which of the others to look."""

    def __init__(self, run: DiskRun, size: int, samples: NDArray[Any]):
        self._run, self._size, self.samples, self.dtype = run, size, samples, samples.dtype
        self._gap = lru_cache(GAPS)(self._read_gap)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: int) -> Any:
        place %= self._size
        return self._gap(place // SAMPLE)[place % SAMPLE]

    def searchsorted(self, keys: NDArray[Any], side: Any = "left") -> list[int]:
        """How many keys are less than each, or on the `right` side not greater."""
        return [self._search(keys[i : i + 1], side) for i in range(len(keys))]

    def _search(self, key: NDArray[Any], side: Any) -> int:
        gap = int(self.samples.searchsorted(key, side)[0]) - 1
        return gap * SAMPLE + int(self._gap(gap).searchsorted(key, side)[0]) if gap >= 0 else 0

    def _read_gap(self, gap: int) -> Any:
        return self._run.read(KEY, gap * SAMPLE, min((gap + 1) * SAMPLE, self._size))
