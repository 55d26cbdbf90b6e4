"""Text input: the concatenated bytes of files, divided between ranks at the ends of words or lines."""

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
from anyrank.keyed.files import check_unchanged, find_files, fingerprint, is_stream, read_stream
from anyrank.layout import even_cuts
from anyrank.member import Scalar
from anyrank.state import State
from anyrank.world import World

#: ASCII white space, which ends words.
SPACE = b" \t\n\v\f\r"
#: Zero bytes before and after the valid bytes of a block's buffer, so that kernels may read whole vectors.
MARGIN = 64
#: The description of the Scalars that keep fingerprints.
_KNOWN = "hash of the names and sizes of the input files"
_STREAM_BYTES = 1 << 20  # bytes decompressed at a time
_SEARCH_BYTES = 1 << 16  # bytes read at a time to find the end of a word or line


@dataclass(frozen=True)
class Block:
    """A block of bytes of a file, `buffer[start:stop]`; valid until the next block is requested.

    `buffer` is uint8. The requested context is before `start` and after `stop`, and 64 zero bytes are on either side of
    it. `offset` is the file offset of the first byte, and `size` is the size of the file.
    """

    buffer: np.ndarray
    start: int
    stop: int
    path: Path
    offset: int
    size: int

    def __bytes__(self) -> bytes:
        """Return a copy of the bytes."""
        return self.buffer[self.start : self.stop].tobytes()


