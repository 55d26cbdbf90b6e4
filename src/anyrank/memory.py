"""Memory: what a process has of the host's, and what it may still take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from anyrank.errors import UsageError

#: The least that is of use to a program that spills the rest.
LEAST = 16 << 20
#: Where Linux tells of memory, and of control groups, which batch systems and containers limit it with.
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
#: Of a control group the files of its limit and its use, and the part of its use that can be given back, by version.
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")


def resident() -> int:
    """The bytes of memory that this process has now, shared ones included."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    """The most bytes of memory that this process ever had: not, as `ru_maxrss`, those of whoever started it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def available() -> int:
    """The bytes of memory that the processes of this node may still take, by its kernel and its control groups."""
    lines = (PROC / "meminfo").read_text(encoding="utf-8").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return max(min([free, *_left_to_groups()]), 0)


def _left_to_groups() -> Iterator[int]:
    """What is left of the limit of each control group that this process is in, directly or not."""
    groups = ""
    with suppress(OSError):
        groups = (PROC / "self/cgroup").read_text(encoding="utf-8")
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            base, names = (CGROUPS / "memory", _V1) if controllers else (CGROUPS, _V2)
            inner = base / path.strip("/")
            for group in (inner, *(parent for parent in inner.parents if parent.is_relative_to(base))):
                with suppress(OSError, ValueError):  # the group of a container may not be seen within it
                    yield _left_to(group, *names)


def _left_to(group: Path, limit: str, used: str, inactive: str) -> int:
    most = int((group / limit).read_text(encoding="utf-8"))  # "max" is no number: there is no limit
    facts = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
    return most - int((group / used).read_text(encoding="utf-8")) + int(facts.get(inactive, 0))


def budget(limit: int | None, sharing: int) -> int:
    """The bytes that this process may still take for data, under a limit for all that it has.

    Without one, three quarters of its part of what the node has free, which it shares with `sharing` processes.
    Raises UsageError where a limit leaves less than LEAST.
    """
    if limit is None:
        return available() * 3 // 4 // sharing
    left = limit - resident()
    if left < LEAST:
        raise UsageError(
            f"--memory-limit {limit} leaves a rank {left} bytes for data, beside {limit - left} that it has already, "
            f"and must leave {LEAST}. Use --memory-limit {(limit - left + LEAST) // 1_000_000 + 1}MB or more."
        )
    return left
