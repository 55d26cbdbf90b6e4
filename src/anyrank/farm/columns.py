"""Values of tasks as columns: their kinds, Arrow arrays for the kinds of all ranks, digests, and values for JSON."""

from __future__ import annotations

import base64
import json
import math
import pickle
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from anyrank.farm.worker import text_of
from anyrank.keyed.types import arrow
from anyrank.numerics.digest import local_digest

#: The column of values that are not mappings.
VALUE = "value"
#: Columns of the results. If the table has one of these, its column is `input_NAME`, and of a result `result_NAME`.
OWN = ("task", "id", "status", "failure")
#: Types that a column may have; values of others are converted by `plain`.
_PLAIN = {int, float, str, bool, type(None)}
#: Bits of integers that Python writes as decimal numbers whatever its limit of digits is.
_SHORT = 2000


def plain(value: Any, finite: bool = True) -> Any:
    """Return a value for JSON: numbers, texts, lists and mappings; anything else as {"pickle": base64}.

    Complex numbers, decimals, dates, paths and bytes become texts. With `finite`, so do infinities and NaN, which JSON
    has no numbers for. The order of a set differs from process to process: it becomes a sorted list.
    """
    if value is None or isinstance(value, str | bool) or (isinstance(value, int) and _is_short(value)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) or not finite else str(value)  # also of numpy.float64
    if isinstance(value, complex):
        return str(value).strip("()")  # complex() reads it
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biufcSU" and value.dtype.char not in "gG":
        return plain(value.tolist(), finite)
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind == "M":
        return np.datetime_as_string(value).tolist()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(element, finite) for element in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(element, finite) for element in value), key=_order)
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: plain(element, finite) for name, element in value.items()}
    if isinstance(value, bytes | bytearray):
        return value.decode(errors="backslashreplace")
    if hasattr(value, "isoformat") or isinstance(value, Path):  # dates and times
        return value.isoformat() if hasattr(value, "isoformat") else str(value)
    return {"pickle": base64.b64encode(pickle.dumps(value, 5)).decode()}


def _is_short(value: int) -> bool:
    """Return whether an integer can be written as a decimal number: Python has a limit, usually of 4300 digits."""
    if value.bit_length() > _SHORT:
        try:
            int.__repr__(value)
        except ValueError:
            return False
    return True


def _order(value: Any) -> tuple[int, Any]:
    """Return a key that sorts plain values of any types: numbers, texts, lists, and others by their JSON text."""
    if isinstance(value, int | float) and value == value:
        return 0, value
    if isinstance(value, str):
        return 1, value
    return (2, [*map(_order, value)]) if isinstance(value, list) else (3, json.dumps(value))


def plain_column(column: list[Any]) -> list[Any]:
    """Return a column in which all values are numbers, texts or what JSON has."""
    types = {*map(type, column)}
    numbers = column if types == {int} else [x for x in column if type(x) is int] if int in types else []
    if types <= _PLAIN and max(map(int.bit_length, numbers), default=0) <= _SHORT:
        return column
    return [described(value, False) for value in column]


def described(value: Any, finite: bool = True) -> Any:
    """Return a value for JSON; one that cannot be converted, such as a list that contains itself, is described."""
    try:
        return plain(value, finite)
    except (Exception, SystemExit) as error:  # classes of users may raise anything
        return f"cannot be written: {text_of(error)}"


def read_outcome(body: bytes) -> tuple[Any, ...]:
    """Return the fields of an encoded outcome; a value that cannot be read back is described instead."""
    try:
        return pickle.loads(body)  # type: ignore[no-any-return]
    except (Exception, SystemExit) as error:
        return (f"cannot be read back: {text_of(error)}",)


def name_columns(names: Iterable[str], prefix: str, others: Iterable[str]) -> dict[str, str]:
    """Return the name in the results of each column: with a prefix, or several, if another column has its name.

    A name depends on those before it only, so that it stays when columns are added. What UTF-8 does not have becomes
    escapes.
    """
    named: dict[str, str] = {}
    taken = {*others}
    for name in names:
        new = name.encode(errors="backslashreplace").decode()
        while new in taken:
            new = prefix + new
        named[name] = new
        taken.add(new)
    return named


def columns_of(values: list[Any], done: Sequence[bool]) -> dict[str, list[Any]]:
    """Return values as columns: those of dicts with texts as keys by name, all others of tasks that are done in one."""
    columns: dict[str, list[Any]] = {}
    if dict not in {*map(type, values)}:
        return {VALUE: values} if any(done) else {}
    for row, (value, is_done) in enumerate(zip(values, done, strict=True)):
        named = type(value) is dict and all(isinstance(name, str) for name in value)
        for name, cell in (value if named else {VALUE: value} if is_done else {}).items():
            columns.setdefault(name, [None] * len(values))[row] = cell
    return columns


def kinds_of(column: list[Any]) -> set[str]:
    """Return the kinds of the values of a column; `large` integers are not exact as float64."""
    types = {*map(type, column)} - {type(None)}
    kinds = {"bool" if type_ is bool else "float" if type_ is float else "text" for type_ in types - {int}}
    if int in types:
        numbers = column if types == {int} and None not in column else [x for x in column if type(x) is int]
        largest = max(max(numbers), -min(numbers))
        kinds.add("int" if largest <= 2**53 else "large" if largest < 2**63 else "text")
    return kinds


def array_of(values: list[Any], kinds: set[str]) -> Any:
    """Return values as an Arrow array of the type for the kinds of all ranks: int64, bool, float64 or text."""
    pa = arrow()
    if kinds <= {"int", "large"}:
        return pa.array(values, pa.int64())
    if kinds == {"bool"}:
        return pa.array(values, pa.bool_())
    if kinds <= {"int", "float"}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return texts_of([value if value is None or isinstance(value, str) else json.dumps(value) for value in values])


def texts_of(texts: list[str | None]) -> Any:
    """Return texts as an Arrow array; what UTF-8 does not have becomes escapes."""
    pa = arrow()
    try:
        return pa.array(texts, pa.large_string())
    except ValueError:  # surrogates
        return pa.array([text and text.encode(errors="backslashreplace").decode() for text in texts], pa.large_string())


def digest_of(name: str, array: Any, first: int) -> int:
    """Return the digest of a column: the sum over its rows, so that it does not depend on how they are divided."""
    key = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") | 1
    pa, rows = arrow(), len(array)
    if pa.types.is_large_string(array.type):
        texts = enumerate(array.to_pylist(), first)
        hashes = (blake2b(f"{row} {text}".encode(), digest_size=8).digest() for row, text in texts if text is not None)
        return key * sum(int.from_bytes(part, "little") for part in hashes) % 2**64
    nulls = array.is_null().to_numpy(zero_copy_only=False)
    values = array.fill_null(False if pa.types.is_boolean(array.type) else 0).to_numpy(zero_copy_only=False)
    shape, offset = (max(1, first + rows),), (first,)
    return key * (local_digest(values, shape, offset) + 3 * local_digest(nulls, shape, offset)) % 2**64


def line_of(row: dict[str, Any]) -> bytes:
    """Return a row as a line of JSON; what is None is left out, except a value."""
    kept = {name: described(cell) for name, cell in row.items() if cell is not None or name == VALUE}
    return json.dumps(kept).encode() + b"\n"
