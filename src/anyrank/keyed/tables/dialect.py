"""The dialect of CSV files, and where their records begin."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from anyrank.errors import UsageError
from anyrank.kernel import Kernel
from anyrank.kernels.records import FIELD, INSIDE, QUOTED, RECORD, RETURN, STATES, classes_of
from anyrank.keyed.types import arrow

_SCAN, _TRANSITIONS, _RECORDS = (Kernel("records", operation) for operation in ("scan", "transitions", "records"))
#: The state of a file's text is known at every multiple of SEGMENT bytes. Records are searched WINDOW bytes at a time.
SEGMENT, WINDOW = 1 << 20, 1 << 16
#: Delimiters that are searched for; the first of those that occur most often is used.
DELIMITERS = ",;\t|"
#: Fields that are null.
NULLS = ("", "NA", "N/A", "NULL", "null")


@dataclass(frozen=True)
class CsvOptions:
    """How CSV files are written: what the user states, for all files."""

    delimiter: str = ""  #: empty: the one that occurs most often in the first record, or a tab in .tsv files
    quote: str = '"'  #: empty: no quotes
    decimal: str = "."
    comment: str = ""  #: empty: no comments
    header: bool = True
    encoding: str = "utf-8"
    nulls: tuple[str, ...] = NULLS

    def check(self) -> None:
        """Raise UsageError if an option is invalid."""
        for name in ("delimiter", "quote", "decimal", "comment"):
            value = getattr(self, name)
            if len(value) > 1 or not value.isascii() or (value and value in "\r\n"):
                raise UsageError(f"--{name} {value!r} must be one ASCII character that does not end a line.")
        used = [character for character in (self.delimiter, self.quote, self.comment) if character]
        if not self.decimal or len({*used}) < len(used):
            raise UsageError("--delimiter, --quote and --comment must differ, and --decimal must not be empty.")
        try:
            "\n".encode(self.encoding)
        except LookupError:
            raise UsageError(f"--encoding {self.encoding!r} is not an encoding of Python, such as latin-1.") from None

    @property
    def is_wide(self) -> bool:
        """Whether a line end has several bytes, as in UTF-16; then the files are converted while they are read."""
        return "\n".encode(self.encoding.replace("utf-8-sig", "utf-8")) != b"\n"


@dataclass(frozen=True)
class Dialect:
    """How one CSV file is written: its delimiter, the offset of the first row, and the names of the columns."""

    options: CsvOptions
    delimiter: str
    begin: int
    names: tuple[str, ...]

    @cached_property
    def classes(self) -> np.ndarray:
        """The class of each byte for the kernel `records`."""
        options = self.options
        classes: np.ndarray = classes_of(self.delimiter.encode(), options.quote.encode(), options.comment.encode())
        return classes

    def parse(self, data: bytes, types: dict[str, Any], names: tuple[str, ...] = ()) -> Any:
        """Return records as an Arrow table of the columns in `types`. Raises an ArrowInvalid for a bad record."""
        csv = arrow("csv")
        options = self.options
        return csv.read_csv(
            arrow().BufferReader(self.to_utf8(data)),
            csv.ReadOptions(use_threads=False, column_names=names or self.names, block_size=max(2 * len(data), 1)),
            csv.ParseOptions(delimiter=self.delimiter, quote_char=options.quote or False, newlines_in_values=True),
            csv.ConvertOptions(
                column_types=types,
                include_columns=[*types],
                null_values=options.nulls,
                decimal_point=options.decimal,
                check_utf8=False,
                strings_can_be_null=False,
            ),
        )

    def to_utf8(self, data: bytes) -> bytes:
        """Return the bytes in UTF-8; bytes that are not UTF-8 stay if UTF-8 is the encoding."""
        return (
            data
            if self.options.is_wide or self.options.encoding.startswith("utf")
            else data.decode(self.options.encoding).encode()
        )

    def scan(self, data: np.ndarray, state: int = RECORD, after: int = -1) -> list[int]:
        """Return the state at the end, the first record after `after`, the last record, and counts: see the kernel."""
        found = np.empty(5, np.int64)
        _SCAN(data, self.classes, state, after, found)
        return [*map(int, found)]

    def transitions(self, data: np.ndarray) -> np.ndarray:
        """Return the state at the end for each state at the start."""
        quote = self.options.quote.encode()
        if not len(data) or self.options.comment or (quote and quote in data.tobytes()):
            ends = np.empty(STATES, np.int64)
            _TRANSITIONS(data, self.classes, ends)
            return ends
        ends = np.full(STATES, self.state_after(data[-1]))
        ends[QUOTED] = QUOTED
        return ends

    def state_after(self, byte: int) -> int:
        """Return the state after a byte outside of quotes and comments that is not a quote."""
        return int({10: RECORD, 13: RETURN, ord(self.delimiter): FIELD}.get(int(byte), INSIDE))

    def records(self, data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the begin, the number of fields (0: no row) and the ambiguity of each record of whole records."""
        text = np.frombuffer(data, np.uint8)
        arrays = np.empty(len(text), np.int64), np.empty(len(text), np.int64), np.empty(len(text), np.uint8)
        count = _RECORDS(text, self.classes, *arrays)
        starts, fields, unclear = (array[:count] for array in arrays)
        return starts, fields, unclear

    def without_comments(self, data: bytes) -> bytes:
        """Return whole records without comments."""
        comment = self.options.comment.encode()
        if not comment or comment not in data:
            return data
        starts, _, _ = self.records(data)
        text = np.frombuffer(data, np.uint8)
        comments = text[starts] == comment[0]
        return bytes(text[~np.repeat(comments, np.diff(starts, append=len(text)))])


