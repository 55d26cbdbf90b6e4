"""The checkpoint folder: the names of files, and which are kept."""

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
#: Seconds that a writer which was just killed may take to die.
DYING = 0.5
#: A temporary file that another host wrote is stale when nothing was written to it for this long, in seconds.
SILENCE = 600.0


def path_of(folder: Path, step: int) -> Path:
    """The file of the checkpoint at a step."""
    return folder / f"step-{step:012d}.h5"


def temporary_of(folder: Path, step: int) -> Path:
    """Where this process writes the checkpoint at a step until it is whole: the name tells who writes."""
    return durable.temporary_of(path_of(folder, step), socket.gethostname(), str(os.getpid()))


def mark_of(path: Path) -> Path:
    """The empty file whose presence makes a checkpoint stay for ever."""
    return path.with_suffix(".keep")


def step_of(path: Path) -> int:
    """The step that a checkpoint's name tells, −1 where it is no checkpoint's name."""
    match = _FINAL.fullmatch(path.name)
    return int(match[1]) if match else -1


def found(folder: Path) -> list[Path]:
    """The checkpoints in the folder, the newest first."""
    return sorted((p for p in folder.glob("step-*.h5") if step_of(p) >= 0), key=step_of, reverse=True)


def rotate(folder: Path, newest: Path, keep: int, refused: Collection[Path] = ()) -> None:
    """Delete the checkpoints before `newest`, which is durable, but the last `keep` (with it) and marked ones.

    Refused ones do not count among those that stay, nor do later ones, left by a future that is no more.
    """
    past = [path for path in found(folder) if step_of(path) <= step_of(newest)]
    good = [path for path in past if path not in refused or path == newest]
    for path in past:
        if path not in good[: max(keep, 1)] and not mark_of(path).exists():
            with suppress(OSError):  # what is left costs space, not the run, and goes at the next rotation
                path.unlink()
    durable.sync_folder(folder)


def sweep(folder: Path) -> list[str]:
    """Remove the temporary files whose writers are dead; their names. This process must not be writing."""
    swept = []
    for path in sorted(folder.glob(".step-*.tmp")):
        match = _TEMPORARY.fullmatch(path.name)
        if match and not _alive(path, match["host"], int(match["pid"])):
            with suppress(OSError):
                path.unlink()
                swept.append(path.name)
    return swept


def _alive(path: Path, host: str, pid: int) -> bool:
    if host != socket.gethostname():
        with suppress(OSError):
            return time.time() - path.stat().st_mtime < SILENCE
        return False
    if pid == os.getpid():
        return False
    give_up = time.monotonic() + DYING
    while alive := _runs(pid):
        if time.monotonic() > give_up:
            break
        time.sleep(0.02)
    return alive


def _runs(pid: int) -> bool:
    """Whether a process of this host runs; one that is dead but not yet buried does not."""
    try:
        os.kill(pid, 0)
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
            not in "ZX"
        )
    except ProcessLookupError:
        return False
    except OSError:  # another user's, or no /proc here
        return True
