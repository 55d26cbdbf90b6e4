"""Two system calls of Linux that Python's `os` does not have. Elsewhere they do nothing."""

from __future__ import annotations

import ctypes
import errno
import os

_LIBRARY = ctypes.CDLL(None, use_errno=True)
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
_START_WRITING = 2  # SYNC_FILE_RANGE_WRITE


def reserve(descriptor: int, size: int) -> None:
    """Have the file system set aside so much space: in one piece, and refused before anything is written.

    The file's length stays as it is. Raises OSError where the disk or the quota is full; a file system that cannot
    do it is left alone. (`os.posix_fallocate` would write to every page there.)
    """
    if not hasattr(_LIBRARY, "fallocate"):
        return
    if _LIBRARY.fallocate(descriptor, _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size)):
        code = ctypes.get_errno()
        if code in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(code, os.strerror(code))


def start_writing(descriptor: int, offset: int, size: int) -> None:
    """Have the system begin to put what was written on the disk, which else begins at `fsync`. Does not wait."""
    if hasattr(_LIBRARY, "sync_file_range"):
        _LIBRARY.sync_file_range(descriptor, ctypes.c_int64(offset), ctypes.c_int64(size), _START_WRITING)
