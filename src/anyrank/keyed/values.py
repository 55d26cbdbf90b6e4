"""Columns of values with nulls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anyrank.keyed.rows import Column, concat


@dataclass(frozen=True)
class Values:
    """A column and its null mask (bool, or None without nulls). Values under the mask are 0 or empty."""

    values: Column
    nulls: np.ndarray | None = None

    def __getitem__(self, rows: Any) -> Values:
        """Return the rows that a mask or a slice selects."""
        return Values(self.values[rows], None if self.nulls is None else self.nulls[rows])

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.values.nbytes + (0 if self.nulls is None else self.nulls.nbytes)


def concat_values(parts: Sequence[Values], empty: Values) -> Values:
    """Concatenate columns of one type; `empty` is the result without parts."""
    if not parts:
        return empty
    nulls = [np.zeros(len(part.values), bool) if part.nulls is None else part.nulls for part in parts]
    any_null = any(part.nulls is not None for part in parts)
    return Values(concat([part.values for part in parts]), np.concatenate(nulls) if any_null else None)


def masked_rows(column: np.ndarray) -> np.ndarray:
    """Return which rows of a masked array are null; all elements of a row are null or none."""
    nulls = np.ma.getmaskarray(column)
    return nulls if nulls.ndim == 1 else nulls[:, 0]


def without_nulls(gids: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the group numbers and values of the rows that are not null."""
    if not isinstance(x, np.ma.MaskedArray):
        return gids, x
    kept = ~masked_rows(x)
    return gids[kept], x.data[kept]
