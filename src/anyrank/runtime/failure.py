"""Errors that nobody caught: one report per distinct error, with its ranks, and never a hang."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from anyrank.device.find import first_line, is_device_error
from anyrank.device.gpu import Gpu
from anyrank.errors import AnyrankError, spans
from anyrank.kernel import BODIES
from anyrank.world import World

#: Seconds that the first failing rank waits for others that fail alike, before it reports and aborts; and at most where
#: the error is one of ours, which all ranks may raise.
GRACE, PATIENCE = 0.4, 2.0
#: Shapes of arrays, as messages of NumPy and of anyrank write them.
_SHAPES = re.compile(r"shapes?(?: \(\d+,[\d, ]*\))+")
Note = Callable[[str, str], None]


def of_the_gpu(world: World, error: BaseException, out: Path | None) -> AnyrankError | None:
    """What a rank tells whose GPU raised the error: its place, and how to go on if there is a run folder `out`; None
    where the error is no GPU's."""
    if not is_device_error(error) or not isinstance(gpu := BODIES.device, Gpu):
        return None
    what = first_line(error)
    if isinstance(error, MemoryError):
        what += "; others may use the card. Use more GPUs or fewer cells, or --body cython"
    where = f"rank {world.rank} on {os.uname().nodename}: {gpu.name} ({gpu.card})"
    then = f". Go on from the last checkpoint with: anyrank resume {out}" if out else ""
    return AnyrankError(f"{where} failed: {what}{then}")


def report_and_abort(world: World, error: BaseException, folder: Path, note: Note = lambda ranks, line: None) -> None:
    """Report this rank's error together with those of other ranks, then end all ranks, with status 1 or our error's.

    Not collective: ranks that do not fail sit in some call and are ended. The failing ranks meet in
    `folder`, which they share: the first to come waits a moment for others, prints, calls
    `note(ranks, last line)`, and aborts. It returns after the report where nobody has to be ended: in a world of
    one rank, and where all ranks raise the same error of ours, for mpiexec may lose the status of an abort.
    """
    if world.size == 1:
        print(_text(error), file=sys.stderr, flush=True)
        note("0", _last_line(error))
        return
    alike = False
    try:
        alike = _tell(world, error, folder, note)
    except OSError:
        print(f"anyrank: rank {world.rank} of {world.size} failed:\n{_text(error)}", file=sys.stderr, flush=True)
        note(str(world.rank), _last_line(error))
    finally:
        if not alike:
            world.abort(error.status if isinstance(error, AnyrankError) else 1)


def _tell(world: World, error: BaseException, folder: Path, note: Note) -> bool:
    """Print the report of all ranks' errors, or leave that to another rank; whether all have the same error of ours."""
    alike = folder / "alike"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"rank-{world.rank:06d}").write_text(_text(error), "utf-8", "backslashreplace")
    try:
        os.close(os.open(folder / "first", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        # The first one ends us, or says that all are alike; if it died on the way, we go on.
        if _wait(5 * GRACE + PATIENCE, alike.exists):
            (folder / f"left-{world.rank:06d}").touch()
            return True
        same = False
    else:
        same = _same(world, error, folder)
    print(report(folder, world.size), file=sys.stderr, flush=True)
    note(spans(_failed(folder) or [world.rank]), _last_line(error))
    if same:
        alike.touch()
        _wait(5 * GRACE + PATIENCE, lambda: len([*folder.glob("left-*")]) == world.size - 1)
    shutil.rmtree(folder, ignore_errors=True)
    return same


def _same(world: World, error: BaseException, folder: Path) -> bool:
    """Wait a moment for the errors of other ranks; whether all ranks have the same one, and it is ours."""
    ours = isinstance(error, AnyrankError)
    everybody = _wait(PATIENCE if ours else GRACE, lambda: len(_failed(folder)) == world.size)
    return ours and everybody and len(_distinct(folder)) == 1


def _wait(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true within so many seconds."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _failed(folder: Path) -> list[int]:
    """The ranks whose errors are there."""
    return [int(path.name[5:]) for path in folder.glob("rank-*") if path.stat().st_size]


def _last_line(error: BaseException) -> str:
    """What an error says in a line: the last one of a traceback, the first one of what is told to users."""
    return _text(error).splitlines()[0 if isinstance(error, AnyrankError) else -1]


def _text(error: BaseException) -> str:
    if isinstance(error, AnyrankError):
        return str(error)
    return "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()


def report(folder: Path, size: int) -> str:
    """The distinct errors that ranks have left in the folder, each once, with the ranks it came from."""
    parts = []
    for text, where in _distinct(folder):
        many = "rank" if len(where) == 1 else "ranks"
        parts.append(f"anyrank: {many} {spans(where)} of {size} failed:\n{text}")
    return "\n".join(parts)


def _distinct(folder: Path) -> list[tuple[str, list[int]]]:
    """The distinct errors with their ranks.

    Those that differ in the shapes of arrays alone are one, because ranks have blocks of several shapes.
    """
    found: dict[str, tuple[str, list[int]]] = {}
    for path in sorted(folder.glob("rank-*")):
        text = path.read_text(encoding="utf-8")
        found.setdefault(_SHAPES.sub("shape", text), (text, []))[1].append(int(path.name[5:]))
    return list(found.values())
