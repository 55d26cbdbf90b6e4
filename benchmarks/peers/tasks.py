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
#: What peers read that count words; the words that may be in it, and how often a line ends after one.
TEXT, VOCABULARY, ENDING = "text.txt", 200_000, 0.1
#: The most frequent words that are compared one by one, and the groups: those whose keys are below.
TOP, SAMPLE = 10, 1_000_000


class DifferError(Exception):
    """Two peers gave different answers."""


def near_pi(peer: type[Peer], size: Size, _ours: Answer, theirs: Answer) -> str:
    """Check π; five standard errors are allowed, which chance exceeds once in two million times."""
    points = round(size["points"] * peer.share_of(size))
    share = math.pi / 4
    off = abs(4 * float(theirs["hits"]) / points - math.pi) / (4 * math.sqrt(share * (1 - share) / points))
    if off > 5:
        raise DifferError(f"π is off by {off:.1f} standard errors")
    return f"π within {max(1, math.ceil(off))} σ"


def near_ours(peer: type[Peer], _size: Size, ours: Answer, theirs: Answer) -> str:
    """Compare fields: the same bits, or values that differ by no more than the peer's tolerance."""
    if ours.keys() != theirs.keys() or any(ours[name].shape != theirs[name].shape for name in ours):
        raise DifferError(f"{sorted(theirs)} are not what was asked for, {sorted(ours)}")
    if all(ours[name].tobytes() == theirs[name].tobytes() for name in ours):
        return "same bits"
    off = max(float(np.max(np.abs(theirs[name] - ours[name])) / np.max(np.abs(ours[name]))) for name in ours)
    if not off <= peer.tolerance:
        raise DifferError(f"off by {off:.1e} of the largest value")
    return f"off by {off:.0e}"


def all_alike(_peer: type[Peer], _size: Size, ours: Answer, theirs: Answer) -> str:
    """Compare two answers, which must be equal in everything; the error says what is not."""
    for name, value in ours.items():
        if not np.array_equal(value, theirs[name]):
            raise DifferError(f"{name}: {theirs[name]}, ours {value}")
    return "all counts alike"


def near_groups(peer: type[Peer], size: Size, ours: Answer, theirs: Answer) -> str:
    """Check that groups and counts are the same, and each sum and mean is within the peer's tolerance of ours.

    What a peer makes of a share of the rows is compared with what NumPy makes of it.
    """
    if peer.share_of(size) < 1:
        ours = by_numpy(*table_of(size, peer.share_of(size)))
    for name, value in ours.items():
        if value.dtype.kind == "i" and not np.array_equal(value, theirs[name]):
            raise DifferError(f"{name} is not ours")
    off = max(float(np.max(np.abs(theirs[name] / ours[name] - 1))) for name in ("sum", "mean"))
    if not off <= peer.tolerance:
        raise DifferError(f"a sum or mean is off by {off:.1e} of itself")
    return f"sums off by {off:.0e}" if off else "same bits"


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
    #: Makes what all peers read, in the folder above each peer's own.
    prepare: Callable[[Size, Path], None] = lambda _size, _folder: None
    #: Whether ours is started anew for each peer, because the memory is too small for all of them.
    apart: bool = False


def write_text(size: Size, folder: Path) -> None:
    """Write a text of words of 3 to 12 letters, of which the k-th of the vocabulary is drawn with p ∝ 1/k."""
    random = np.random.default_rng(7)
    sizes = random.integers(3, 13, 2 * VOCABULARY)
    letters = random.integers(97, 123, (2 * VOCABULARY, 12), np.uint8)
    drawn = (row[:n].tobytes() for row, n in zip(letters, sizes, strict=True))
    words = [*dict.fromkeys(drawn)][:VOCABULARY]
    ended = np.array([word + end for end in (b" ", b"\n") for word in words], object)
    shares = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    with (folder / TEXT).open("wb") as file:
        while file.tell() < size["bytes"]:
            which = np.searchsorted(shares, random.random(1 << 16) * shares[-1])
            which[random.random(len(which)) < ENDING] += VOCABULARY
            file.write(b"".join(ended[which]))
        file.truncate(size["bytes"])


