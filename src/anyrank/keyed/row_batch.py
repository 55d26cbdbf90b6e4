"""Rows of a Table on their way: to other ranks, or to where their keys lie together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from anyrank.exchange.shuffle import Shuffle
from anyrank.keyed.rows import Column, Text
from anyrank.keyed.schema import with_mask


@dataclass
class RowBatch:
    """Rows: keys as bytes, weights (None: 1 each), and the parts of every value."""

    keys: Text | np.ndarray
    count: np.ndarray | None
    values: dict[str, dict[str, np.ndarray]]

    def __len__(self) -> int:
        return len(self.keys)

    def _map_columns(self, change: Callable[[Any], Any]) -> RowBatch:
        values = {name: {end: change(x) for end, x in parts.items()} for name, parts in self.values.items()}
        return RowBatch(change(self.keys), None if self.count is None else change(self.count), values)

    def take(self, rows: Any) -> RowBatch:
        """These rows: a slice, a mask or numbers."""
        return self._map_columns(lambda column: column[rows])

    def reorder(self, places: np.ndarray) -> RowBatch:
        """The rows in another order, row i at places[i]."""
        order: list[np.ndarray] = []

        def move(column: Any) -> Any:
            if isinstance(column, np.ndarray) and not isinstance(column, np.ma.MaskedArray):
                return scatter(column, places)
            if not order:
                order.append(scatter(np.arange(len(places)), places))
            return column[order[0]]

        return self._map_columns(move)

    @property
    def message_flags(self) -> np.ndarray:
        """What decides how many messages the rows take: 1 where there are weights, and for each value with a mask."""
        masked = [isinstance(x, np.ma.MaskedArray) for parts in self.values.values() for x in parts.values()]
        return np.array([self.count is not None, *masked], np.int64)

    def with_message_flags(self, message_flags: np.ndarray) -> RowBatch:
        """The same rows with these message_flags, or more."""
        weighted, *masked = map(bool, message_flags)
        count = np.ones(len(self), np.int64) if weighted and self.count is None else self.count
        wanted = iter(masked)
        values = {
            name: {end: with_mask(x) if next(wanted) else x for end, x in parts.items()}
            for name, parts in self.values.items()
        }
        return RowBatch(self.keys, count, values)

    def send(self, shuffle: Shuffle) -> RowBatch:
        """The rows received of all ranks, which have the same `message_flags`. Collective."""
        return self._map_columns(partial(shuffle_column, shuffle))


def shuffle_column(shuffle: Shuffle, column: Column) -> Column:
    """The rows received of a column of any kind, the same on all ranks: see `keyed.schema`. Collective."""
    if isinstance(column, np.ma.MaskedArray):
        return np.ma.MaskedArray(shuffle(column.data), shuffle(np.ma.getmaskarray(column)))
    if not isinstance(column, Text):
        return shuffle(column)
    sizes, ends = shuffle(column.sizes), np.cumsum(shuffle.counts)
    each = np.diff(column.offsets[ends], prepend=column.offsets[0])
    return Text.sized(Shuffle(shuffle.world, each)(column.data), sizes)


def scatter(column: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The rows of an array, row i at places[i]."""
    moved = np.empty(column.shape, column.dtype)
    if column.ndim == 2 and column[:1].nbytes == 8:  # eight bytes are moved as one
        moved.view(np.int64)[places] = np.ascontiguousarray(column).view(np.int64)
    else:
        moved[places] = column
    return moved
