"""Durable files: a file gets its name only when it is complete and on the disk.

Write under a temporary name, sync the file, rename it, and sync its folder. After a kill or a power cut there is
either the old file or the new one. This module writes every file that anyrank replaces.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from anyrank.errors import AnyrankError, UsageError, of_all_ranks

if TYPE_CHECKING:
    from anyrank.world import World

T = TypeVar("T")
#: The offset of some bytes in a file, and the bytes.
Piece = tuple[int, memoryview]
_LIBRARY = ctypes.CDLL(None, use_errno=True)
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
_START_WRITING = 2  # SYNC_FILE_RANGE_WRITE


def temporary_of(path: Path, *marks: str) -> Path:
    """Return the temporary name of a file: hidden, in the same folder, with `marks` that identify the process."""
    return path.with_name(".".join(["", path.name, *marks, "tmp"]))


def make_folder(folder: Path) -> None:
    """Make the folder if it does not exist, so that a power cut does not undo it."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a small file: readers see the old content or the new one, also after a power cut. Not collective.

    Parameters
    ----------
    path : Path
        The file, which need not exist.
    content : str or bytes
        The whole content; text is written as UTF-8.

    Raises
    ------
    OSError
        If the file system refuses; then the file is unchanged. The error names the file, not the temporary one.
    """
    temporary = temporary_of(path)
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        publish(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def open_collectively(
    world: World, path: Path, lay_out: Callable[[Path], T]
) -> Iterator[tuple[T, Callable[[Iterable[Piece]], None]]]:
    """Write one file on all ranks under a temporary name, and rename it at the end of the block. Collective.

    Parameters
    ----------
    world : World
        The ranks that write.
    path : Path
        The file, on a file system that all ranks share.
    lay_out : callable
        Creates the file of a path. Only rank 0 calls it, and its result is broadcast to all ranks.

    Yields
    ------
    object, callable
        The result of `lay_out`, and a collective function that writes the pieces of this rank that it is given.

    Raises
    ------
    AnyrankError
        On all ranks, if any rank cannot write; then the file is unchanged. A UsageError of the block stays as it is.
    """
    temporary = temporary_of(path)  # one run writes to a folder, and overwrites the temporary file of a dead one
    descriptor = -1

    def put(pieces: Iterable[Piece]) -> None:
        with world.raise_on_all_ranks(OSError, AnyrankError):
            for offset, data in pieces:
                write_all(descriptor, data, offset)

    try:
        offsets = world.on_root(lambda: lay_out(temporary))
        with world.raise_on_all_ranks(OSError):
            descriptor = os.open(temporary, os.O_WRONLY)
        yield offsets, put
        with world.raise_on_all_ranks(OSError):
            sync(descriptor)
        world.on_root(lambda: publish(temporary, path))
    except AnyrankError as refusal:
        if world.rank == 0:
            temporary.unlink(missing_ok=True)
        if isinstance(refusal, UsageError):
            raise
        raise of_all_ranks(AnyrankError(f"{path} was not written: {refusal}")) from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


@contextmanager
def open_for_writing(path: Path) -> Iterator[int]:
    """Open an existing file for positioned writes, and sync it at the end of the block; yields its descriptor."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        yield descriptor
        sync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all bytes at an offset, in several calls if the system writes fewer at once. Raises OSError."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        if written == 0:
            raise OSError(errno.EIO, "the file system takes no more bytes and gives no reason")
        data, offset = data[written:], offset + written


def reserve(descriptor: int, size: int) -> None:
    """Reserve disk space for a file, so that a full disk is noticed before anything is written.

    The length of the file does not change. Raises OSError if the disk or the quota is full. A file system that cannot
    reserve space is ignored. (`os.posix_fallocate` would write to every page there.)
    """
    if not hasattr(_LIBRARY, "fallocate"):
        return
    if _LIBRARY.fallocate(descriptor, _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size)):
        code = ctypes.get_errno()
        if code in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(code, os.strerror(code))


def start_writing(descriptor: int, offset: int, size: int) -> None:
    """Start the transfer of the written bytes to the disk, which otherwise starts at `sync`. Does not wait."""
    if hasattr(_LIBRARY, "sync_file_range"):
        _LIBRARY.sync_file_range(descriptor, ctypes.c_int64(offset), ctypes.c_int64(size), _START_WRITING)


def publish(temporary: Path, path: Path) -> None:
    """Sync a complete file and rename it; after the return a power cut undoes neither. Raises OSError."""
    sync_file(temporary)
    temporary.replace(path)
    sync_folder(path.parent)


def sync(descriptor: int) -> None:
    """Wait until the bytes written to an open file are on the disk."""
    os.fsync(descriptor)


def sync_file(path: Path) -> None:
    """Wait until the bytes written to the file are on the disk."""
    with open_for_writing(path):
        pass


def sync_folder(folder: Path) -> None:
    """Wait until the file names of the folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
