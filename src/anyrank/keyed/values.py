"""Columns of tables as they are read, and keys that are derived from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.rows import Column, Text, concat

#: A timestamp is int64 ns since 1970, UTC, a date int64 days since then; the others are NumPy's types, and Text.
KINDS = ("float64", "int64", "uint64", "bool", "text", "timestamp", "date")
NUMBERS = ("float64", "int64", "uint64", "bool")
#: What a day has of the units in which a kind tells the time; integers are Unix seconds.
DAY = {"timestamp": 86_400_000_000_000, "int64": 86_400, "uint64": 86_400, "date": 1}
FUNCTIONS = ("date", "year", "month", "hour", "weekday")


@dataclass(frozen=True)
class Values:
    """A column of one kind, and where it is null: bool, or None where it is nowhere. Values there are any."""

    values: Column
    nulls: np.ndarray | None = None

    def __getitem__(self, rows: Any) -> Values:
        """These rows: a mask or a slice."""
        return Values(self.values[rows], None if self.nulls is None else self.nulls[rows])


def concat_values(parts: Sequence[Values], kind: str) -> Values:
    """Columns of that kind, one after the other; there may be none."""
    if not parts:
        return Values(Text.of([]) if kind == "text" else np.empty(0, kind if kind in NUMBERS else np.int64))
    nulls = [np.zeros(len(one.values), bool) if one.nulls is None else one.nulls for one in parts]
    some = any(one.nulls is not None for one in parts)
    return Values(concat([one.values for one in parts]), np.concatenate(nulls) if some else None)


@dataclass(frozen=True)
class ColumnSpec:
    """A column of a table, as it is or a `function` of its time; `number` where it must be one."""

    column: str
    function: str = ""
    number: bool = False

    @property
    def label(self) -> str:
        """Its name in what is read: `user`, or `date(timestamp)`."""
        return f"{self.function}({self.column})" if self.function else self.column

    def kind(self, kind: str) -> str:
        """The kind that it has where its column has this one."""
        return ("date" if self.function == "date" else "int64") if self.function else kind


def parse_key(text: str) -> ColumnSpec:
    """What a key is: `user`, or `date(timestamp)`, likewise with year, month, hour or weekday (Monday is 0), in UTC.

    Raises UsageError where it is no such thing.
    """
    match = re.fullmatch(r"\s*(?:(\w+)\((.+)\)|([^()]+))\s*", text)
    if match is None or (match[1] and match[1] not in FUNCTIONS):
        raise UsageError(
            f"--by {text!r} is no key. Use a column's name, or one of {', '.join(FUNCTIONS)}, such as date(time)."
        )
    return ColumnSpec((match[2] or match[3]).strip(), match[1] or "")


def time_component(function: str, kind: str, times: np.ndarray) -> np.ndarray:
    """The function of times of a kind of DAY, int64: of days since 1970 in UTC, or of their hours."""
    if function == "hour":
        return times % DAY[kind] * 24 // DAY[kind]
    days = times // DAY[kind]
    if function == "date":
        return days
    if function == "weekday":
        return (days + 3) % 7  # 1970 began on a Thursday
    months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    return months % 12 + 1 if function == "month" else months // 12 + 1970


def of_numpy(array: np.ndarray) -> Values:
    """The values of an array of one axis whose type `kind_of` knows."""
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
    """The kind of an array's elements; the type's own name where it is none of KINDS."""
    if dtype.kind in "SUO":
        return "text"
    if dtype.kind == "M":
        return "date" if np.datetime_data(dtype)[0] in "YMWD" else "timestamp"
    if dtype.kind in "iub":
        return {"i": "int64", "u": "uint64" if dtype.itemsize == 8 else "int64", "b": "bool"}[dtype.kind]
    return "float64" if dtype.kind == "f" and dtype.itemsize <= 8 else str(dtype)
