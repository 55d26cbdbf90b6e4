"""Kinds of table files: one class for each, found by the suffix of its files."""

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
    """Rows that are bad: an error, or counted and left out, and the first of them kept as text."""

    def __init__(self, skip: bool):
        self.skip, self.count, self.first = skip, 0, ""

    def report(self, count: int, what: Callable[[], str]) -> None:
        """Count rows; raises UsageError where they are not to be skipped."""
        if not self.skip:
            raise UsageError(f"{what()}. Mend the file, or use --on-bad skip, which skips and counts such rows.")
        self.first = self.first or what()
        self.count += count


class Rows:
    """Rows of a file: columns by name; which of the rows are bad, None where none is."""

    def __init__(self, path: Path, columns: dict[str, Values], first: int = 0):
        self.path, self.columns, self.first = path, columns, first
        self.wrong: np.ndarray | None = None

    def drop(self, wrong: np.ndarray, bad: BadRows, what: Callable[[], str]) -> None:
        """Leave out these rows: count those that were good until now. Raises UsageError as `bad` says."""
        before = np.zeros_like(wrong) if self.wrong is None else self.wrong
        self.wrong = before | wrong
        bad.report(int(np.count_nonzero(wrong & ~before)), what)

    def where(self, row: int) -> str:
        """The file, and the row's number in it, from 0."""
        return f"{self.path}: row {self.first + row} (from 0)"


@dataclass(frozen=True)
class Piece:
    """The bytes `begin` to `end` of file number `index` of `files`, from its begin, and the kinds of its columns.

    A reader turns them into rows so that ranges that touch share no row and lose none.
    """

    files: TextFiles
    index: int
    begin: int
    end: int
    kinds: Mapping[str, str]

    @property
    def path(self) -> Path:
        """The file."""
        return self.files.paths[self.index]

    def rows(self, count: int) -> Iterator[tuple[int, int]]:
        """The rows of so many that lie in the bytes, as if all were of one size: first and last, ROWS at a time."""
        size = max(1, self.files.sizes[self.index])
        first, last = (-(-place * count // size) for place in (self.begin, self.end))
        return ((row, min(row + ROWS, last)) for row in range(first, last, ROWS))


class Source:
    """A kind of table files. Subclasses are found by their suffixes."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    known: ClassVar[dict[str, type[Source]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for suffix in cls.suffixes:
            if suffix in cls.known:
                raise TypeError(f"two sources read {suffix}")
            cls.known[suffix] = cls

    @staticmethod
    def kinds(path: Path) -> dict[str, str]:
        """The columns of a file and their kinds; a type's own name where it cannot be read."""
        raise NotImplementedError

    @staticmethod
    def nullable(path: Path) -> set[str]:
        """The columns of a file that may be null in some row."""
        return set()

    @staticmethod
    def read(piece: Piece, wanted: Mapping[str, str], bad: BadRows) -> Iterator[Rows]:
        """The rows of a piece, some at a time, with the wanted columns in the wanted kinds."""
        raise NotImplementedError


def source_of(path: Path) -> type[Source]:
    """What reads the file; UsageError where nothing does."""
    source = Source.known.get(path.suffix.lower())
    if source is None:
        raise UsageError(f"{path}: no table has the suffix {path.suffix!r}. Use {', '.join(sorted(Source.known))}.")
    return source
