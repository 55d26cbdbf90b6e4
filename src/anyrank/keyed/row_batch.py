"""A batch of Table rows: select, reorder and send it to other ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from anyrank.exchange.shuffle import Shuffle
from anyrank.keyed.keymap import Partition
from anyrank.keyed.rows import Column, Text
from anyrank.keyed.schema import with_mask


@dataclass
class RowBatch:
    """A batch of rows: keys as bytes, weights (None: 1 each), and the arrays of every value."""

    keys: Text | np.ndarray
    count: np.ndarray | None
    values: dict[str, dict[str, np.ndarray]]

    def __len__(self) -> int:
        return len(self.keys)

    def _map_columns(self, change: Callable[[Any], Any]) -> RowBatch:
        values = {name: {suffix: change(x) for suffix, x in parts.items()} for name, parts in self.values.items()}
        return RowBatch(change(self.keys), None if self.count is None else change(self.count), values)

    def take(self, rows: Any) -> RowBatch:
        """Return the rows that a slice, a mask or an array of row numbers selects."""
        return self._map_columns(lambda column: column[rows])

    def reorder(self, partition: Partition) -> RowBatch:
        """Return the rows in the order of a partition."""

        def move(column: Any) -> Any:
            moved = isinstance(column, np.ndarray) and not isinstance(column, np.ma.MaskedArray)
            return partition.move(column) if moved else column[partition.order]

        return self._map_columns(move)

    @property
    def message_flags(self) -> np.ndarray:
        """Flags that decide the number of messages: 1 if there are weights, and 1 for each value with a mask."""
        masked = [isinstance(x, np.ma.MaskedArray) for parts in self.values.values() for x in parts.values()]
        return np.array([self.count is not None, *masked], np.int64)

    def with_message_flags(self, message_flags: np.ndarray) -> RowBatch:
        """Return the same rows with weights and masks added where a flag is set."""
        weighted, *masked = map(bool, message_flags)
        count = np.ones(len(self), np.int64) if weighted and self.count is None else self.count
        add_mask = iter(masked)
        values = {
            name: {suffix: with_mask(x) if next(add_mask) else x for suffix, x in parts.items()}
            for name, parts in self.values.items()
        }
        return RowBatch(self.keys, count, values)

    def send(self, shuffle: Shuffle) -> RowBatch:
        """Send the rows and return the rows received; `message_flags` must be equal on all ranks. Collective."""
        return self._map_columns(partial(shuffle_column, shuffle))


def shuffle_column(shuffle: Shuffle, column: Column) -> Column:
    """Send a column and return the rows received. Its type must be equal on all ranks, see `schema`. Collective."""
    if isinstance(column, np.ma.MaskedArray):
        return np.ma.MaskedArray(shuffle(column.data), shuffle(np.ma.getmaskarray(column)))
    if not isinstance(column, Text):
        return shuffle(column)
    sizes, ends = shuffle(column.sizes), np.cumsum(shuffle.counts)
    bytes_per_rank = np.diff(column.offsets[ends], prepend=column.offsets[0])
    return Text.sized(Shuffle(shuffle.world, bytes_per_rank)(column.data), sizes)
