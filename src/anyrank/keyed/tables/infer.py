"""Infer the types of columns of text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from anyrank.keyed.tables.dialect import Dialect
from anyrank.keyed.types import arrow

#: The types that are inferred; the first one that all values may have is used, or else text.
INFERRED: dict[str, Callable[[], Any]] = {
    "int64": lambda: arrow().int64(),
    "uint64": lambda: arrow().uint64(),
    "decimal": lambda: arrow().decimal128(38, 0),
    "float64": lambda: arrow().float64(),
    "bool": lambda: arrow().bool_(),
    "date": lambda: arrow().date32(),
    "timestamp": lambda: arrow().timestamp("us"),
    "timestamp_utc": lambda: arrow().timestamp("us", "UTC"),
    "timestamp_ns": lambda: arrow().timestamp("ns"),
}
_FIRST = 100
_TIMES = "date", "timestamp", "timestamp_utc", "timestamp_ns"
#: Integers and numbers in the usual notation, integers that float64 may not represent, and digits of any notation.
_INTEGER = r"^(0|-?[1-9][0-9]{0,37})$"
_NUMBER = r"^(-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?|nan|NaN|-?inf)$"
_LONG = r"^-?[0-9]{16,}$"
_DIGITS = r"^[-+]?[0-9]{1,38}$"
_WORDS = "true", "false", "True", "False", "TRUE", "FALSE"


def likely_type(role: str, known: frozenset[str] | None) -> Any:
    """Return the type in which values can be read to find their possible types; text if they must be seen as written.

    Reading numbers as numbers takes a third of the time of reading text and converting it.
    """
    if role != "key" and (known is None or "int64" in known):
        return arrow().int64()
    return arrow().float64() if role != "key" and known == frozenset({"float64"}) else arrow().large_binary()


def possible_types(
    column: Any, role: str, dialect: Dialect, known: frozenset[str] | None = None
) -> frozenset[str] | None:
    """Return the types that all values of a column of text may have: names of INFERRED. None without values.

    The types that all rows may have are the intersection of those that parts of the rows may have, so the result does
    not depend on how rows are divided.

    Parameters
    ----------
    column : Arrow array
        Some rows: text, or values of the `likely_type` to which all of the text could be converted.
    role : str
        `key`: values stay as written, so a column is only then a column of numbers if all are written in the usual way:
        no leading zeros, no sign +, no hexadecimal digits. Anything else is text, also times, true and false.
        `number`, `operand`: any notation that is a number, also of more than 64 bits; times, if all values are times.
        `time`: numbers are Unix seconds; anything else is text that `times_of` reads.
    dialect : Dialect
        The dialect of the file.
    known : frozenset of str, optional
        The types that other rows may have; no others are tried, because a conversion that fails is slow.
    """
    pa, compute = arrow(), arrow("compute")
    tried = frozenset(INFERRED) if known is None else known
    if pa.types.is_floating(column.type):
        return known
    if pa.types.is_integer(column.type):
        values = column.drop_null()
        return tried & _types_of_integers(values, role) if len(values) else known
    try:
        text = column.cast(pa.large_string())
    except pa.ArrowInvalid:
        return frozenset()
    if role != "key":
        text = compute.utf8_trim_whitespace(text)
    text = text.filter(compute.invert(compute.is_in(text, pa.array(dialect.options.nulls, text.type))))
    if not len(text):
        return known
    if dialect.options.decimal != ".":
        text = compute.replace_substring(compute.replace_substring(text, ".", "?"), dialect.options.decimal, ".")
    values = _cast(text, pa.int64()) if "int64" in tried else None
    if values is not None and (role != "key" or compute.all(compute.equal(values.cast(text.type), text)).as_py()):
        return tried & _types_of_integers(values, role)
    tests: dict[str, Callable[[], bool]] = {}
    if role == "key":
        tests["decimal"] = lambda: _all_match(text, _INTEGER)
        tests["uint64"] = lambda: _all_match(text, _INTEGER) and _fits(text, pa.uint64())
        tests["float64"] = lambda: _all_match(text, _NUMBER) and not _any_match(text, _LONG)
    else:
        tests |= {name: lambda name=name: _fits(text, INFERRED[name]()) for name in ("uint64", "float64")}  # type: ignore[misc]
    if role in ("number", "operand"):
        tests["decimal"] = lambda: _all_match(text, _DIGITS)
        tests["bool"] = lambda: bool(compute.all(compute.is_in(text, pa.array(_WORDS, text.type))).as_py())
        tests |= {name: lambda name=name: _fits(text, INFERRED[name]()) for name in _TIMES}  # type: ignore[misc]
    return frozenset(name for name, test in tests.items() if name in tried and test())


def _types_of_integers(values: Any, role: str) -> frozenset[str]:
    """Return the types that these int64 may have."""
    extremes = arrow("compute").min_max(values).as_py()
    found = {"int64", "float64"} | ({"decimal"} if role != "time" else set())
    if extremes["min"] >= 0:
        found.add("uint64")
    if role == "key" and max(extremes["max"], -extremes["min"]) >= 10**15:
        found.discard("float64")
    return frozenset(found)


def inferred_type(parts: Iterable[frozenset[str] | None]) -> Any:
    """Return the type of a column, given the types that parts of its rows may have."""
    sets = [part for part in parts if part is not None]
    if not sets:
        return arrow().null()
    common = frozenset.intersection(*sets)
    return next((type_() for name, type_ in INFERRED.items() if name in common), arrow().large_binary())


def _all_match(text: Any, pattern: str) -> bool:
    compute = arrow("compute")
    return bool(compute.all(compute.match_substring_regex(text, pattern)).as_py())


def _any_match(text: Any, pattern: str) -> bool:
    compute = arrow("compute")
    return bool(compute.any(compute.match_substring_regex(text, pattern)).as_py())


def _fits(text: Any, type_: Any) -> bool:
    return _cast(text, type_) is not None


def _cast(text: Any, type_: Any) -> Any:
    try:
        text[:_FIRST].cast(type_)  # a conversion that fails takes long for each value
        return text.cast(type_)
    except arrow().ArrowInvalid:
        return None