def dialect_of(path: Path, data: bytes, options: CsvOptions) -> Dialect:
    """Return the dialect of a file that begins with `data`. Raises UsageError if the first record has no names."""
    begin = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    text = np.frombuffer(data, np.uint8)[begin:]
    guess = options.delimiter or ("\t" if ".tsv" in path.suffixes else "")
    rough = Dialect(options, guess or ",", begin, ())
    starts, fields, _ = rough.records(text.tobytes())
    first = next((k for k, start in enumerate(starts.tolist()) if fields[k] or text[start] not in b"\r\n"), None)
    while first is not None and options.comment and text[starts[first]] == ord(options.comment):
        first = first + 1 if first + 1 < len(starts) else None
    if first is None:
        raise _no_names(path, "")
    end = int(starts[first + 1]) if first + 1 < len(starts) else len(text)
    record = text[starts[first] : end].tobytes()
    delimiter = guess or max(DELIMITERS, key=lambda d: len(_fields(record, options, d)))
    cells = _fields(record, options, delimiter)
    if not options.header:
        names = tuple(f"c{number}" for number in range(1, len(cells) + 1))
        return Dialect(options, delimiter, begin + int(starts[first]), names)
    names = tuple(cell.strip() for cell in cells)
    if not all(names) or len({*names}) < len(names):
        raise _no_names(path, ", ".join(map(repr, names)))
    return Dialect(options, delimiter, begin + end, names)


def _fields(record: bytes, options: CsvOptions, delimiter: str) -> list[str]:
    """Return the fields of one record, as Arrow reads them."""
    rough = Dialect(options, delimiter, 0, ())
    _, fields, _ = rough.records(record)
    names = tuple(map(str, range(int(fields.max(initial=0)))))
    if not names:
        return []
    table = rough.parse(record, dict.fromkeys(names, arrow().binary()), names)
    return [cell.decode(errors="backslashreplace") for column in table.columns for cell in column.to_pylist()]


def _no_names(path: Path, what: str) -> UsageError:
    return UsageError(
        f"{path}: the first line must have distinct column names, but has {what or 'none'}. Add a header, or use "
        "--header no."
    )
