"""The elements of Arrow arrays as text for people and for CSV."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from anyrank.keyed.rows import BROKEN
from anyrank.keyed.types import arrow, is_text


def join(*texts: Any, between: str = "") -> Any:
    """Return the concatenated elements of arrays of text, and of constant text."""
    large = arrow().large_string()
    scalars = [arrow().scalar(text, large) if isinstance(text, str) else text for text in (*texts, between)]
    return arrow("compute").binary_join_element_wise(*scalars)


def cells_of(array: Any) -> Any:
    """Return the elements of an array as text for people and for CSV: nulls are empty, times are ISO 8601.

    Floating-point numbers have the fewest digits that give the same number. Bytes that are not UTF-8 become escapes.
    """
    pa, compute = arrow(), arrow("compute")
    string, type_ = pa.large_string(), array.type
    if is_text(type_):
        try:
            text = array.cast(string)
        except pa.ArrowInvalid:
            text = pa.array([x and x.decode(errors=BROKEN) for x in array.to_pylist()], string)
    elif pa.types.is_timestamp(type_):
        text = compute.replace_substring(array.cast(pa.timestamp(type_.unit)).cast(string), " ", "T")
        text = join(text, "Z") if type_.tz else text
    elif pa.types.is_decimal(type_):
        text = array.cast(string)
        if compute.any(compute.match_substring(text, "E")).as_py():  # Arrow writes 0.0000001 as 1E-7
            text = pa.array([x and f"{Decimal(x):f}" for x in text.to_pylist()], string)
    else:
        text = array.cast(string)
    if pa.types.is_floating(type_):
        whole = compute.match_substring_regex(text, "^-?[0-9]+$")
        text = compute.if_else(whole, join(text, "0", between="."), text)
    return text.fill_null("")
