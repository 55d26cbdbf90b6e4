"""Columns to read: a column of the files, or a function of a column of times."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from anyrank.errors import UsageError
from anyrank.keyed.tables.times import FUNCTIONS, is_time_like, type_of
from anyrank.keyed.types import arrow, is_number, name_of


@dataclass(frozen=True)
class ColumnSpec:
    """A column to read, or a `function` of a column of times, and what its values are for.

    Parameters
    ----------
    column : str
        The name of the column.
    function : str
        `date`, `year`, `month`, `day`, `hour`, `minute` or `weekday`; empty: the column itself.
    role : str
        `key`: values of CSV stay as written; `number`: values to add; `value`: values to compare; `operand`: of an
        expression; or `any`.

    Examples
    --------
    >>> keyed.ColumnSpec("time", "date").label
    'date(time)'
    """

    column: str
    function: str = ""
    role: str = "key"

    @property
    def label(self) -> str:
        """The name of the result: `user`, or `date(timestamp)`."""
        return f"{self.function}({self.column})" if self.function else self.column

    @property
    def inferred_as(self) -> str:
        """The role for `possible_types`: `key`, `number`, `operand`, `time`, or empty if any type will do."""
        if self.function:
            return "time"
        return {"value": "number", "any": ""}.get(self.role, self.role)

    def type(self, type_: Any, fix: str = "") -> Any:
        """Return the type of the result for a column of a type. Not collective.

        Parameters
        ----------
        type_ : Arrow type
            The type of the column; for an unsupported type, its name.
        fix : str
            The flag that would make numbers of the column's text; empty: none would.

        Raises
        ------
        UsageError
            If the function or the role does not fit the type.
        """
        t = arrow().types
        if isinstance(type_, str):
            why = "occurs several times" if type_ == "duplicated" else f"is {type_}, which cannot be read"
            raise UsageError(f"column {self.column!r} {why}. Use another column.")
        if self.function and not is_time_like(type_):
            raise UsageError(
                f"{self.label}: column {self.column!r} is {name_of(type_)}, not a time. Use times, ISO 8601 or Unix "
                "seconds."
            )
        if self.role == "number" and not is_number(type_):
            raise self._refusal(type_, "numbers to be added", fix)
        if self.role == "value" and t.is_large_binary(type_):
            raise self._refusal(type_, "numbers or times to be compared", fix)
        return type_of(self.function) if self.function else type_

    def _refusal(self, type_: Any, needed: str, fix: str) -> UsageError:
        if fix:
            return UsageError(
                f"column {self.column!r} is {name_of(type_)} and must be {needed}. Use {fix} if this is the decimal "
                "mark of its numbers; if it separates thousands, remove it."
            )
        return UsageError(
            f"column {self.column!r} is {name_of(type_)} and must be {needed}. Use another column; or, if some values "
            f"of a CSV file are not, use --types '{self.column}=float64', and --on-bad skip to leave out their rows."
        )


def similar(name: str, names: Iterable[str]) -> str:
    """Return the sentence that helps to correct the name of a column."""
    close = difflib.get_close_matches(name, names, 1)
    return f"Did you mean {close[0]!r}?" if close else f"They are {', '.join(names)}."


def split_names(text: str) -> list[str]:
    """Split a list at the commas outside of parentheses and double quotes."""
    parts, depth, quoted = [""], 0, False
    for character in text:
        quoted ^= character == '"'
        if not quoted:
            depth += (character == "(") - (character == ")")
            if character == "," and depth <= 0:
                parts.append("")
                continue
        parts[-1] += character
    return [part.strip() for part in parts] if text.strip() else []


def parse_name(text: str) -> str:
    """Return a column's name: double quotes around it are removed, and those in it are halved."""
    text = text.strip()
    return text[1:-1].replace('""', '"') if len(text) > 1 and text[0] == text[-1] == '"' else text


def parse_call(text: str) -> tuple[str, str] | None:
    """Return function and column of `function(column)`, or None if the text has another form."""
    match = re.fullmatch(r'\s*(\w+)\s*\(\s*("(?:[^"]|"")*"|[^"]*?)\s*\)\s*', text)
    return (match[1], parse_name(match[2])) if match else None


def parse_key(text: str) -> ColumnSpec:
    """Parse a key: `user`, `"a name, with commas"`, or `date(timestamp)`.

    Raises UsageError if the text is not a key.
    """
    call = parse_call(text)
    if (name := parse_name(text)) != text.strip():
        return ColumnSpec(name)
    if call and call[0] in FUNCTIONS and call[1]:
        return ColumnSpec(call[1], call[0])
    if not name or re.search("[()]", name):
        raise UsageError(
            f"--by {text!r} is not a key. Use a column's name, in double quotes if it has commas or parentheses, or "
            f"one of {', '.join(FUNCTIONS)} of a column, such as date(time)."
        )
    return ColumnSpec(name)
