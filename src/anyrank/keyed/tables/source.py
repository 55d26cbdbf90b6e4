"""Formats of table files: one class per format, selected by the suffix of a file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.files import is_compressed, is_stream

if TYPE_CHECKING:
    from anyrank.keyed.tables.dialect import CsvOptions

#: The most rows, and about the most decoded bytes, that are read at a time.
ROWS, BATCH_BYTES = 1 << 17, 1 << 23


class BadRows:
    """Policy for bad rows: raise an error, or skip and count them and keep the message of the first."""

    def __init__(self, skip: bool):
        self.skip, self.count, self.first = skip, 0, ""

    def report(self, count: int, what: Callable[[], str], fix: str = "", rows: int = 0) -> None:
        """Count bad rows. Raises UsageError if they must not be skipped.

        `fix` is what keeps the rows, and `rows` the number of rows of which these are bad: the message does not advise
        to skip most rows.
        """
        if not self.skip:
            keeps = f"Use {fix} to keep such rows, or correct the file" if fix else "Correct the file"
            if 2 * count > rows > 1:
                raise UsageError(f"{what()}. {count} of {rows} rows here are like it. {keeps}.")
            keeps = keeps.replace(", or correct", ", correct")
            raise UsageError(f"{what()}. {keeps}, or use --on-bad skip to skip and count them.")
        self.first = self.first or what()
        self.count += count


class Rows:
    """Rows of a file: Arrow arrays by name, and a mask `wrong` of bad rows (None if no row is bad)."""

    #: Whether empty text is null: in CSV it is.
    empty_is_null = False

    def __init__(self, path: Path, columns: dict[str, Any], first: int = 0):
        self.path, self.columns, self.first = path, columns, first
        self.wrong: np.ndarray | None = None

    def drop(self, wrong: np.ndarray, bad: BadRows, what: Callable[[], str], fix: str = "") -> None:
        """Mark rows as bad and count those not marked before. Raises UsageError if `bad` does not skip rows."""
        before = np.zeros_like(wrong) if self.wrong is None else self.wrong
        self.wrong = before | wrong
        bad.report(int(np.count_nonzero(wrong & ~before)), what, fix, len(wrong))

    def where(self, row: int) -> str:
        """Return the file and the row number, from 0."""
        return f"{self.path}: row {self.first + row} (from 0)"


class TableFile:
    """One file of a table: the types of its columns, and its rows by ranges of its bytes.

    A subclass is selected by the suffix of a file. The constructor reads only metadata, on one rank; the object is then
    sent to all ranks.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    known: ClassVar[dict[str, type[TableFile]]] = {}
    #: The class for files with such a suffix that are compressed or in UTF-16, if there is one.
    streamed: ClassVar[type[TableFile] | None] = None
    #: The Arrow type of each column, in their order; for an unsupported type, its name.
    types: dict[str, Any]
    #: The columns that may have nulls; all of them if `examine` was not called.
    nullable: set[str]
    #: Columns that are in no row: the values of folders `NAME=VALUE`, and None for columns that other files have.
    constants: dict[str, str | None]
    #: Whether a library reads the metadata that a damaged file can crash: then a child process opens the file.
    isolated: ClassVar[bool] = False
    #: Bytes that must be decoded at once.
    decoded = 0

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for suffix in cls.suffixes:
            if suffix in cls.known:
                raise TypeError(f"two classes read {suffix}")
            cls.known[suffix] = cls

    def __init__(self, path: Path, size: int, options: CsvOptions):
        self.path, self.size, self.nullable, self.constants = path, size, set(), {}

    def read(self, begin: int, end: int, types: Mapping[str, Any], bad: BadRows) -> Iterator[Rows]:
        """Yield batches of rows with the columns in `types`; adjacent ranges of bytes partition the rows."""
        raise NotImplementedError

    def examine(self, columns: Collection[str]) -> None:
        """Check the metadata of columns that will be read. Raises UsageError or ValueError if they are damaged."""

    def stored(self, columns: Collection[str]) -> list[str]:
        """Return those of the columns that are in the file; if none is, its first column, which tells the rows."""
        own = [name for name, type_ in self.types.items() if name not in self.constants]
        return [name for name in own if name in columns] or [n for n in own if not isinstance(self.types[n], str)][:1]

    def rows_within(self, begin: int, end: int, count: int) -> tuple[int, int]:
        """Return the first row and the end of a range of bytes; the file has `count` rows of equal size."""
        size = max(1, self.size)
        return -(-begin * count // size), -(-end * count // size)


def rows_of_size(row_bytes: int, most: int = BATCH_BYTES) -> int:
    """Return the number of rows to read at a time."""
    return max(1, min(ROWS, most // max(1, row_bytes)))


def table_class(path: Path, options: CsvOptions) -> type[TableFile]:
    """Return the class of a file. Raises UsageError if no class has its suffix."""
    plain = path.with_suffix("") if is_compressed(path) else path
    found = TableFile.known.get(plain.suffix.lower())
    if found is not None and (plain != path or (found.streamed and (options.is_wide or is_stream(path)))):
        found = found.streamed
    if found is None:
        raise UsageError(
            f"{path}: a table file cannot have the suffix {path.suffix!r}. Use {', '.join(sorted(TableFile.known))}."
        )
    return found


def is_isolated(path: Path) -> bool:
    """Return whether a child process opens the file, because the library of its format can crash."""
    found = TableFile.known.get(path.suffix.lower())
    return found is not None and found.isolated


def opened(files: Sequence[tuple[Path, int]], options: CsvOptions, columns: Collection[str]) -> Iterator[TableFile]:
    """Yield the table files with these paths and sizes, after a check of the metadata of the columns to read."""
    for path, size in files:
        file = table_class(path, options)(path, size, options)
        file.examine(file.stored(columns))
        yield file
