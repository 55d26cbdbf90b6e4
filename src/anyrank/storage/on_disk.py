"""Arrays on disk, of which only slices are read into memory, and Fields of such arrays for checkpoints."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from anyrank.field import Field
from anyrank.numerics.digest import local_digest
from anyrank.numerics.strided import row_slices

#: Return the rows of a part from a first one to the one after the last.
Reader = Callable[[int, int], np.ndarray]


class DiskArray:
    """An array whose rows are in parts on a disk. A slice of rows is read as a NumPy array.

    Parameters
    ----------
    dtype : dtype
        The type of the elements.
    row_shape : tuple of int
        The shape of a row.
    parts : iterable of (int, callable)
        The number of rows of each part, and what reads them.
    """

    #: Bytes that are read at a time: see `row_slices`.
    piece = 1 << 20
    #: Writes rows from a first one on, if the array may be written.
    write: Callable[[int, np.ndarray], None]

    def __init__(self, dtype: np.dtype[Any], row_shape: tuple[int, ...] = (), parts: Iterable[tuple[int, Reader]] = ()):
        self.dtype, self.row_shape = dtype, row_shape
        self._starts, self._readers = [0], list[Reader]()
        for rows, reader in parts:
            self.append(rows, reader)

    def append(self, rows: int, reader: Reader) -> None:
        """Add a part after the others."""
        self._starts.append(self._starts[-1] + rows)
        self._readers.append(reader)

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole array."""
        return (len(self), *self.row_shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def itemsize(self) -> int:
        """The bytes of an element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """The bytes of the array, on the disk."""
        return self.size * self.itemsize

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(len(self))
        result = np.empty((max(0, last - first), *self.row_shape), self.dtype)
        k, begin = bisect_right(self._starts, first) - 1, first
        while begin < last:
            start, end = self._starts[k], min(last, self._starts[k + 1])
            if begin < end:
                result[begin - first : end - first] = self._readers[k](begin - start, end - start)
            k, begin = k + 1, end
        return result


class FieldOnDisk(Field):
    """A Field whose block is a DiskArray: `Field.from_array` creates it (for the runtime)."""

    on_disk = True

    @property
    def local(self) -> Any:
        """The block of this rank, a DiskArray."""
        return self.storage

    def __setitem__(self, key: slice, values: np.ndarray) -> None:
        self.local.write(key.start, values)

    def digest(self) -> int:
        """See `Field`."""
        start = self.layout.start
        own = sum(
            local_digest(self.local[rows], self.layout.shape, (start[0] + rows.start, *start[1:]))
            for rows in row_slices(self.local)
        )
        return int(self.world.allreduce(np.array([own % 2**64], np.uint64))[0])
