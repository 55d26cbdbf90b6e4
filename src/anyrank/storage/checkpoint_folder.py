"""The checkpoint folder: the names of its files, and which of them are kept."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from anyrank.storage import durable

_FINAL = re.compile(r"step-(\d+)\.h5")
_TEMPORARY = re.compile(r"\.step-\d+\.h5\.(?P<host>.+)\.(?P<pid>\d+)\.tmp")
#: Seconds that a killed process may take to end.
DYING = 0.5
#: A temporary file of another host is stale if nobody wrote to it for this many seconds.
SILENCE = 600.0


def path_of(folder: Path, step: int) -> Path:
    """Return the file of the checkpoint at a step."""
    return folder / f"step-{step:012d}.h5"


def temporary_of(folder: Path, step: int) -> Path:
    """Return the temporary file of the checkpoint at a step; its name has the host and process id of the writer."""
    return durable.temporary_of(path_of(folder, step), socket.gethostname(), str(os.getpid()))


def mark_of(path: Path) -> Path:
    """Return the empty file whose presence protects a checkpoint from deletion."""
    return path.with_suffix(".keep")


def step_of(path: Path) -> int:
    """Return the step in the name of a checkpoint, −1 if it is not the name of a checkpoint."""
    match = _FINAL.fullmatch(path.name)
    return int(match[1]) if match else -1


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the checkpoints in the folder, the newest first."""
    return sorted((p for p in folder.glob("step-*.h5") if step_of(p) >= 0), key=step_of, reverse=True)


def rotate(folder: Path, newest: Path, keep: int, refused: Collection[Path] = ()) -> None:
    """Delete old checkpoints. Kept are `newest`, which is on disk, others before it, `keep` in all, and protected ones.

    `keep` counts no checkpoint that was refused, and none of a later step, which an earlier resume may have left.
    """
    past = [path for path in checkpoint_files(folder) if step_of(path) <= step_of(newest)]
    good = [path for path in past if path not in refused or path == newest]
    for path in past:
        if path not in good[: max(keep, 1)] and not mark_of(path).exists():
            with suppress(OSError):  # the next rotation tries again; until then the file only takes space
                path.unlink()
    durable.sync_folder(folder)


def sweep(folder: Path) -> list[str]:
    """Remove the temporary files of dead processes; return their names. This process must not be writing."""
    removed = []
    for path in sorted(folder.glob(".step-*.tmp")):
        match = _TEMPORARY.fullmatch(path.name)
        if match and not _is_writing(path, match["host"], int(match["pid"])):
            with suppress(OSError):
                path.unlink()
                removed.append(path.name)
    return removed


def _is_writing(path: Path, host: str, pid: int) -> bool:
    """Whether the process of a temporary file may still run; on another host only the time of the file shows it."""
    if host != socket.gethostname():
        with suppress(OSError):
            return time.time() - path.stat().st_mtime < SILENCE
        return False
    if pid == os.getpid():
        return False
    deadline = time.monotonic() + DYING
    while running := _is_running(pid):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return running


def _is_running(pid: int) -> bool:
    """Whether a process of this host runs; a zombie does not."""
    try:
        os.kill(pid, 0)
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
            not in "ZX"
        )
    except ProcessLookupError:
        return False
    except OSError:  # a process of another user, or no /proc
        return True
