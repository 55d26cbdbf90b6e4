"""The memory of the host: how much a process uses, and how much it may still allocate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from anyrank.errors import UsageError

#: The smallest budget in bytes with which a program that spills to disk can work.
MINIMUM = 16 << 20
#: The folders of Linux for memory, and for control groups, by which batch systems and containers limit memory.
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
#: For each version of control groups: the files of the limit and of the use, and the entry of the reclaimable use.
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")


def resident() -> int:
    """Return the resident memory of this process in bytes, with shared memory."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    """Return the peak resident memory of this process in bytes; `ru_maxrss` would include that of its parent."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def available() -> int:
    """Return the bytes that the processes of this node may still allocate, from the kernel and the control groups."""
    lines = (PROC / "meminfo").read_text(encoding="utf-8").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return max(min([free, *_free_in_groups()]), 0)


def _free_in_groups() -> Iterator[int]:
    """Yield the free bytes of each control group of this process, and of its parent groups."""
    groups = ""
    with suppress(OSError):
        groups = (PROC / "self/cgroup").read_text(encoding="utf-8")
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            base, names = (CGROUPS / "memory", _V1) if controllers else (CGROUPS, _V2)
            inner = base / path.strip("/")
            for group in (inner, *(parent for parent in inner.parents if parent.is_relative_to(base))):
                with suppress(OSError, ValueError):  # the group of a container may not be visible inside of it
                    yield _left_to(group, *names)


def _left_to(group: Path, limit: str, used: str, inactive: str) -> int:
    most = int((group / limit).read_text(encoding="utf-8"))  # ValueError for "max", which means no limit
    statistics = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
    return most - int((group / used).read_text(encoding="utf-8")) + int(statistics.get(inactive, 0))


def budget(limit: int | None, sharing: int) -> int:
    """Return the bytes that this process may still allocate for data.

    `limit` is the limit of its total memory. Without a limit the result is three quarters of its share of the free
    memory of the node, which `sharing` processes share. Raises UsageError if a limit leaves less than MINIMUM.
    """
    if limit is None:
        return available() * 3 // 4 // sharing
    left = limit - resident()
    if left < MINIMUM:
        raise UsageError(
            f"--memory-limit {limit} leaves a rank {left} bytes for data, beside {limit - left} that it already uses, "
            f"and must leave {MINIMUM}. Use --memory-limit {(limit - left + MINIMUM) // 1_000_000 + 1}MB or more."
        )
    return left
