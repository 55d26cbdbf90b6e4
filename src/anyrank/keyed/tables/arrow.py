"""Convert Arrow arrays to columns, and text to numbers and times with Arrow."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.rows import Text
from anyrank.keyed.values import Values

#: The last second of the year 9999; a larger integer is an error, probably milliseconds.
_LATEST = 253_402_300_799


def arrow(module: str = "") -> Any:
    """Return pyarrow or one of its modules. Raises UsageError if it is not installed."""
    try:
        return importlib.import_module(f"pyarrow.{module}" if module else "pyarrow")
    except ImportError as error:
        raise UsageError(
            f"tables need pyarrow, which cannot be imported ({error}). pip install 'anyrank[tables]'"
        ) from None


def kind_of(type_: Any) -> str:
    """Return the kind of an Arrow type: `null` for a column of nulls only, the type's name if it has no kind."""
    types = arrow().types
    if types.is_dictionary(type_):
        return kind_of(type_.value_type)
    tests = {
        "bool": types.is_boolean,
        "uint64": types.is_uint64,
        "int64": types.is_integer,
        "float64": lambda t: types.is_floating(t) or types.is_decimal(t),
        "text": lambda t: t in _texts(),
        "timestamp": types.is_timestamp,
        "date": types.is_date,
    }
    return next((kind for kind, test in tests.items() if test(type_)), str(type_))


def of_arrow(array: Any, kind: str) -> Values:
    """Convert an array or chunked array to values of a kind to which its type can be cast."""
    pa = arrow()
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    nulls = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    if kind == "text":
        return Values(text_of(array), nulls)
    if kind == "date":
        array = array.cast(pa.date32()).cast(pa.int32())
    if kind == "timestamp":
        array = array.cast(pa.timestamp("ns", array.type.tz))
    array = array.cast(getattr(pa, {"bool": "bool_", "date": "int64", "timestamp": "int64"}.get(kind, kind))())
    return Values(
        (array.fill_null(False if kind == "bool" else 0) if nulls is not None else array).to_numpy(False), nulls
    )


def text_of(array: Any) -> Text:
    """Convert an Arrow array of text or bytes to a Text; nulls become empty."""
    array = array.cast(arrow().large_binary())
    array = array.fill_null(b"") if array.null_count else array
    if not len(array):
        return Text.of([])
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return Text(content[ends[0] : ends[-1]], ends - ends[0])


def times_of(values: Values, kind: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the times of a column and a mask of invalid rows (None if all are valid).

    Text must be ISO 8601, in UTC unless it ends in Z or an offset, and becomes ns. Integers are Unix seconds. Units
    of other kinds are those of DAY.
    """
    if isinstance(values.values, Text):
        bad = np.zeros(len(values.values), bool)
        times = np.zeros(len(bad), np.int64)
        zoned = _zoned(values.values)
        for rows, zone in ((~zoned, None), (zoned, "UTC")):
            if rows.any():
                texts = values.values if rows.all() else values.values[rows]
                times[rows], bad[rows] = cast_rows(_array(texts), arrow().timestamp("ns", zone))
    else:
        bad = np.zeros(0, bool)
        if kind in ("int64", "uint64"):
            bad = values.values > _LATEST
            if kind == "int64":
                bad |= values.values < -_LATEST
        times = values.values.astype(np.int64)
    if values.nulls is not None and len(bad):
        bad &= ~values.nulls
    return times, bad if bad.any() else None


def cast_rows(array: Any, type_: Any) -> tuple[np.ndarray, np.ndarray]:
    """Cast elements to a 64-bit type or bool (0 where null), and return a mask of elements that cannot be cast.

    Arrow does not report which elements fail, so the halves of an array that fails are cast recursively.
    """
    pa = arrow()
    try:
        values = array.cast(type_)
        values = values.cast(pa.int64()) if pa.types.is_timestamp(type_) else values
        return values.fill_null(False if pa.types.is_boolean(type_) else 0).to_numpy(False), np.zeros(len(array), bool)
    except pa.ArrowInvalid:
        if len(array) == 1:
            return np.zeros(1, bool), np.ones(1, bool)
    half = len(array) // 2
    (low, bad), (high, worse) = cast_rows(array[:half], type_), cast_rows(array[half:], type_)
    return np.concatenate([low, high]), np.concatenate([bad, worse])


def _texts() -> tuple[Any, ...]:
    pa = arrow()
    return pa.string(), pa.large_string(), pa.binary(), pa.large_binary()


def _array(text: Text) -> Any:
    pa = arrow()
    data = np.ascontiguousarray(text.data)
    return pa.LargeStringArray.from_buffers(len(text), pa.py_buffer(text.offsets), pa.py_buffer(data))


def _zoned(text: Text) -> np.ndarray:
    """Return which times end in Z or an offset: +01:00, +0100 or +01. The shortest such time has 14 bytes."""
    zoned = np.zeros(len(text), bool)
    rows = np.flatnonzero(text.sizes > 13)
    ends = text.offsets[1:][rows]
    for back, signs in ((1, b"Z"), (3, b"+-"), (5, b"+-"), (6, b"+-")):
        byte = text.data[ends - back]
        for sign in signs:
            zoned[rows] |= byte == sign
    return zoned
