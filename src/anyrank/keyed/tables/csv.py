"""CSV files, divided at records and read by Arrow.

Text of any dialect: quoted fields may contain line ends. Where records begin is found by reading the quotes of the
whole file, in parallel, so it does not depend on how a file is divided. Types are inferred from all rows of all files:
see `infer.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from anyrank.errors import AnyrankError, UsageError
from anyrank.kernels.records import QUOTED, RECORD
from anyrank.keyed.files import read_stream
from anyrank.keyed.rows import Text
from anyrank.keyed.tables.dialect import SEGMENT, WINDOW, CsvOptions, Dialect, dialect_of
from anyrank.keyed.tables.source import BadRows, Rows, TableFile
from anyrank.keyed.types import arrow, cast_rows, is_text, name_of

#: The longest record, and the longest first record.
LONGEST, _HEAD = 1 << 30, 1 << 20


class CsvFile(TableFile):
    """A CSV file. Types are `null` until they are inferred; `states` has the state at each segment of the text."""

    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv")
    #: Approximate bytes that are read at a time.
    block = 1 << 20

    def __init__(self, path: Path, size: int, options: CsvOptions):
        super().__init__(path, size, options)
        self.dialect = dialect_of(path, self._head(), options)
        self.types = dict.fromkeys(self.dialect.names, arrow().null())
        self.nullable = {*self.types}
        self.states: np.ndarray | None = None

    def read(self, begin: int, end: int, types: Mapping[str, Any], bad: BadRows) -> Iterator[Records]:
        """See `TableFile`."""
        for offset, data in self.blocks(begin, end):
            records = Records(self, offset, data)
            records.read(types, bad)
            yield records

    def part(self, begin: int, end: int) -> np.ndarray:
        """Return bytes of the file as uint8. Raises AnyrankError if the file has become shorter."""
        try:
            with self.path.open("rb", buffering=0) as file:
                data = os.pread(file.fileno(), end - begin, begin)
                while len(data) < end - begin and (more := os.pread(file.fileno(), end - begin - len(data), begin)):
                    data += more
        except OSError as error:
            raise AnyrankError(f"{self.path} can no longer be read on this rank ({error.strerror}).") from None
        if len(data) < end - begin:
            raise AnyrankError(
                f"{self.path} became shorter while it was read: it now ends at byte {begin + len(data)}."
            )
        return np.frombuffer(data, np.uint8)

    def _head(self) -> bytes:
        """Return the begin of the file."""
        with self.path.open("rb") as file:
            return file.read(_HEAD)

    @property
    def segments(self) -> int:
        """The number of segments whose state must be known."""
        return -(-self.size // SEGMENT)

    def line_ends(self, end: int) -> int:
        """Return the number of line ends before an offset."""
        lines = 0
        for begin in range(0, end, SEGMENT):
            data = self.part(begin, min(begin + SEGMENT + 1, end))
            piece = data[:SEGMENT]
            lines += int(
                np.count_nonzero((piece == 10) | ((piece == 13) & (np.append(data, 0)[1 : len(piece) + 1] != 10)))
            )
        return lines

    def segment_maps(self, first: int, last: int) -> list[tuple[int, ...]]:
        """Return the map of states of the segments with numbers `first` to `last`."""
        maps = []
        for number in range(first, last):
            begin = max(number * SEGMENT, self.dialect.begin)
            end = max(begin, min((number + 1) * SEGMENT, self.size))
            maps.append(tuple(self.dialect.transitions(self.part(begin, end)).tolist()) if end > begin else ())
        return maps

    def next_record(self, position: int) -> int:
        """Return the offset of the first record that begins at or after `position`, or the size of the file."""
        if position <= self.dialect.begin:
            return min(self.dialect.begin, self.size)
        return _next_record(self, min(position, self.size))

    def search(self, position: int) -> int:
        """See `next_record`."""
        if position >= self.size:
            return self.size
        if self.states is None:
            begin = position - 1
            state = RECORD if begin < self.dialect.begin else self.dialect.state_after(self.part(begin, position)[0])
            begin = position
        else:
            begin = max(position // SEGMENT * SEGMENT, self.dialect.begin)
            state = int(self.states[position // SEGMENT])
        while begin < self.size:
            data = self.part(begin, min(begin + max(WINDOW, position - begin + WINDOW), self.size))
            state, first, _, _, _ = self.dialect.scan(data, state, position - begin - 1)
            if 0 <= first < len(data) or (first == len(data) and begin + first == self.size):
                return begin + first
            begin += len(data)
        return self.size

    def blocks(self, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield offset and bytes of blocks of whole records, from the records that begin in `begin` to `end`."""
        offset, stop, length = self.next_record(begin), self.next_record(end), self.block
        while offset < stop:
            data = self.part(offset, min(offset + length, stop))
            whole = len(data) if offset + len(data) == stop else self._last_record(data)
            if not whole:
                if length > LONGEST:
                    raise self._long_record(offset)
                length *= 2
                continue
            yield offset, data[:whole].tobytes()
            offset, length = offset + whole, self.block

    def open_quote(self) -> UsageError:
        """Return the error of a file that ends in a quoted field: all rows after the quote would be its text."""
        return UsageError(
            f"{self.path} ends in a field whose quote is not closed. Close it, or use --quote '' for none."
        )

    def _long_record(self, offset: int) -> UsageError:
        return UsageError(f"{self.path}: the record at byte {offset} has more than {LONGEST} bytes. Divide it.")

    def _last_record(self, data: np.ndarray) -> int:
        last = self.dialect.scan(data)[2]
        return max(last, 0)