def counted(words: Sequence[bytes], counts: Sequence[int]) -> Answer:
    """Return what is compared of words by their counts, then in their order: the first, and a checksum of all."""
    lines = b"".join(b"%b %d\n" % pair for pair in zip(words, counts, strict=True))
    return {
        "first": np.array(words[:TOP], bytes),
        "counts": np.array(counts[:TOP], np.int64),
        "distinct": np.array(len(words)),
        "words": np.array(sum(counts)),
        "checksum": np.array(zlib.crc32(lines), np.uint32),
    }


def keys_of(size: Size) -> np.ndarray:
    """Return the keys to be sorted."""
    return np.random.default_rng(7).integers(-(2**63), 2**63, size["keys"])


def in_order(blocks: Sequence[np.ndarray]) -> Answer:
    """Return what is compared of sorted keys in several blocks: a checksum of all."""
    checksum = 0
    for block in blocks:
        checksum = zlib.crc32(np.ascontiguousarray(block, np.int64).data, checksum)
    return {"keys": np.array(checksum, np.uint32)}


def table_of(size: Size, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys and values to be grouped; a share of the rows are the first ones."""
    rows = round(size["rows"] * share)
    keys = np.random.default_rng(7).integers(0, size["groups"], rows)
    return keys, np.random.default_rng(8).lognormal(size=rows)


def grouped(key: np.ndarray, count: np.ndarray, sum: np.ndarray, mean: np.ndarray) -> Answer:
    """Return what is compared of groups in any order: the numbers of groups and rows, and a sample of them, by key."""
    few = np.flatnonzero(key < SAMPLE)
    few = few[np.argsort(key[few])]
    return {
        "groups": np.array(len(key)),
        "rows": np.array(count.sum(), np.int64),
        "keys": np.array((key * count).sum(), np.int64),
        "key": key[few],
        "count": count[few].astype(np.int64),
        "sum": sum[few],
        "mean": mean[few],
    }


def by_numpy(keys: np.ndarray, values: np.ndarray) -> Answer:
    """Return the groups that NumPy makes of rows."""
    key, inverse, count = np.unique(keys, return_inverse=True, return_counts=True)
    total = np.bincount(inverse, values)
    return grouped(key, count, total, total / count)


def weather_start(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the initial p, u and v of NCAR's benchmark on side² cells."""
    from anyrank.programs.weather import Weather

    i, j = np.ogrid[:side, :side]
    return Weather(rows=side, columns=side).start(None, i, j)  # type: ignore[arg-type]  # asks for no state


def numbers(size: Size) -> np.ndarray:
    """Return the numbers to be added up."""
    return np.random.default_rng(7).normal(size=size["elements"])


#: The fields of the checkpoint.
NAMES = ("p", "u", "v", "p_old", "u_old", "v_old")


def rows_of(comm: Any, side: int) -> slice:
    """Return this rank's rows of a field."""
    return slice(side * comm.rank // comm.size, side * (comm.rank + 1) // comm.size)


def local_fields(comm: Any, side: int) -> dict[str, np.ndarray]:
    """Return this rank's rows of every field, each with other contents."""
    mine = rows_of(comm, side)
    random = np.random.default_rng(comm.rank)
    return {name: random.random((mine.stop - mine.start, side)) for name in NAMES}


def checksum(read: Callable[[str], np.ndarray]) -> Answer:
    """Return one number for each whole field that was read back."""
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
    "wordcount": Job(
        "counts of all words, {bytes:,} bytes of text", ({"bytes": 146_000_000},), {"bytes": 1_000_000},
        "B", lambda size: size["bytes"], all_alike, prepare=write_text,
    ),
    "sort": Job(
        "sort of {keys:,} int64", ({"keys": 50_000_000},), {"keys": 100_000},
        "keys", lambda size: size["keys"],
    ),
    "groupby": Job(
        "count, sum and mean of {rows:,} rows in {groups:,} groups",
        tuple({"rows": 100_000_000, "groups": groups} for groups in (100, 1_000_000, 50_000_000)),
        {"rows": 100_000, "groups": 1000},
        "rows", lambda size: size["rows"], near_groups, apart=True,
    ),
}  # fmt: skip
