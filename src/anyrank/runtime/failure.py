"""Uncaught errors: one report for each distinct error, with its ranks, and then the end of all ranks."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from anyrank.device.gpu import Gpu
from anyrank.device.select import first_line, is_device_error
from anyrank.errors import AnyrankError, as_ranges
from anyrank.kernel import BODIES
from anyrank.world import World

#: Seconds for which the first failing rank waits for the errors of other ranks before it reports and aborts. An
#: AnyrankError waits longer (PATIENCE), because all ranks may raise it.
GRACE, PATIENCE = 0.4, 2.0
#: Array shapes as they appear in messages of NumPy and anyrank.
_SHAPES = re.compile(r"shapes?(?: \(\d+,[\d, ]*\))+")
Note = Callable[[str, str], None]


def gpu_failure(world: World, error: BaseException, out: Path | None) -> AnyrankError | None:
    """Return the message for an error of this rank's GPU (rank, host, card, how to resume); None for other errors."""
    if not is_device_error(error) or not isinstance(gpu := BODIES.device, Gpu):
        return None
    what = first_line(error)
    if isinstance(error, MemoryError):
        what += "; others may use the card. Use more GPUs or fewer cells, or --body cython"
    where = f"rank {world.rank} on {os.uname().nodename}: {gpu.name} ({gpu.card})"
    then = f". Continue from the last checkpoint with: anyrank resume {out}" if out else ""
    return AnyrankError(f"{where} failed: {what}{then}")


def report_and_abort(world: World, error: BaseException, folder: Path, note: Note = lambda ranks, line: None) -> None:
    """Report this rank's error together with those of other ranks, then abort all ranks.

    The status is that of an AnyrankError, else 1. Not collective: ranks that did not fail may wait in an MPI call, and
    the abort ends them. The failing ranks write their errors to the shared `folder`. The first of them waits a moment
    for others, prints the report, calls `note(ranks, last line)`, and aborts. The function returns without an abort in
    a world of one rank, and if all ranks raise the same AnyrankError, because mpiexec may lose the status of an abort.
    """
    if world.size == 1:
        print(_text(error), file=sys.stderr, flush=True)
        note("0", _last_line(error))
        return
    identical = False
    try:
        identical = _report_once(world, error, folder, note)
    except OSError:
        print(f"anyrank: rank {world.rank} of {world.size} failed:\n{_text(error)}", file=sys.stderr, flush=True)
        note(str(world.rank), _last_line(error))
    finally:
        if not identical:
            world.abort(error.status if isinstance(error, AnyrankError) else 1)


def _report_once(world: World, error: BaseException, folder: Path, note: Note) -> bool:
    """Let one rank print the report of all errors; return whether all ranks raised the same AnyrankError."""
    identical = folder / "alike"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"rank-{world.rank:06d}").write_text(_text(error), "utf-8", "backslashreplace")
    try:
        os.close(os.open(folder / "first", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        # The first failing rank aborts this one, or marks all errors as identical. If it died, this rank reports.
        if _wait(5 * GRACE + PATIENCE, identical.exists):
            (folder / f"left-{world.rank:06d}").touch()
            return True
        same = False
    else:
        same = _same(world, error, folder)
    print(report(folder, world.size), file=sys.stderr, flush=True)
    note(as_ranges(_failed(folder) or [world.rank]), _last_line(error))
    if same:
        identical.touch()
        _wait(5 * GRACE + PATIENCE, lambda: len([*folder.glob("left-*")]) == world.size - 1)
    shutil.rmtree(folder, ignore_errors=True)
    return same


def _same(world: World, error: BaseException, folder: Path) -> bool:
    """Wait a moment for the errors of other ranks; return whether all ranks raised the same AnyrankError."""
    ours = isinstance(error, AnyrankError)
    all_failed = _wait(PATIENCE if ours else GRACE, lambda: len(_failed(folder)) == world.size)
    return ours and all_failed and len(_distinct(folder)) == 1


def _wait(seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait for the condition, at most `seconds`; return whether it became true."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _failed(folder: Path) -> list[int]:
    """Return the ranks that have written an error."""
    return [int(path.name[5:]) for path in folder.glob("rank-*") if path.stat().st_size]


def _last_line(error: BaseException) -> str:
    """Return one line for an error: the last line of a traceback, or the first line of an AnyrankError."""
    return _text(error).splitlines()[0 if isinstance(error, AnyrankError) else -1]


def _text(error: BaseException) -> str:
    if isinstance(error, AnyrankError):
        return str(error)
    return "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()


def report(folder: Path, size: int) -> str:
    """Return the report: every distinct error in the folder once, with its ranks."""
    parts = []
    for text, where in _distinct(folder):
        many = "rank" if len(where) == 1 else "ranks"
        parts.append(f"anyrank: {many} {as_ranges(where)} of {size} failed:\n{text}")
    return "\n".join(parts)


def _distinct(folder: Path) -> list[tuple[str, list[int]]]:
    """Return the distinct errors with their ranks.

    Errors that differ only in array shapes count as the same, because ranks have blocks of different shapes.
    """
    errors: dict[str, tuple[str, list[int]]] = {}
    for path in sorted(folder.glob("rank-*")):
        text = path.read_text(encoding="utf-8")
        errors.setdefault(_SHAPES.sub("shape", text), (text, []))[1].append(int(path.name[5:]))
    return list(errors.values())
