"""The memory allocator of a rank: arrays that are freed are reused, not given back to the system page by page.

glibc serves a request of 128 KiB or more by new pages of the system, and gives them back when it is freed, so that
every temporary array of NumPy costs a page fault per 4 KiB when it is written. With larger thresholds (mallopt(3))
freed memory stays with the process: a NumPy heat step at 512 × 512 then runs several times as fast.
"""

from __future__ import annotations

import ctypes

#: Parameters of mallopt(3), from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
#: Requests below this size, in bytes, come from memory that the process keeps.
KEPT = 1 << 30
_MOST = (1 << 31) - 1


def reuse_freed_memory() -> bool:
    """Let this process keep freed memory for later requests; whether the C library can do it.

    Not collective. It holds until the process ends.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):  # not glibc
        return False
    # Older versions of glibc have a limit for the threshold: then no request at all gets pages of its own.
    below = library.mallopt(_M_MMAP_THRESHOLD, KEPT) or library.mallopt(_M_MMAP_MAX, 0)
    return bool(below and library.mallopt(_M_TRIM_THRESHOLD, _MOST))
