"""Keys of groups: the columns of a Table that stand for values of any type."""

from __future__ import annotations

from typing import Any

import numpy as np

from anyrank.keyed.rows import Column, Text
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


def _clear_nulls(column: Text, nulls: np.ndarray) -> Text:
    kept = column[~nulls]
    return Text.sized(kept.data, np.where(nulls, 0, column.sizes))
