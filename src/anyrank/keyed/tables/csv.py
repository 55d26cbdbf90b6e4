"""CSV with a header line, read by Arrow in blocks of whole lines.

A line is a row: quoted fields with line ends are refused. Empty fields are null; in columns of numbers, NA, N/A, NULL
and null are null, too. Types are given by the user or inferred from the first rows; times are read as text.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.tables.arrow import arrow, cast_rows, kind_of, of_arrow, text_of
from anyrank.keyed.tables.source import BadRows, Rows, TablePiece, TableSource
from anyrank.keyed.values import NUMBERS, Values

_NULLS = ["", "NA", "N/A", "NULL", "null"]
_SAMPLE = 1 << 20


class Csv(TableSource):
    """Comma-separated values, and tab-separated ones."""

    suffixes = (".csv", ".tsv")

    @staticmethod
    def kinds(path: Path) -> dict[str, str]:
        """Return the kinds of the columns, inferred from the first MiB; `null` if that has no values."""
        with path.open("rb") as file:
            names, data = _header(path, file.readline()), file.read(_SAMPLE)
        data = data[: data.rfind(b"\n") + 1] or data
        if not data.strip():
            return dict.fromkeys(names, "null")
        table = _table(data, names, path.suffix, {}, [])
        kinds = {field.name: kind_of(field.type) for field in table.schema}
        return {name: kind if kind in (*NUMBERS, "null") else "text" for name, kind in kinds.items()}

    @staticmethod
    def nullable(path: Path) -> set[str]:
        """Return all columns."""
        with path.open("rb") as file:
            return {*_header(path, file.readline())}

    @staticmethod
    def read(piece: TablePiece, wanted: Mapping[str, str], bad: BadRows) -> Iterator[Rows]:
        """Yield the lines of a piece, a block at a time."""
        first = sum(piece.files.sizes[: piece.index])
        for block in piece.files.blocks(first + piece.begin, first + piece.end, b"\n"):
            data = block.buffer[block.start : block.stop].tobytes()
            header = data.find(b"\n") + 1 or len(data) if block.offset == 0 else 0
            if data[header:].strip():
                lines = Lines(block.path, block.offset + header, data[header:])
                lines.read([*piece.kinds], wanted, bad)
                yield lines


class Lines(Rows):
    """The rows of a block: its lines, except empty and malformed lines."""

    def __init__(self, path: Path, offset: int, data: bytes):
        super().__init__(path, {})
        self.offset, self.data = offset, data
        self.broken: set[str] = set()

    def where(self, row: int) -> str:
        """Return the file and the line number, from 1."""
        texts = map(_str, self.data.split(b"\n"))
        lines = (number for number, text in enumerate(texts) if text and text not in self.broken)
        return self._line(next(islice(lines, row, None)))

    def read(self, names: list[str], wanted: Mapping[str, str], bad: BadRows) -> None:
        """Read the columns. Rows that are malformed or do not match the type of a column are bad."""
        self._check_quotes()
        malformed: list[Any] = []
        types = {name: _type(kind) for name, kind in wanted.items()}
        try:
            table = _table(self.data, names, self.path.suffix, types, malformed)
        except arrow().ArrowInvalid:
            malformed.clear()
            types = dict.fromkeys(types, arrow().string())
            table = _table(self.data, names, self.path.suffix, types, malformed)
        if malformed:
            self.broken = {row.text for row in malformed}
            bad.report(len(malformed), lambda: self._broken(malformed[0]))
        for name, kind in wanted.items():
            self.columns[name] = self._column(name, table[name].combine_chunks(), kind, bad)

    def _column(self, name: str, column: Any, kind: str, bad: BadRows) -> Values:
        if kind == "text":
            text = text_of(column)
            empty = text.sizes == 0
            return Values(text, empty if empty.any() else None)
        if column.type == _type(kind):
            return of_arrow(column, kind)
        values, wrong = _cast(column, kind)
        if wrong.any():
            row = int(np.argmax(wrong))
            text = column[row].as_buffer().to_pybytes().decode(errors="replace")
            self.drop(wrong, bad, lambda: f"{self.where(row)}: {name} {text!r} is not {kind}, the type of the column")
        return values

    def _check_quotes(self) -> None:
        """Raise UsageError if a line has an odd number of quotes: a field continues on the next line."""
        if b'"' in self.data:
            data = np.frombuffer(self.data + b"\n", np.uint8)
            odd = np.cumsum(data == ord('"'), dtype=np.uint8) & (data == ord("\n"))  # mod 256 keeps the parity
            if odd.any():
                line = self.data.count(b"\n", 0, int(np.argmax(odd)))
                raise UsageError(
                    f"{self._line(line)} opens a quote that it does not close; a field must not contain a line end. "
                    "Use Parquet for such a table."
                )

    def _broken(self, row: Any) -> str:
        line = [*map(_str, self.data.split(b"\n"))].index(row.text)
        return f"{self._line(line)} has {row.actual_columns} fields, not {row.expected_columns}: {row.text!r}"

    def _line(self, line: int) -> str:
        with self.path.open("rb") as file:
            before = sum(
                file.read(min(_SAMPLE, self.offset - at)).count(b"\n") for at in range(0, self.offset, _SAMPLE)
            )
        return f"{self.path}: line {before + line + 1}"


def _str(line: bytes) -> str:
    return line.rstrip(b"\r").decode(errors="replace")


def _header(path: Path, line: bytes) -> list[str]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    text = line.decode("utf-8-sig", "replace").strip("\r\n")
    names = next(csv.reader([text], delimiter=delimiter), [])
    if not names or len({*names}) < len(names) or text.count('"') % 2:
        raise UsageError(f"{path}: the first line must have distinct column names, but is {text!r}. Add a header.")
    return names


def _type(kind: str) -> Any:
    pa = arrow()
    return {"text": pa.binary(), "bool": pa.bool_()}.get(kind) or getattr(pa, kind)()


def _table(data: bytes, names: list[str], suffix: str, types: Mapping[str, Any], broken: list[Any]) -> Any:
    """Return lines as an Arrow table: the columns in `types`, or if it is empty, all columns with inferred types.

    Lines with too few or too many fields are left out and appended to `broken`.
    """
    csv = arrow("csv")

    def skip(row: Any) -> str:
        broken.append(row)
        return "skip"

    return csv.read_csv(
        arrow().BufferReader(data),
        csv.ReadOptions(use_threads=False, column_names=names, block_size=max(len(data), 1)),
        csv.ParseOptions(delimiter="\t" if suffix.lower() == ".tsv" else ",", invalid_row_handler=skip),
        csv.ConvertOptions(column_types=types, include_columns=[*types], null_values=_NULLS, check_utf8=not types),
    )


def _cast(column: Any, kind: str) -> tuple[Values, np.ndarray]:
    """Convert text to numbers, and return a mask of elements that are not numbers."""
    compute = arrow("compute")
    column = compute.ascii_trim_whitespace(column)
    nulls = compute.is_in(column, arrow().array(_NULLS)).to_numpy(False)
    values, bad = cast_rows(compute.if_else(arrow().array(nulls), None, column), _type(kind))
    return Values(values, nulls if nulls.any() else None), bad
