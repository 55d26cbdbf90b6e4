"""Typed columns of tables with nulls, and keys computed from columns of times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.rows import Column, Text, concat

#: A timestamp is int64 ns since 1970, UTC; a date is int64 days since 1970; text is Text; others are NumPy types.
KINDS = ("float64", "int64", "uint64", "bool", "text", "timestamp", "date")
NUMBERS = ("float64", "int64", "uint64", "bool")
#: Units per day of each kind that can hold a time; integers are Unix seconds.
DAY = {"timestamp": 86_400_000_000_000, "int64": 86_400, "uint64": 86_400, "date": 1}
FUNCTIONS = ("date", "year", "month", "hour", "weekday")


@dataclass(frozen=True)
class Values:
    """A column of one kind and its null mask (bool, or None without nulls). Values under the mask are undefined."""

    values: Column
    nulls: np.ndarray | None = None

    def __getitem__(self, rows: Any) -> Values:
        """Return the rows that a mask or a slice selects."""
        return Values(self.values[rows], None if self.nulls is None else self.nulls[rows])


def concat_values(parts: Sequence[Values], kind: str) -> Values:
    """Concatenate columns of a kind; `parts` may be empty."""
    if not parts:
        return Values(Text.of([]) if kind == "text" else np.empty(0, kind if kind in NUMBERS else np.int64))
    nulls = [np.zeros(len(part.values), bool) if part.nulls is None else part.nulls for part in parts]
    any_null = any(part.nulls is not None for part in parts)
    return Values(concat([part.values for part in parts]), np.concatenate(nulls) if any_null else None)


@dataclass(frozen=True)
class ColumnSpec:
    """A column to read, or a `function` of a column of times; `number` if its values must be numbers."""

    column: str
    function: str = ""
    number: bool = False

    @property
    def label(self) -> str:
        """The name of the result: `user`, or `date(timestamp)`."""
        return f"{self.function}({self.column})" if self.function else self.column

    def kind(self, kind: str) -> str:
        """Return the kind of the result for a column of this kind."""
        return ("date" if self.function == "date" else "int64") if self.function else kind


def parse_key(text: str) -> ColumnSpec:
    """Parse a key: `user`, or `date(timestamp)`; also year, month, hour and weekday (Monday is 0), in UTC.

    Raises UsageError if the text is not a key.
    """
    match = re.fullmatch(r"\s*(?:(\w+)\((.+)\)|([^()]+))\s*", text)
    if match is None or (match[1] and match[1] not in FUNCTIONS):
        raise UsageError(
            f"--by {text!r} is not a key. Use a column's name, or one of {', '.join(FUNCTIONS)}, such as date(time)."
        )
    return ColumnSpec((match[2] or match[3]).strip(), match[1] or "")


def time_component(function: str, kind: str, times: np.ndarray) -> np.ndarray:
    """Return a component (date, year, month, hour, weekday) of times in the unit of `kind`, in UTC: int64."""
    if function == "hour":
        return times % DAY[kind] * 24 // DAY[kind]
    days = times // DAY[kind]
    if function == "date":
        return days
    if function == "weekday":
        return (days + 3) % 7  # 1 January 1970 was a Thursday
    months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    return months % 12 + 1 if function == "month" else months // 12 + 1970


def of_numpy(array: np.ndarray) -> Values:
    """Return the values of a one-dimensional array whose kind is one of KINDS."""
    kind, nulls = kind_of(array.dtype), None
    if array.dtype.kind == "M":
        nulls = np.isnat(array) if np.isnat(array).any() else None
        return Values(array.astype("M8[D]" if kind == "date" else "M8[ns]").astype(np.int64), nulls)
    if kind != "text":
        return Values(np.ascontiguousarray(array, kind))
    if array.dtype.kind == "O":
        return Values(Text.of(array.tolist()))
    fixed = np.ascontiguousarray(np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array)
    sizes = np.char.str_len(fixed).astype(np.int64)
    data = fixed.view(np.uint8).reshape(len(fixed), fixed.itemsize)
    return Values(Text.sized(data[np.arange(fixed.itemsize) < sizes[:, None]], sizes))


def kind_of(dtype: np.dtype[Any]) -> str:
    """Return the kind of an array's elements, or the name of the dtype if it has no kind."""
    if dtype.kind in "SUO":
        return "text"
    if dtype.kind == "M":
        return "date" if np.datetime_data(dtype)[0] in "YMWD" else "timestamp"
    if dtype.kind in "iub":
        return {"i": "int64", "u": "uint64" if dtype.itemsize == 8 else "int64", "b": "bool"}[dtype.kind]
    return "float64" if dtype.kind == "f" and dtype.itemsize <= 8 else str(dtype)
