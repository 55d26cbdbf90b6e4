"""Parameters of programs that read CSV files."""

from __future__ import annotations

from typing import Any, Literal

from anyrank.errors import UsageError
from anyrank.keyed.tables.columns import parse_name, split_names
from anyrank.keyed.tables.dialect import CsvOptions
from anyrank.keyed.types import parse_type
from anyrank.program import param


class CsvParameters:
    """Flags for bad rows, types and the dialect of CSV files: a base class of programs, before `Program`."""

    on_bad: Literal["error", "skip"] = param("error", "at a malformed row: stop with an error, or skip and count it")
    types: str = param("", "types of CSV columns, such as 'user=text,price=decimal(10,2)'  [found in all rows]")
    delimiter: str = param("", "delimiter of CSV: one character, or tab  [found in the first line]")
    quote: str = param('"', "quote of CSV; empty: none")
    decimal: str = param(".", "decimal mark of CSV: . or ,")
    comment: str = param("", "lines of CSV that begin with this character are left out")
    header: Literal["yes", "no"] = param("yes", "whether CSV has a line of names; without one, columns are c1, c2, …")
    encoding: str = param("utf-8", "encoding of CSV, such as latin-1")

    def csv_types(self) -> dict[str, Any]:
        """Return the stated types by column. Raises UsageError if they are not of the form COLUMN=TYPE."""
        return dict(_type_of(text) for text in split_names(self.types) if text)

    def csv_options(self) -> CsvOptions:
        """Return the stated dialect. Raises UsageError if it is invalid."""
        delimiter = {"tab": "\t", "\\t": "\t"}.get(self.delimiter, self.delimiter)
        dialect = delimiter, self.quote, self.decimal, self.comment, self.header == "yes", self.encoding
        options = CsvOptions(*dialect)
        options.check()
        return options


def _type_of(text: str) -> tuple[str, Any]:
    name, equals, kind = text.rpartition("=")
    if not equals or not name:
        raise UsageError(f"--types {text!r} must be COLUMN=TYPE, such as user=text.")
    return parse_name(name), parse_type(kind.strip())
