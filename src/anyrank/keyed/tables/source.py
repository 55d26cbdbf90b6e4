"""Formats of table files: one class per format, selected by the suffix of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.values import Values

if TYPE_CHECKING:
    from anyrank.keyed.text import TextFiles

#: Rows read at a time.
ROWS = 1 << 17


class BadRows:
    """Policy for bad rows: raise an error, or skip and count them and keep the message of the first."""

    def __init__(self, skip: bool):
        self.skip, self.count, self.first = skip, 0, ""

    def report(self, count: int, what: Callable[[], str]) -> None:
        """Count bad rows. Raises UsageError if they must not be skipped."""
        if not self.skip:
            raise UsageError(f"{what()}. Correct the file, or use --on-bad skip to skip and count such rows.")
        self.first = self.first or what()
        self.count += count


class Rows:
    """Rows of a file: columns by name, and a mask `wrong` of bad rows (None if no row is bad)."""

    def __init__(self, path: Path, columns: dict[str, Values], first: int = 0):
        self.path, self.columns, self.first = path, columns, first
        self.wrong: np.ndarray | None = None

    def drop(self, wrong: np.ndarray, bad: BadRows, what: Callable[[], str]) -> None:
        """Mark rows as bad and count those not marked before. Raises UsageError if `bad` does not skip rows."""
        before = np.zeros_like(wrong) if self.wrong is None else self.wrong
        self.wrong = before | wrong
        bad.report(int(np.count_nonzero(wrong & ~before)), what)

    def where(self, row: int) -> str:
        """Return the file and the row number, from 0."""
        return f"{self.path}: row {self.first + row} (from 0)"


@dataclass(frozen=True)
class TablePiece:
    """Bytes `begin` to `end` of file number `index` of `files`, and the kinds of the file's columns.

    A reader converts a piece to rows so that adjacent pieces partition the rows.
    """

    files: TextFiles
    index: int
    begin: int
    end: int
    kinds: Mapping[str, str]

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.files.paths[self.index]

    def rows(self, count: int) -> Iterator[tuple[int, int]]:
        """Return the row ranges of this piece, at most ROWS rows each; the file has `count` rows of equal size."""
        size = max(1, self.files.sizes[self.index])
        first, last = (-(-offset * count // size) for offset in (self.begin, self.end))
        return ((row, min(row + ROWS, last)) for row in range(first, last, ROWS))


class TableSource:
    """A format of table files. A subclass is selected by the suffix of a file."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    known: ClassVar[dict[str, type[TableSource]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for suffix in cls.suffixes:
            if suffix in cls.known:
                raise TypeError(f"two sources read {suffix}")
            cls.known[suffix] = cls

    @staticmethod
    def kinds(path: Path) -> dict[str, str]:
        """Return the columns of a file and their kinds; for an unsupported type, the name of the type."""
        raise NotImplementedError

    @staticmethod
    def nullable(path: Path) -> set[str]:
        """Return the columns of a file that may have nulls."""
        return set()

    @staticmethod
    def read(piece: TablePiece, wanted: Mapping[str, str], bad: BadRows) -> Iterator[Rows]:
        """Yield batches of the rows of a piece, with the requested columns converted to the requested kinds."""
        raise NotImplementedError


def table_source(path: Path) -> type[TableSource]:
    """Return the format of a file. Raises UsageError if no format has its suffix."""
    source = TableSource.known.get(path.suffix.lower())
    if source is None:
        raise UsageError(
            f"{path}: a table file cannot have the suffix {path.suffix!r}. Use {', '.join(sorted(TableSource.known))}."
        )
    return source
