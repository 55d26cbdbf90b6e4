"""Rows in columns: arrays of one length, and Text, whose elements are bytes of any length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

#: How text is kept whose bytes are no UTF-8: what is broken is written as \\xff.
BROKEN = "backslashreplace"


class Text:
    """A column of byte strings: element i is `data[offsets[i]:offsets[i + 1]]`.

    `data` is uint8, `offsets` int64 with one element more than the column, from 0 to the length of `data`.
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray):
        self.data, self.offsets = data, offsets

    @classmethod
    def of(cls, strings: Iterable[bytes | str]) -> Text:
        """The column of these strings; str as UTF-8."""
        parts = [s.encode() if isinstance(s, str) else s for s in strings]
        return cls.sized(np.frombuffer(b"".join(parts), np.uint8), np.fromiter(map(len, parts), np.int64, len(parts)))

    @classmethod
    def sized(cls, data: np.ndarray, sizes: np.ndarray) -> Text:
        """The column of strings that lie one after the other in `data`, of so many bytes each."""
        offsets = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        return cls(data, offsets)

    @classmethod
    def gathered(cls, data: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> Text:
        """The column of the strings that begin at these places of `data`, of so many bytes each."""
        text = cls.sized(data, sizes)
        # Byte k of a row lies as far from the row's begin there as here.
        text.data = data[np.repeat(starts - text.offsets[:-1], sizes) + np.arange(int(text.offsets[-1]))]
        return text

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: Any) -> Text:
        """The rows of a slice without a step, an array of row numbers or a mask."""
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
        """The bytes of memory of the column."""
        return int(self.data.nbytes + self.offsets.nbytes)

    def tolist(self) -> list[bytes]:
        """The elements."""
        data, offsets = self.data.tobytes(), self.offsets.tolist()
        return [data[a:b] for a, b in pairwise(offsets)]

    def strings(self) -> list[str]:
        """The elements as str; what is no UTF-8 in them as escapes."""
        return [element.decode(errors=BROKEN) for element in self.tolist()]


Column: TypeAlias = np.ndarray | Text
Columns: TypeAlias = dict[str, Column]


def take(columns: Mapping[str, Column], rows: Any) -> Columns:
    """These rows of all columns: an array of their numbers, a mask or a slice."""
    return {name: column[rows] for name, column in columns.items()}


def concat(parts: Sequence[Column]) -> Column:
    """Columns of one kind, one after the other; at least one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Text):
        texts = [part for part in parts if isinstance(part, Text)]
        return Text.sized(np.concatenate([t.data for t in texts]), np.concatenate([t.sizes for t in texts]))
    return np.concatenate([np.asarray(part) for part in parts])


def count(columns: Mapping[str, Column]) -> int:
    """How many rows the columns have; 0 where there is no column."""
    return len(next(iter(columns.values()), ()))
