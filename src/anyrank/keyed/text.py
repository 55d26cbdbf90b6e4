"""Text input: files, folders and globs as one run of bytes, cut between ranks where words or lines end."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from anyrank.errors import AnyrankError
from anyrank.keyed.files import check_unchanged, find, fingerprint
from anyrank.layout import even_cuts
from anyrank.world import World

#: White space in ASCII: where words end.
SPACE = b" \t\n\v\f\r"
#: Readable zero bytes before and after what is valid in a block's buffer, for kernels that read many at once.
MARGIN = 64
_SEARCH_BYTES = 1 << 16  # bytes that are looked through at a time for the end of a word or line


@dataclass(frozen=True)
class Block:
    """Some bytes of a file, `buffer[start:stop]`; they are there until the next block is asked for.

    `buffer` is uint8. Around them lie bytes of the context that was asked for, and beyond these 64 zeros on
    either side. `offset` is the place of the first byte in the file, and `size` the file's size.
    """

    buffer: np.ndarray
    start: int
    stop: int
    path: Path
    offset: int
    size: int

    def __bytes__(self) -> bytes:
        """The bytes, as a copy."""
        return self.buffer[self.start : self.stop].tobytes()


class TextFiles:
    """The bytes of files, one file after the other: at each place the same for all ranks. Collective to make.

    `names` are files, folders (with all below them but what is hidden) and globs (`**` for folders at any depth),
    several in one text joined by commas. The files come in the order of the names, and those of one name in the
    order of their paths; a file that is named twice counts once. Rank 0 alone looks for them.
    Raises UsageError on all ranks where a name has no file or a file cannot be read.

    `paths` and `sizes` (in bytes) are those of the files, `size` is the sum of the sizes, and `fingerprint`, an
    int64 of names (without folders) and sizes, tells other files.
    """

    #: About how many bytes are read at a time: few enough to stay in the cache.
    block = 1 << 20

    def __init__(self, names: str | Sequence[str], world: World):
        self.world = world
        files = world.on_root(partial(find, names))
        self.paths, self.sizes = [*files], [*files.values()]
        self._ends = [*accumulate(self.sizes)]
        self.size = self._ends[-1]
        self.fingerprint = fingerprint((path.name, size) for path, size in files.items())
        # The last run of bytes that was seen to hold no end of a word or line: the file, cut, first and last place.
        self._last_gap = Path(), b"", 0, 0

    def check(self, known: int) -> None:
        """Raise UsageError, on all ranks, where this is not the files' fingerprint: they are others than they were."""
        check_unchanged("files", self.fingerprint, known)

    def chunks(self, chunk: int) -> int:
        """The number of chunks of so many bytes; 0 where all files are empty."""
        return -(-self.size // chunk)

    def part(self, step: int, chunk: int) -> tuple[int, int]:
        """This rank's even share of a chunk, as `blocks` takes it: the first byte and the one after the last."""
        first = step * chunk
        cuts = even_cuts(min(chunk, self.size - first), self.world.size)
        return first + cuts[self.world.rank], first + cuts[self.world.rank + 1]

    def rounds(self, begin: int, end: int, most: int) -> list[tuple[int, int]]:
        """A range in even parts of at most about so many bytes, as many parts on every rank. Collective."""
        count = -(-(end - begin) // max(1, most))
        cuts = even_cuts(end - begin, max(1, int(self.world.allreduce(np.array([count]), "max")[0])))
        return [(begin + low, begin + high) for low, high in pairwise(cuts)]

    def blocks(
        self, begin: int, end: int, cut: bytes = SPACE, *, whole: bool = True, behind: int = 0, ahead: int = 0
    ) -> Iterator[Block]:
        """The bytes from `begin` to `end` of all files together, in blocks of one file each. Not collective.

        Both ends move on to the next place in their file that follows a byte of `cut`, or begins or ends the file.
        Ranges that touch, however cut, thus share no byte and lose none, and no word (or line) is in two of them.
        With `whole`, this is true of the blocks, too; an unbroken run longer than a block makes that block
        longer. Else they end anywhere. Each has up to `behind` bytes of the range before it and `ahead` after it.
        Raises AnyrankError where a file cannot be read, or is shorter than it was.
        """
        for index in range(bisect_right(self._ends, begin), len(self.paths)):
            size = self.sizes[index]
            first = self._ends[index] - size
            if end <= max(begin, first):
                return
            if size:
                with _open_file(self.paths[index], size) as file:
                    low = self._next_cut(file, max(begin - first, 0), cut)
                    high = self._next_cut(file, min(end - first, size), cut)
                    yield from _Reader(file, low, high, cut if whole else b"", behind, ahead).blocks(self.block)

    def _next_cut(self, file: _File, place: int, cut: bytes) -> int:
        """The first place from this one on where the file may be cut."""
        path, known, low, high = self._last_gap
        if (path, known) == (file.path, cut) and low <= place <= high:
            return high
        if place in (0, file.size):
            return place
        first_cut, at = -1, place - 1
        while first_cut < 0 and at < file.size:
            data = bytearray(min(_SEARCH_BYTES, file.size - at))
            file.read(memoryview(data), at)
            first_cut = min((i for byte in cut if (i := data.find(byte)) >= 0), default=-1)
            at += len(data) if first_cut < 0 else first_cut + 1
        self._last_gap = file.path, cut, place, at
        return at


class _File:
    """An open file, of the size that it had."""

    def __init__(self, path: Path, size: int, number: int):
        self.path, self.size, self._number = path, size, number

    def read(self, into: memoryview, place: int) -> None:
        """Fill `into` with the bytes from this place on; AnyrankError where there are not so many."""
        while into:
            try:
                count = os.preadv(self._number, [into], place)
            except OSError as error:
                raise _unreadable(self.path, error) from None
            if count == 0:
                raise AnyrankError(f"{self.path} became shorter while it was read: it ends at byte {place} now.")
            into, place = into[count:], place + count


@contextmanager
def _open_file(path: Path, size: int) -> Iterator[_File]:
    try:
        number = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        yield _File(path, size, number)
    finally:
        os.close(number)


def _unreadable(path: Path, error: OSError) -> AnyrankError:
    return AnyrankError(f"{path} cannot be read any more on this rank ({error.strerror}).")


class _Reader:
    """Reads a file's bytes from `low` to `high`: byte p lies at `front + p − offset` in the buffer, where `offset` is
    the place of the block's first."""

    def __init__(self, file: _File, low: int, high: int, cut: bytes, behind: int, ahead: int):
        self.file, self.low, self.high, self.cut = file, low, high, cut
        self.front, self.behind, self.ahead = MARGIN + behind, behind, ahead
        self.loaded = low  # the place up to which the file is in the buffer
        self.bytes = bytearray()

    def blocks(self, size: int) -> Iterator[Block]:
        """Blocks of about so many bytes."""
        offset, wanted = self.low, size
        while offset < self.high:
            self._fill(offset, min(offset + wanted + self.ahead, self.high))
            stop = self._stop(offset)
            if stop == offset:
                wanted *= 2
                continue
            start, length = self.front, stop - offset
            buffer = np.frombuffer(self.bytes, np.uint8)
            yield Block(buffer, start, start + length, self.file.path, offset, self.file.size)
            self._shift(length, self.loaded - stop)
            offset, wanted = stop, size

    def _fill(self, offset: int, upto: int) -> None:
        """Hold the bytes before this place, at least, and zeros after them."""
        upto = max(upto, self.loaded)
        have, need = self.front + self.loaded - offset, self.front + upto - offset + MARGIN
        if need > len(self.bytes):
            self.bytes = self.bytes[:have] + bytes(need - min(have, len(self.bytes)))
        with memoryview(self.bytes) as view:
            self.file.read(view[have : need - MARGIN], self.loaded)
            view[need - MARGIN : need] = bytes(MARGIN)
        self.loaded = upto

    def _stop(self, offset: int) -> int:
        """The place where the block that begins at `offset` ends; `offset` itself where more must be read."""
        if self.loaded == self.high:
            return self.high
        last = self.loaded - self.ahead
        if not self.cut:
            return last
        base, last_cut = self.front - offset, self.front - 1
        for byte in self.cut:
            last_cut = max(last_cut, self.bytes.rfind(byte, last_cut + 1, base + last))
        return last_cut + 1 - base

    def _shift(self, length: int, rest: int) -> None:
        """Make what follows the block begin where it began, with what lies behind it."""
        data = np.frombuffer(self.bytes, np.uint8)
        data[: self.front + rest] = data[length : length + self.front + rest].copy()
        data[:MARGIN] = 0
