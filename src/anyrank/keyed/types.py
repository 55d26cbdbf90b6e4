"""Types of columns: those of Arrow, reduced to a few, and the NumPy arrays that hold their values.

| type | array |
|---|---|
| float64, int64, uint64, bool | of this dtype |
| text | `Text`; its bytes may be any |
| timestamp, duration, time of a unit; date | int64 in this unit since 1970 in UTC, since midnight, or in days |
| decimal(18, s) | int64: the number times 10^s |
| decimal(38, s) | int64, shape (n, 2): the lower and upper word of the number times 10^s |

A column has the same type in all files and on all ranks.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.rows import Text
from anyrank.keyed.values import Values

#: Digits of decimals that fit into int64, and of those that Arrow's decimal128 has.
NARROW, WIDE = 18, 38
_UNITS = ("s", "ms", "us", "ns")
#: The names that differ from Arrow's.
_NAMES = {"double": "float64", "large_binary": "text", "date32[day]": "date"}
_INTEGER_DIGITS = {"int64": 19, "uint64": 20}


def arrow(module: str = "") -> Any:
    """Return pyarrow or one of its modules. It is imported on first use, because that takes a tenth of a second."""
    return importlib.import_module(f"pyarrow.{module}" if module else "pyarrow")


def name_of(type_: Any) -> str:
    """Return the name of a type for users: `float64`, `decimal(18, 2)`, `timestamp[us, tz=UTC]`."""
    return _NAMES.get(str(type_), str(type_).replace("decimal128", "decimal").replace("time64", "time"))


def parse_type(text: str) -> Any:
    """Return the type that a user named, such as `float64`, `decimal(10,2)` or `timestamp`.

    Raises UsageError if it is not the name of a type.
    """
    pa = arrow()
    known = {
        "float64": pa.float64(),
        "int64": pa.int64(),
        "uint64": pa.uint64(),
        "bool": pa.bool_(),
        "text": pa.large_binary(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us"),
        "timestamp_utc": pa.timestamp("us", "UTC"),
        **{f"timestamp[{unit}]": pa.timestamp(unit) for unit in _UNITS},
    }
    if match := re.fullmatch(r"decimal\(\s*(\d+)\s*,\s*(\d+)\s*\)", text):
        digits, scale = map(int, match.groups())
        if 1 <= digits <= WIDE and scale <= digits:
            return _decimal(digits, scale)
    if text not in known:
        raise UsageError(f"type {text!r} must be one of {', '.join(known)}, or decimal(DIGITS,SCALE), such as (10,2).")
    return known[text]


def canonical(type_: Any) -> Any:
    """Return the type of this module that has all values of an Arrow type, or None if there is none."""
    pa, t = arrow(), arrow().types
    if t.is_dictionary(type_) or t.is_run_end_encoded(type_):
        return canonical(type_.value_type)
    if t.is_decimal(type_):
        digits, scale = max(type_.precision - min(type_.scale, 0), type_.scale), max(type_.scale, 0)
        return _decimal(digits, scale) if digits <= WIDE else None
    if t.is_timestamp(type_):
        return pa.timestamp(type_.unit, type_.tz and "UTC")
    if t.is_time(type_):
        return pa.time64("ns" if type_.unit == "ns" else "us")
    if t.is_null(type_) or t.is_boolean(type_) or t.is_uint64(type_) or t.is_duration(type_):
        return type_
    texts = "string", "large_string", "string_view", "binary", "large_binary", "binary_view", "fixed_size_binary"
    if any(getattr(t, f"is_{name}")(type_) for name in texts if hasattr(t, f"is_{name}")):
        return pa.large_binary()
    if t.is_integer(type_):
        return pa.int64()
    if t.is_floating(type_):
        return pa.float64()
    return pa.date32() if t.is_date(type_) else None


def _decimal(digits: int, scale: int) -> Any:
    return arrow().decimal128(NARROW if digits <= NARROW else WIDE, scale)


def unify(first: Any, second: Any, numbers: bool = False) -> Any:
    """Return the type that has all values of two types, or None if there is none.

    `numbers`: also join integers, decimals and floating-point numbers to float64.
    """
    pa, t = arrow(), arrow().types
    if first == second or t.is_null(second):
        return first
    if t.is_null(first):
        return second
    exact = [_digits(type_) for type_ in (first, second)]
    if None not in exact:
        scale = max(digits[1] for digits in exact if digits)
        whole = max(digits[0] - digits[1] for digits in exact if digits)
        return _decimal(whole + scale, scale) if whole + scale <= WIDE else None
    if numbers and all(t.is_floating(type_) or _digits(type_) for type_ in (first, second)):
        return pa.float64()
    for kind in (t.is_timestamp, t.is_duration, t.is_time):
        if kind(first) and kind(second) and getattr(first, "tz", None) == getattr(second, "tz", None):
            return max(first, second, key=lambda type_: _UNITS.index(type_.unit))
    return None


def _digits(type_: Any) -> tuple[int, int] | None:
    """Return the digits and the scale of a type of exact numbers."""
    if arrow().types.is_decimal(type_):
        return type_.precision, type_.scale
    return (_INTEGER_DIGITS[str(type_)], 0) if str(type_) in _INTEGER_DIGITS else None


def is_number(type_: Any) -> bool:
    """Return whether sums and means of a type exist."""
    t = arrow().types
    return bool(t.is_boolean(type_) or t.is_floating(type_) or _digits(type_) is not None)


def is_text(type_: Any) -> bool:
    """Return whether a type is text."""
    return bool(arrow().types.is_large_binary(type_))


def is_time(type_: Any) -> bool:
    """Return whether a type is a point in time: a timestamp or a date."""
    t = arrow().types
    return bool(t.is_timestamp(type_) or t.is_date(type_))


def is_wide(type_: Any) -> bool:
    """Return whether a type is a decimal of two words."""
    return bool(arrow().types.is_decimal(type_) and type_.precision > NARROW)


def to_type(array: Any, type_: Any) -> Any:
    """Convert an array or chunked array to an array of a type; numbers that are times remain numbers: see `to_times`.

    Raises an ArrowInvalid if a value does not fit.
    """
    pa = arrow()
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_run_end_encoded(array.type):
        array = arrow("compute").run_end_decode(array)
    if pa.types.is_timestamp(array.type) and array.type.tz:
        array = array.cast(pa.timestamp(array.type.unit, "UTC"))
    if pa.types.is_fixed_size_binary(array.type):
        array = array.cast(pa.binary())
    is_count = pa.types.is_timestamp(type_) and (pa.types.is_floating(array.type) or pa.types.is_integer(array.type))
    return array if array.type == type_ or is_count else array.cast(type_)


def to_times(numbers: Any, type_: Any) -> tuple[Any, np.ndarray]:
    """Convert numbers of a time unit to timestamps, rounded down, and return a mask of numbers that are not times."""
    pa, compute = arrow(), arrow("compute")
    if pa.types.is_floating(numbers.type):
        numbers = compute.floor(numbers.cast(pa.float64()))
        fits = compute.and_(compute.greater_equal(numbers, -(2.0**63)), compute.less(numbers, 2.0**63))
        numbers = compute.if_else(fits, numbers, pa.scalar(None, numbers.type))
        wrong = compute.invert(fits).fill_null(False)
    elif pa.types.is_uint64(numbers.type):
        wrong = compute.greater(numbers, pa.scalar(2**63 - 1, pa.uint64())).fill_null(False)
        numbers = compute.if_else(wrong, pa.scalar(None, numbers.type), numbers)
    else:
        wrong = pa.repeat(False, len(numbers))
    return numbers.cast(pa.int64()).cast(type_), wrong.to_numpy(zero_copy_only=False)


def to_stored(array: Any, type_: Any) -> Any:
    """Convert an array of a type of this module to the type that its values had in a file."""
    pa = arrow()
    if pa.types.is_dictionary(type_):
        return to_stored(array, type_.value_type).dictionary_encode().cast(type_)
    return (array.cast(pa.binary()) if pa.types.is_fixed_size_binary(type_) else array).cast(type_)


def is_restorable(type_: Any, stored: Any) -> bool:
    """Return whether `to_stored` converts a type of this module to a stored type."""
    try:
        return bool(to_stored(arrow().nulls(1, type_), stored).type == stored)
    except (arrow().ArrowNotImplementedError, arrow().ArrowInvalid):
        return False


def values_of(array: Any, type_: Any) -> Values:
    """Convert an array of a type to NumPy; values under the null mask are 0 or empty."""
    pa = arrow()
    nulls = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    if is_text(type_):
        return Values(text_of(array), nulls)
    if pa.types.is_decimal(type_):
        words = np.frombuffer(array.buffers()[1] or b"", np.int64).reshape(-1, 2)[array.offset :][: len(array)]
        if nulls is not None:
            words = np.where(nulls[:, None], 0, words)
        return Values(words if is_wide(type_) else np.ascontiguousarray(words[:, 0]), nulls)
    if pa.types.is_date(type_):
        array = array.cast(pa.int32())
    if not (pa.types.is_floating(type_) or pa.types.is_boolean(type_) or pa.types.is_uint64(type_)):
        array = array.cast(pa.int64())
    zero = False if pa.types.is_boolean(type_) else 0
    return Values((array.fill_null(zero) if nulls is not None else array).to_numpy(zero_copy_only=False), nulls)


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


def array_of(values: Any, nulls: np.ndarray | None, type_: Any) -> Any:
    """Convert NumPy values, as `values_of` returns them, to an Arrow array of a type."""
    pa = arrow()
    if isinstance(values, Text):
        data, offsets = np.ascontiguousarray(values.data), np.ascontiguousarray(values.offsets)
        buffers = [_bitmap(nulls), pa.py_buffer(offsets), pa.py_buffer(data)]
        return pa.Array.from_buffers(pa.large_binary(), len(values), buffers)
    if pa.types.is_decimal(type_):
        low = values if values.ndim == 1 else values[:, 0]
        words = np.stack([low, low >> 63 if values.ndim == 1 else values[:, 1]], axis=1)
        return pa.Array.from_buffers(type_, len(values), [_bitmap(nulls), pa.py_buffer(np.ascontiguousarray(words))])
    if pa.types.is_date(type_):
        return pa.array(values.astype(np.int32), pa.int32(), mask=nulls).cast(type_)
    if pa.types.is_boolean(type_):
        return pa.array(np.asarray(values, bool), mask=nulls)
    array = pa.array(np.ascontiguousarray(values), mask=nulls)
    return array if array.type == type_ else array.cast(pa.int64()).cast(type_)


def _bitmap(nulls: np.ndarray | None) -> Any:
    if nulls is None:
        return None
    return arrow().py_buffer(np.packbits(~np.asarray(nulls, bool), bitorder="little"))


def cast_rows(array: Any, type_: Any) -> tuple[Any, np.ndarray]:
    """Cast elements to a type, to null where that is impossible, and return a mask of these elements.

    Arrow does not report which elements fail, so the halves of an array that fails are cast recursively.
    """
    pa = arrow()
    try:
        return array.cast(type_), np.zeros(len(array), bool)
    except pa.ArrowInvalid:
        if len(array) == 1:
            return pa.nulls(1, type_), np.ones(1, bool)
    half = len(array) // 2
    (low, bad), (high, worse) = cast_rows(array[:half], type_), cast_rows(array[half:], type_)
    return pa.concat_arrays([low, high]), np.concatenate([bad, worse])


def joined(parts: Sequence[Any], type_: Any) -> Any:
    """Concatenate arrays of a type; `parts` may be empty."""
    return arrow().concat_arrays(parts) if parts else arrow().array([], type_)
