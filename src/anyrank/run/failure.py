"""Errors that nobody caught: one report per distinct error, with its ranks, and never a hang."""

from __future__ import annotations

import os
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

#: Seconds that the first failing rank waits for others that fail alike, before it reports and aborts.
GRACE = 0.4
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
    `note(ranks, last line)`, and aborts. A world of one rank has nobody to end: then this returns after
    the report.
    """
    if world.size == 1:
        print(_text(error), file=sys.stderr, flush=True)
        note("0", _last_line(error))
        return
    try:
        print(_collect(world, error, folder), file=sys.stderr, flush=True)
        note(spans(_failed(folder) or [world.rank]), _last_line(error))
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        world.abort(error.status if isinstance(error, AnyrankError) else 1)


def _collect(world: World, error: BaseException, folder: Path) -> str:
    """The report of all ranks' errors; of this rank's alone where the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"rank-{world.rank:06d}").write_text(_text(error), "utf-8", "backslashreplace")
        try:
            os.close(os.open(folder / "first", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            time.sleep(5 * GRACE)  # the first one ends us; if it died on the way, we go on
        else:
            time.sleep(GRACE)
        return report(folder, world.size)
    except OSError:
        return f"anyrank: rank {world.rank} of {world.size} failed:\n{_text(error)}"


def _failed(folder: Path) -> list[int]:
    return [int(path.name[5:]) for path in folder.glob("rank-*")]


def _last_line(error: BaseException) -> str:
    return _text(error).splitlines()[-1]


def _text(error: BaseException) -> str:
    if isinstance(error, AnyrankError):
        return str(error)
    return "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()


def report(folder: Path, size: int) -> str:
    """The distinct errors that ranks have left in the folder, each once, with the ranks it came from."""
    ranks: dict[str, list[int]] = {}
    for path in sorted(folder.glob("rank-*")):
        ranks.setdefault(path.read_text(encoding="utf-8"), []).append(int(path.name[5:]))
    parts = []
    for text, where in ranks.items():
        many = "rank" if len(where) == 1 else "ranks"
        parts.append(f"anyrank: {many} {spans(where)} of {size} failed:\n{text}")
    return "\n".join(parts)
