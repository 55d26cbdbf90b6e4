"""Columns of rows: arrays of equal length, and Text, whose elements are byte strings of any length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from anyrank.kernel import Kernel

copy_rows = Kernel("keys", "copy")
#: The error handler for bytes that are not valid UTF-8: they are written as \\xff.
BROKEN = "backslashreplace"


class Text:
    """A column of byte strings: element i is `data[offsets[i]:offsets[i + 1]]`.

    Parameters
    ----------
    data : uint8 array
        The bytes of all elements, concatenated.
    offsets : int64 array, shape (n + 1,)
        The element boundaries, from 0 to the length of `data`.

    Examples
    --------
    >>> column = keyed.Text.of(["to", "be"])
    >>> column[1:].strings(), column.sizes
    (['be'], array([2, 2]))
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray):
        self.data, self.offsets = data, offsets

    @classmethod
    def of(cls, strings: Iterable[bytes | str]) -> Text:
        """Return the column of strings.

        Parameters
        ----------
        strings : iterable of bytes or str
            The elements; str is encoded as UTF-8.
        """
        parts = [s.encode() if isinstance(s, str) else s for s in strings]
        return cls.sized(np.frombuffer(b"".join(parts), np.uint8), np.fromiter(map(len, parts), np.int64, len(parts)))

    @classmethod
    def sized(cls, data: np.ndarray, sizes: np.ndarray) -> Text:
        """Return the column of strings that are contiguous in memory.

        Parameters
        ----------
        data, sizes : uint8 array, int64 array
            The bytes of all elements, concatenated, and the number of bytes of each element.
        """
        offsets = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        return cls(data, offsets)

    @classmethod
    def gathered(cls, data: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> Text:
        """Return the column of strings at any offsets.

        Parameters
        ----------
        data, starts, sizes : uint8 array, int64 array, int64 array
            The bytes, and the offset of the first byte and the number of bytes of each element.
        """
        text = cls.sized(data, sizes)
        text.data = np.empty(int(text.offsets[-1]), np.uint8)
        copy_rows(data, np.ascontiguousarray(starts), np.ascontiguousarray(sizes), 0, len(sizes), text.data, None)
        return text

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: Any) -> Text:
        """Return the rows that a slice, an array of row numbers or a mask selects."""
        if isinstance(rows, slice):
            first, last, step = rows.indices(len(self))
            if step == 1:
                offsets = self.offsets[first : max(first, last) + 1]
                return Text(self.data[offsets[0] : offsets[-1]], offsets - offsets[0])
        rows = np.arange(len(self))[rows]
        return Text.gathered(self.data, self.offsets[rows], self.sizes[rows])

    @property
    def sizes(self) -> np.ndarray:
        """The length of each element in bytes, int64."""
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes of memory of the column."""
        return int(self.data.nbytes + self.offsets.nbytes)

    def tolist(self) -> list[bytes]:
        """Return the elements as bytes. Not collective."""
        data, offsets = self.data.tobytes(), self.offsets.tolist()
        return [data[a:b] for a, b in pairwise(offsets)]

    def strings(self) -> list[str]:
        """Return the elements as str; bytes that are not valid UTF-8 become escapes."""
        return [element.decode(errors=BROKEN) for element in self.tolist()]


Column: TypeAlias = np.ndarray | Text
Columns: TypeAlias = dict[str, Column]


def take(columns: Mapping[str, Column], rows: Any) -> Columns:
    """Return the rows of all columns that an array of row numbers, a mask or a slice selects."""
    return {name: column[rows] for name, column in columns.items()}


def concat(parts: Sequence[Column]) -> Column:
    """Concatenate columns of the same type; at least one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Text):
        texts = [part for part in parts if isinstance(part, Text)]
        ends = np.cumsum([0, *(len(t.data) for t in texts)]).tolist()
        offsets = [t.offsets[1:] + end for t, end in zip(texts, ends, strict=False)]
        return Text(np.concatenate([t.data for t in texts]), np.concatenate([[0], *offsets]))
    return np.concatenate([np.asarray(part) for part in parts])


def count(columns: Mapping[str, Column]) -> int:
    """Return the number of rows; 0 if there is no column."""
    return len(next(iter(columns.values()), ()))
