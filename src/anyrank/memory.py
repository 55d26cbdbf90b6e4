"""Memory: what a process has of the host's, and what it may still take."""

from __future__ import annotations

import os
from pathlib import Path

from anyrank.errors import UsageError

#: The least that is of use to a program that spills the rest.
LEAST = 16 << 20


def resident() -> int:
    """The bytes of memory that this process has now, shared ones included."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    """The most bytes of memory that this process ever had: not, as `ru_maxrss`, those of whoever started it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def budget(limit: int | None, sharing: int) -> int:
    """The bytes that this process may still take for data, under a limit for all that it has.

    Without one, three quarters of its part of what the node has free, which it shares with `sharing` processes.
    Raises UsageError where a limit leaves less than LEAST.
    """
    if limit is None:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        return free * 3 // 4 // sharing
    left = limit - resident()
    if left < LEAST:
        raise UsageError(
            f"--memory-limit {limit} leaves a rank {left} bytes for data, beside {limit - left} that it has already, "
            f"and must leave {LEAST}. Use --memory-limit {(limit - left + LEAST) // 1_000_000 + 1}MB or more."
        )
    return left
