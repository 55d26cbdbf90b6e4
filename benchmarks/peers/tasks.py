"""The jobs that are compared: their sizes, what all peers start from, and when answers agree."""

from __future__ import annotations

import math
import os
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peer import Peer

Size = dict[str, int]
Answer = dict[str, np.ndarray]
#: Of the weather: metres, seconds and the time filter's weight, as in the benchmark of NCAR/SWM.
DX = DY = 100_000.0
DT, ALPHA = 90.0, 0.001
#: Why π is not further ahead of NumPy, and of what runs NumPy.
LIMIT = "ours makes 89 % of what the vector units can for Philox4x32-10: see `results/tuning-2026-11-21.md`"


class DifferError(Exception):
    """Two peers gave different answers."""


def near_pi(peer: type[Peer], size: Size, _ours: Answer, theirs: Answer) -> str:
    """Five standard errors are allowed: chance takes more once in two million times."""
    points = round(size["points"] * peer.share)
    share = math.pi / 4
    off = abs(4 * float(theirs["hits"]) / points - math.pi) / (4 * math.sqrt(share * (1 - share) / points))
    if off > 5:
        raise DifferError(f"π is off by {off:.1f} standard errors")
    return f"π within {max(1, math.ceil(off))} σ"


def near_ours(peer: type[Peer], _size: Size, ours: Answer, theirs: Answer) -> str:
    """The same bits, or values that differ by no more than the peer's tolerance."""
    if ours.keys() != theirs.keys() or any(ours[name].shape != theirs[name].shape for name in ours):
        raise DifferError(f"{sorted(theirs)} are not what was asked for, {sorted(ours)}")
    if all(ours[name].tobytes() == theirs[name].tobytes() for name in ours):
        return "same bits"
    off = max(float(np.max(np.abs(theirs[name] - ours[name])) / np.max(np.abs(ours[name]))) for name in ours)
    if not off <= peer.tolerance:
        raise DifferError(f"off by {off:.1e} of the largest value")
    return f"off by {off:.0e}"


@dataclass(frozen=True)
class Job:
    """One job: its title (a format of the size), the sizes and the quick one, the unit of its `work`, the check."""

    title: str
    sizes: tuple[Size, ...]
    quick: Size
    unit: str
    work: Callable[[Size], float]
    check: Callable[[type[Peer], Size, Answer, Answer], str] = near_ours
    #: What is measured: a name in what `run` gives, and in words.
    measures: tuple[tuple[str, str], ...] = (("seconds", ""),)


JOBS = {
    "pi": Job(
        "π, {points:,} points", ({"points": 200_000_000},), {"points": 1_000_000},
        "points", lambda size: size["points"], near_pi,
    ),
    "weather": Job(
        "weather, {side}²", ({"side": 1024, "steps": 10}, {"side": 4096, "steps": 2}), {"side": 48, "steps": 6},
        "cell-steps", lambda size: size["side"] ** 2 * size["steps"],
    ),
    "sum": Job(
        "sum of {elements:,} float64", ({"elements": 100_000_000},), {"elements": 100_000},
        "elements", lambda size: size["elements"],
    ),
    "checkpoint": Job(
        "checkpoint, 6 fields of {side}²", ({"side": 4000},), {"side": 40},
        "B", lambda size: 48 * size["side"] ** 2,
        measures=(("seconds", "until on the disk"), ("held", "steps held up")),
    ),
}  # fmt: skip


def weather_start(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The initial p, u and v of NCAR's benchmark on side² cells."""
    from anyrank.programs.weather import Weather

    i, j = np.ogrid[:side, :side]
    return Weather(rows=side, columns=side).start(None, i, j)  # type: ignore[arg-type]  # asks for no state


def numbers(size: Size) -> np.ndarray:
    """The numbers to be added up."""
    return np.random.default_rng(7).normal(size=size["elements"])


#: The fields of the checkpoint.
NAMES = ("p", "u", "v", "p_old", "u_old", "v_old")


def rows_of(comm: Any, side: int) -> slice:
    """This rank's rows of a field."""
    return slice(side * comm.rank // comm.size, side * (comm.rank + 1) // comm.size)


def local_fields(comm: Any, side: int) -> dict[str, np.ndarray]:
    """This rank's rows of every field, each with other contents."""
    mine = rows_of(comm, side)
    random = np.random.default_rng(comm.rank)
    return {name: random.random((mine.stop - mine.start, side)) for name in NAMES}


def checksum(read: Callable[[str], np.ndarray]) -> Answer:
    """One number for each whole field that was read back."""
    return {name: np.array(zlib.crc32(np.ascontiguousarray(read(name)).data), np.uint32) for name in NAMES}


def sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    descriptor = os.open(path, os.O_RDWR)
    os.fsync(descriptor)
    os.close(descriptor)


def forget(comm: Any, paths: Sequence[Path]) -> None:
    """Delete files and let the disk finish with them."""
    comm.Barrier()
    if comm.rank == 0:
        for path in paths:
            path.unlink(missing_ok=True)
        os.sync()
        time.sleep(0.3)
    comm.Barrier()
