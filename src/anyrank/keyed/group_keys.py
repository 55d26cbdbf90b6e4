"""Keys of groups: the columns of a Table that stand for values of any type."""

from __future__ import annotations

from typing import Any

import numpy as np

from anyrank.keyed.rows import Column, Columns, Text
from anyrank.keyed.types import is_wide, name_of
from anyrank.keyed.values import Values

#: The types of a Table's keys by the type of the values; all others are int64.
_KINDS = {"text": "text", "bool": "uint8", "float64": "float64", "uint64": "uint64"}


def key_kinds(name: str, type_: Any) -> dict[str, str]:
    """Return the key columns for values of a type, with their types: NAME, and NAME_low for a second word."""
    return {name: _KINDS.get(name_of(type_), "int64")} | ({f"{name}_low": "uint64"} if is_wide(type_) else {})


def key_columns(values: Values) -> tuple[list[Column], np.ndarray]:
    """Return the key columns, with one representation of null, NaN and zero, and the null mask as uint8."""
    column, nulls = values.values, values.nulls
    mask = np.zeros(len(column), np.uint8) if nulls is None else nulls.astype(np.uint8)
    if isinstance(column, Text):
        return [column if nulls is None or not column.sizes[nulls].any() else _clear_nulls(column, nulls)], mask
    if column.dtype.kind == "f":
        column = np.where(column == column, column + 0.0, np.nan)
    if nulls is not None:
        column = np.where(nulls if column.ndim == 1 else nulls[:, None], np.zeros(1, column.dtype), column)
    if column.ndim == 1:
        return [column], mask
    return [np.ascontiguousarray(column[:, 1]), np.ascontiguousarray(column[:, 0]).view(np.uint64)], mask


def sort_columns(name: str, values: Values) -> Columns:
    """Return columns that sort like values: first the one that places NaN and then null last in either order."""
    column, nulls = values.values, values.nulls
    rank = np.zeros(len(column), np.int32) if nulls is None else 2 * nulls.astype(np.int32)
    if isinstance(column, Text):
        return {f"{name}_rank": rank, name: column}
    if column.dtype.kind == "f":
        rank = np.where((column != column) & (rank == 0), np.int32(1), rank)
    column = np.where(rank[:, None] > 0 if column.ndim > 1 else rank > 0, np.zeros(1, column.dtype), column)
    column = column.astype(np.int64) if column.dtype.itemsize == 1 else column
    if column.ndim == 1:
        return {f"{name}_rank": rank, name: column}
    low = np.ascontiguousarray(column[:, 0]).view(np.uint64)
    return {f"{name}_rank": rank, name: np.ascontiguousarray(column[:, 1]), f"{name}_low": low}


def _clear_nulls(column: Text, nulls: np.ndarray) -> Text:
    kept = column[~nulls]
    return Text.sized(kept.data, np.where(nulls, 0, column.sizes))