class TextFiles:
    """The concatenated bytes of text files, in the same order on all ranks. The constructor is collective.

    Parameters
    ----------
    names : str or sequence of str
        Files, folders (searched recursively, without hidden files) and globs (`**` matches folders at any depth); a
        text may hold several names separated by commas. Files are ordered by name and then by path. A file that is
        named twice is read once. Only rank 0 searches for the files. Files that end in .gz, .bz2, .zst or .lz4 are
        decompressed, and files that begin with the byte order mark of UTF-16 are converted to UTF-8; each of these is
        read by one rank, the one whose range has its first byte.
    world : World or State
        The ranks that read the files. With a State, a Scalar `input` (`input2` … of further readers) keeps the
        fingerprint, and `part` refuses to continue a run with other files.

    Attributes
    ----------
    paths, sizes : list
        The path and the size in bytes of each file.
    size : int
        The sum of the sizes.
    fingerprint : int
        A 64-bit hash of the file names (without folders) and sizes.

    Raises
    ------
    UsageError
        On all ranks, if a name matches no file or a file cannot be read.

    Examples
    --------
    >>> _ = Path("text.txt").write_text("to be or not to be")
    >>> files = keyed.TextFiles("text.txt", World())
    >>> [bytes(block) for block in files.blocks(0, 4)]
    [b'to be ']
    """

    #: Approximate bytes read at a time: a block fits into cache.
    block = 1 << 20
    #: Files and folders in folders whose names begin with one of these are left out.
    hidden: tuple[str, ...] = (".",)

    def __init__(self, names: str | Sequence[str], world: World | State):
        state, world = (world, world.world) if isinstance(world, State) else (None, world)
        self.world = world
        files = world.on_root(partial(find_files, names, self.hidden))
        self.paths, self.sizes = [*files], [*files.values()]
        self._streams = world.on_root(lambda: [*map(is_stream, self.paths)])
        self._ends = [*accumulate(self.sizes)]
        self.size = self._ends[-1]
        self.fingerprint = fingerprint((self._name(path), size) for path, size in files.items())
        self._known: Scalar | None = None
        if state is not None:
            readers = sum(scalar.description == _KNOWN for scalar in state.scalars())
            self._known = state.scalar(f"input{readers + 1 if readers else ''}", self.fingerprint, description=_KNOWN)
        # The last search for a separator: the file, the separators, where it began, and the cut that it returned.
        self._last_search = Path(), b"", 0, 0

    @staticmethod
    def _name(path: Path) -> str:
        """Return what must not change in the path of a file when a run is resumed."""
        return path.name

    def check(self, known: int) -> None:
        """Raise UsageError if the files have changed. Not collective, but the same on all ranks.

        Parameters
        ----------
        known : int
            The earlier `fingerprint`.
        """
        check_unchanged("files", self.fingerprint, known)

    def chunks(self, chunk: int) -> int:
        """Return the number of chunks; 0 if all files are empty. Not collective.

        Parameters
        ----------
        chunk : int
            The bytes of a chunk.
        """
        return -(-self.size // chunk)

    def part(self, step: int, chunk: int) -> tuple[int, int]:
        """Return this rank's even share of a chunk: first byte and end, for `blocks`. Not collective.

        Parameters
        ----------
        step, chunk : int
            The number of the chunk, and the bytes of a chunk.

        Raises
        ------
        UsageError
            On all ranks, if the reader has a State, and the files are not those that the run began with.
        """
        if self._known is not None:
            self.check(self._known.value)
        first = step * chunk
        cuts = even_cuts(min(chunk, self.size - first), self.world.size)
        return first + cuts[self.world.rank], first + cuts[self.world.rank + 1]

    def rounds(self, begin: int, end: int, most: int) -> list[tuple[int, int]]:
        """Return even parts of a range as (first byte, end), as many on every rank. Collective.

        Parameters
        ----------
        begin, end : int
            This rank's range.
        most : int
            The maximum bytes of a part, approximately.
        """
        count = -(-(end - begin) // max(1, most))
        cuts = even_cuts(end - begin, max(1, int(self.world.allreduce(np.array([count]), "max")[0])))
        return [(begin + low, begin + high) for low, high in pairwise(cuts)]

    def blocks(
        self, begin: int, end: int, cut: bytes = SPACE, *, whole: bool = True, behind: int = 0, ahead: int = 0
    ) -> Iterator[Block]:
        """Yield the bytes `begin` to `end` of the concatenated files, in blocks of one file each. Not collective.

        Both ends move forward to the next position after a separator, or to the start or end of the file. Adjacent
        ranges therefore partition the bytes, and no word (or line) is in two ranges.

        Parameters
        ----------
        begin, end : int
            The range in bytes of the concatenated files.
        cut : bytes
            The separators: white space for words, a line end for lines.
        whole : bool
            Whether blocks also end after a separator; a longer word or line makes a block longer.
        behind, ahead : int
            The maximum bytes of the range before and after the block that the buffer holds as context.

        Raises
        ------
        AnyrankError
            If a file cannot be read or has become shorter.
        """
        for index in range(bisect_right(self._ends, begin), len(self.paths)):
            size = self.sizes[index]
            first = self._ends[index] - size
            if end <= max(begin, first):
                return
            if self._streams[index]:
                if begin <= first:
                    stream = _StreamedFile(self.paths[index])
                    yield from _Reader(stream, 0, stream.size, cut if whole else b"", behind, ahead).blocks(self.block)
            elif size:
                with _open_file(self.paths[index], size) as file:
                    low = self._next_cut(file, max(begin - first, 0), cut)
                    high = self._next_cut(file, min(end - first, size), cut)
                    yield from _Reader(file, low, high, cut if whole else b"", behind, ahead).blocks(self.block)

    def _next_cut(self, file: _File, offset: int, cut: bytes) -> int:
        """Return the first position from `offset` that follows a separator, or the end of the file."""
        path, separators, begin, next_cut = self._last_search
        if (path, separators) == (file.path, cut) and begin <= offset <= next_cut:
            return next_cut  # a search from any position between the two finds the same cut
        if offset in (0, file.size):
            return offset
        ends: list[int] = []
        position = offset - 1
        while not ends and position < file.size:
            data = bytearray(min(_SEARCH_BYTES, file.size - position))
            file.read(memoryview(data), position)
            ends = [i + 1 for byte in cut if (i := data.find(byte)) >= 0]
            position += min(ends, default=len(data))
        self._last_search = file.path, cut, offset, position
        return position


class _File:
    """An open file and the size that it had when the files were listed."""

    def __init__(self, path: Path, size: int, descriptor: int):
        self.path, self.size, self._descriptor = path, size, descriptor

    def read(self, into: memoryview, offset: int) -> None:
        """Fill `into` with the bytes from `offset`. Raises AnyrankError if the file ends earlier."""
        while into:
            try:
                count = os.preadv(self._descriptor, [into], offset)
            except OSError as error:
                raise _unreadable(self.path, error) from None
            if count == 0:
                raise AnyrankError(f"{self.path} became shorter while it was read: it now ends at byte {offset}.")
            into, offset = into[count:], offset + count


class _StreamedFile(_File):
    """A file that is decompressed, and converted from UTF-16, while it is read from its begin to its end."""

    def __init__(self, path: Path):
        super().__init__(path, sum(map(len, self._open(path))), -1)
        self._stream, self._rest = self._open(path), b""

    @staticmethod
    def _open(path: Path) -> Iterator[bytes]:
        return read_stream(path, _STREAM_BYTES, errors="replace")

    def read(self, into: memoryview, offset: int) -> None:
        """Fill `into` with the next bytes; `offset` is the end of those that were read before."""
        while into:
            data = self._rest or next(filter(None, self._stream), b"")
            if not data:
                raise AnyrankError(f"{self.path} became shorter while it was read: it now ends at byte {offset}.")
            count = min(len(data), len(into))
            into[:count], self._rest = data[:count], data[count:]
            into, offset = into[count:], offset + count


@contextmanager
def _open_file(path: Path, size: int) -> Iterator[_File]:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        yield _File(path, size, descriptor)
    finally:
        os.close(descriptor)


def _unreadable(path: Path, error: OSError) -> AnyrankError:
    return AnyrankError(f"{path} can no longer be read on this rank ({error.strerror}).")


class _Reader:
    """Read bytes `low` to `high` of a file into a buffer, block by block.

    The block begins at byte `offset` of the file and at index `front` of the buffer: the zeros and the context before
    it have this length. Byte p of the file is therefore at index `front + p - offset`.
    """

    def __init__(self, file: _File, low: int, high: int, cut: bytes, behind: int, ahead: int):
        self.file, self.low, self.high, self.cut = file, low, high, cut
        self.front, self.behind, self.ahead = MARGIN + behind, behind, ahead
        self.loaded = low  # end of the bytes of the file that are in the buffer
        self.bytes = bytearray()

    def blocks(self, size: int) -> Iterator[Block]:
        """Yield blocks of about `size` bytes."""
        offset, length_to_read = self.low, size
        while offset < self.high:
            self._fill(offset, min(offset + length_to_read + self.ahead, self.high))
            stop = self._block_end(offset)
            if stop == offset:
                length_to_read *= 2
                continue
            start, length = self.front, stop - offset
            buffer = np.frombuffer(self.bytes, np.uint8)
            yield Block(buffer, start, start + length, self.file.path, offset, self.file.size)
            self._shift(length, self.loaded - stop)
            offset, length_to_read = stop, size

    def _fill(self, offset: int, end: int) -> None:
        """Load the file at least up to `end`, and write zeros after the last byte loaded."""
        end = max(end, self.loaded)
        filled, stop = self.front + self.loaded - offset, self.front + end - offset
        if stop + MARGIN > len(self.bytes):
            self.bytes = self.bytes[:filled] + bytes(stop + MARGIN - min(filled, len(self.bytes)))
        with memoryview(self.bytes) as view:
            self.file.read(view[filled:stop], self.loaded)
            view[stop : stop + MARGIN] = bytes(MARGIN)
        self.loaded = end

    def _block_end(self, offset: int) -> int:
        """Return the end of the block that begins at `offset`, or `offset` if more bytes must be loaded."""
        if self.loaded == self.high:
            return self.high
        last = self.loaded - self.ahead
        if not self.cut:
            return last
        shift, last_cut = self.front - offset, self.front - 1  # `shift`: from a file offset to a buffer index
        for byte in self.cut:
            last_cut = max(last_cut, self.bytes.rfind(byte, last_cut + 1, last + shift))
        return last_cut + 1 - shift

    def _shift(self, length: int, rest: int) -> None:
        """Move the bytes after the block, with the context before them, to the start of the buffer."""
        data = np.frombuffer(self.bytes, np.uint8)
        data[: self.front + rest] = data[length : length + self.front + rest].copy()
        data[:MARGIN] = 0