class StreamedCsvFile(CsvFile):
    """A CSV file that is compressed or must be converted to UTF-8: the rank whose range has its first byte reads it."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    segments = 0

    def __init__(self, path: Path, size: int, options: CsvOptions):
        self._encoding = options.encoding if options.is_wide else ""
        super().__init__(path, size, options)

    def _head(self) -> bytes:
        head = b""
        for data in self._stream(_HEAD):
            head += data
            if len(head) >= _HEAD:
                break
        return head

    def _stream(self, size: int) -> Iterator[bytes]:
        return read_stream(self.path, size, self._encoding)

    def part(self, begin: int, end: int) -> np.ndarray:
        """Return bytes of the decompressed file as uint8."""
        position, parts = 0, []
        for data in self._stream(self.block):
            parts.append(data[max(begin - position, 0) : max(end - position, 0)])
            position += len(data)
            if position >= end:
                break
        return np.frombuffer(b"".join(parts), np.uint8)

    def blocks(self, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
        """See `CsvFile`."""
        if begin > 0:
            return
        offset, rest, skipped = self.dialect.begin, b"", 0
        for data in self._stream(self.block):
            rest += data[max(0, self.dialect.begin - skipped) :]
            skipped += len(data)
            if len(rest) > LONGEST:
                raise self._long_record(offset)
            whole = self._last_record(np.frombuffer(rest, np.uint8)) if rest else 0
            if whole:
                yield offset, rest[:whole]
                offset, rest = offset + whole, rest[whole:]
        if rest and self.dialect.scan(np.frombuffer(rest, np.uint8))[0] == QUOTED:
            raise self.open_quote()
        if rest:
            yield offset, rest


CsvFile.streamed = StreamedCsvFile


@lru_cache(maxsize=4)
def _next_record(file: CsvFile, position: int) -> int:
    # The end of a part is the begin of the next one.
    return file.search(position)


class Records(Rows):
    """The rows of a block of records, without empty lines, comments and malformed records."""

    empty_is_null = True

    def __init__(self, file: CsvFile, offset: int, data: bytes):
        super().__init__(file.path, {})
        self.file, self.offset, self.data = file, offset, data
        self._rows: np.ndarray | None = None  #: the offsets of the rows in `data`

    def where(self, row: int) -> str:
        """Return the file and the line number, from 1."""
        if self._rows is None:
            starts, fields, _ = self.file.dialect.records(self.data)
            self._rows = starts[fields > 0]
        return self._line(int(self._rows[row]))

    def lines(self, line_end: bytes) -> Text:
        """Return the bytes of the rows; `line_end` is for a last row that has none."""
        starts, fields, _ = self.file.dialect.records(self.data)
        data = self.data if self.data.endswith((b"\r", b"\n")) else self.data + line_end
        text, sizes = np.frombuffer(data, np.uint8), np.diff(starts, append=len(data))
        kept = fields > 0 if self._rows is None else np.isin(starts, self._rows)
        return Text.sized(text, sizes) if kept.all() else Text.gathered(text, starts[kept], sizes[kept])

    def _line(self, at: int) -> str:
        return f"{self.path}: line {1 + self.file.line_ends(self.offset + at)}"

    def read(self, types: Mapping[str, Any], bad: BadRows) -> None:
        """Read the columns of these types. Malformed records, and values that are not of the type, are bad rows."""
        if self.convert(types):
            return
        dialect = self.file.dialect
        data = self._without_malformed(bad)
        if not data:
            self.columns = {name: arrow().array([], type_) for name, type_ in types.items()}
            return
        table = dialect.parse(data, dict.fromkeys(types, arrow().large_binary()))
        for name, type_ in types.items():
            self.columns[name] = self._column(name, table[name].combine_chunks(), type_, bad)

    def convert(self, types: Mapping[str, Any]) -> bool:
        """Read the columns of these types; returns False if a record is malformed or a value is not of its type."""
        dialect = self.file.dialect
        data = dialect.without_comments(self.data)
        quote = dialect.options.quote.encode()
        if quote and quote in data and self._is_unclear(data):
            return False
        try:
            table = dialect.parse(data, {**types})
        except arrow().ArrowInvalid:
            return False
        self.columns = {name: table[name].combine_chunks() for name in types}
        return True

    def _is_unclear(self, data: bytes) -> bool:
        _, _, _, stray, lines = self.file.dialect.scan(np.frombuffer(data, np.uint8))
        return bool(stray and lines)

    def _without_malformed(self, bad: BadRows) -> bytes:
        """Return the rows without malformed ones, which are reported."""
        text = np.frombuffer(self.data, np.uint8)
        starts, fields, unclear = self.file.dialect.records(self.data)
        wanted = len(self.file.dialect.names)
        rows = fields > 0
        wrong = rows & ((fields != wanted) | (unclear > 0))
        if wrong.any():
            first, count = int(np.argmax(wrong)), int(np.count_nonzero(wrong))
            most = 2 * count > np.count_nonzero(rows)
            fix = "--delimiter, --quote or --header no" if most else ""
            bad.report(count, lambda: self._malformed(first, starts, fields, wanted), fix, int(np.count_nonzero(rows)))
        good = rows & ~wrong
        self._rows = starts[good]
        return bytes(text[np.repeat(good, np.diff(starts, append=len(text)))])

    def _malformed(self, record: int, starts: np.ndarray, fields: np.ndarray, wanted: int) -> str:
        ends = np.append(starts, len(self.data))
        text = self.data[ends[record] : ends[record + 1]].rstrip(b"\r\n").decode(errors="backslashreplace")
        line = self._line(int(starts[record]))
        if fields[record] == wanted:
            return f"{line} has a quote and a line end inside fields: {text[:200]!r} can be read as two rows"
        return f"{line} has {fields[record]} fields, not {wanted}: {text[:200]!r}"

    def _column(self, name: str, column: Any, type_: Any, bad: BadRows) -> Any:
        """Convert text to a type; values that are not of this type are bad."""
        if is_text(type_):
            return column
        values, wrong = convert(column, type_, self.file.dialect)
        if wrong.any():
            row = int(np.argmax(wrong))
            text = (column[row].as_py() or b"").decode(errors="backslashreplace")
            rule = f"{name} {text!r} is not {name_of(type_)}, the type of the column"
            floats = (
                arrow().types.is_integer(type_) and not (convert(column, arrow().float64(), self.file.dialect)[1]).any()
            )
            keeps = f"--types '{name}={'float64' if floats else 'text'}'"
            keeps = decimal_mark(column.filter(arrow().array(wrong)), self.file.dialect) or keeps
            self.drop(wrong, bad, lambda: f"{self.where(row)}: {rule}", keeps)
        return values


def decimal_mark(texts: Any, dialect: Dialect) -> str:
    """Return the flag that makes numbers of most of the texts, which are no numbers in a dialect; empty: none does."""
    compute, mark = arrow("compute"), "." if dialect.options.decimal == "," else ","
    pattern = rf"^\s*[-+]?[0-9]*[{mark}][0-9]+([eE][-+]?[0-9]+)?\s*$"
    matches = compute.sum(compute.match_substring_regex(texts, pattern)).as_py() or 0
    return f"--decimal {mark}" if 2 * matches > len(texts) else ""


def convert(column: Any, type_: Any, dialect: Dialect) -> tuple[Any, np.ndarray]:
    """Convert text to a type, and return a mask of elements that are not of the type."""
    pa, compute = arrow(), arrow("compute")
    # Bytes that are not UTF-8 are bad, too; Arrow converts only valid text.
    valid = np.array([True])
    try:
        text = column.cast(pa.large_string())
    except pa.ArrowInvalid:
        text, broken = cast_rows(column, pa.large_string())
        valid = ~broken
    text = compute.utf8_trim_whitespace(text)
    nulls = compute.is_in(text, pa.array(dialect.options.nulls, pa.large_string()))
    text = compute.if_else(nulls, pa.scalar(None, text.type), text)
    if dialect.options.decimal != "." and not pa.types.is_integer(type_):
        text = compute.replace_substring(compute.replace_substring(text, ".", "?"), dialect.options.decimal, ".")
    if pa.types.is_timestamp(type_):
        numbers = compute.match_substring_regex(text, r"^[-+]?[0-9]+(\.[0-9]*)?$").fill_null(False)
        if compute.any(numbers).as_py():  # in the unit of the type; a fraction is cut off towards the past
            return _times_of_numbers(text, numbers, type_, valid)
    values, wrong = cast_rows(text, type_)
    return values, wrong | ~valid


def _times_of_numbers(text: Any, numbers: Any, type_: Any, valid: np.ndarray) -> tuple[Any, np.ndarray]:
    """Convert text, of which some are numbers of a time unit, to timestamps; and return a mask of what is neither."""
    pa, compute = arrow(), arrow("compute")
    none = pa.scalar(None, text.type)
    digits = compute.replace_substring_regex(compute.if_else(numbers, text, none), r"^\+|\..*$", "")
    count, long = cast_rows(digits, pa.int64())
    behind_zero = compute.match_substring_regex(text, r"^-.*\..*[1-9]").fill_null(False)
    count = compute.if_else(compute.and_(behind_zero, numbers), compute.subtract(count, 1), count)
    times, wrong = cast_rows(compute.if_else(numbers, none, text), type_)
    return compute.if_else(numbers, count.cast(type_), times), wrong | long | ~valid
