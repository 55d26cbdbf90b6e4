"""The memory allocator of a rank: the memory of freed arrays is reused and not returned to the system.

For a request of 128 KiB or more, glibc takes new pages from the system, and returns them when the memory is freed.
Every temporary array of NumPy then costs one page fault per 4 KiB when it is written. With larger thresholds
(mallopt(3)) the process keeps freed memory: a NumPy heat step at 512 × 512 then runs several times as fast.
"""

from __future__ import annotations

import ctypes

#: Parameters of mallopt(3), from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
#: Requests below this size in bytes are served from memory that the process keeps.
KEEP_BELOW = 1 << 30
_LARGEST = (1 << 31) - 1


def reuse_freed_memory() -> bool:
    """Keep freed memory in this process for later requests; return whether the C library supports it.

    Not collective. The setting holds until the process ends.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):  # not glibc
        return False
    # Older versions of glibc limit the threshold. M_MMAP_MAX = 0 then disables separate pages for any request.
    kept = library.mallopt(_M_MMAP_THRESHOLD, KEEP_BELOW) or library.mallopt(_M_MMAP_MAX, 0)
    return bool(kept and library.mallopt(_M_TRIM_THRESHOLD, _LARGEST))
