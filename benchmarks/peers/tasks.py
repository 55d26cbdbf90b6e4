"""The jobs to compare: their sizes, their input, and the checks of the answers."""

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
#: Parameters of the weather: metres, seconds and the weight of the time filter, as in the benchmark of NCAR/SWM.
DX = DY = 100_000.0
DT, ALPHA = 90.0, 0.001
#: Why the goals for π against NumPy are missed; results quote this text.
LIMIT = "ours makes 89 % of what the vector units can for Philox4x32-10: see `results/tuning-2026-11-21.md`"
#: The text file for counting words, the size of its vocabulary, and the probability that a line ends after a word.
TEXT, VOCABULARY, ENDING = "text.txt", 200_000, 0.1
#: The number of most frequent words to compare one by one; groups with keys below SAMPLE are compared one by one.
TOP, SAMPLE = 10, 1_000_000


class DifferError(Exception):
    """Two peers gave different answers."""


def check_pi(peer: type[Peer], size: Size, _ours: Answer, theirs: Answer) -> str:
    """Check that π is within five standard errors; chance exceeds that once in two million times."""
    points = round(size["points"] * peer.share_of(size))
    share = math.pi / 4
    off = abs(4 * float(theirs["hits"]) / points - math.pi) / (4 * math.sqrt(share * (1 - share) / points))
    if off > 5:
        raise DifferError(f"π is off by {off:.1f} standard errors")
    return f"π within {max(1, math.ceil(off))} σ"


def check_values(peer: type[Peer], _size: Size, ours: Answer, theirs: Answer) -> str:
    """Check that the values have the same bits, or differ by at most the tolerance of the peer."""
    if ours.keys() != theirs.keys() or any(ours[name].shape != theirs[name].shape for name in ours):
        raise DifferError(f"{sorted(theirs)} instead of {sorted(ours)}")
    if all(ours[name].tobytes() == theirs[name].tobytes() for name in ours):
        return "same bits"
    off = max(float(np.max(np.abs(theirs[name] - ours[name])) / np.max(np.abs(ours[name]))) for name in ours)
    if not off <= peer.tolerance:
        raise DifferError(f"off by {off:.1e} of the largest value")
    return f"off by {off:.0e}"


def check_counts(_peer: type[Peer], _size: Size, ours: Answer, theirs: Answer) -> str:
    """Check that all parts of the answers are equal."""
    for name, value in ours.items():
        if not np.array_equal(value, theirs[name]):
            raise DifferError(f"{name}: {theirs[name]}, ours {value}")
    return "all counts alike"


def check_groups(peer: type[Peer], size: Size, ours: Answer, theirs: Answer) -> str:
    """Check that groups and counts are equal, and each sum and mean within the tolerance of the peer.

    If the peer does only a part of the job, its answer is compared with that of NumPy for the same rows.
    """
    if peer.share_of(size) < 1:
        ours = group_by_numpy(*table_of(size, peer.share_of(size)))
    for name, value in ours.items():
        if value.dtype.kind == "i" and not np.array_equal(value, theirs[name]):
            raise DifferError(f"{name} differs")
    off = max(float(np.max(np.abs(theirs[name] / ours[name] - 1))) for name in ("sum", "mean"))
    if not off <= peer.tolerance:
        raise DifferError(f"a sum or mean has a relative error of {off:.1e}")
    return f"sums off by {off:.0e}" if off else "same bits"


@dataclass(frozen=True)
class Job:
    """One job: title (a format string of the size), sizes, size for --quick, unit of `work`, and check of answers."""

    title: str
    sizes: tuple[Size, ...]
    quick: Size
    unit: str
    work: Callable[[Size], float]
    check: Callable[[type[Peer], Size, Answer, Answer], str] = check_values
    #: The measurements: a key of what `run` returns, and a label.
    measures: tuple[tuple[str, str], ...] = (("seconds", ""),)
    #: Writes the input of all peers into the folder above their own folders.
    prepare: Callable[[Size, Path], None] = lambda _size, _folder: None
    #: Whether only anyrank and one peer run at a time, because the memory is too small for all peers.
    apart: bool = False


def write_text(size: Size, folder: Path) -> None:
    """Write a text of words with 3 to 12 letters; word k of the vocabulary has a probability proportional to 1/k."""
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


def word_answer(words: Sequence[bytes], counts: Sequence[int]) -> Answer:
    """Return the answer for words sorted by count and then by word: the first words, and a checksum of all."""
    lines = b"".join(b"%b %d\n" % pair for pair in zip(words, counts, strict=True))
    return {
        "first": np.array(words[:TOP], bytes),
        "counts": np.array(counts[:TOP], np.int64),
        "distinct": np.array(len(words)),
        "words": np.array(sum(counts)),
        "checksum": np.array(zlib.crc32(lines), np.uint32),
    }


def keys_of(size: Size) -> np.ndarray:
    """Return the keys to sort."""
    return np.random.default_rng(7).integers(-(2**63), 2**63, size["keys"])


def key_answer(blocks: Sequence[np.ndarray]) -> Answer:
    """Return the answer for sorted keys in several blocks: a checksum of all keys."""
    checksum = 0
    for block in blocks:
        checksum = zlib.crc32(np.ascontiguousarray(block, np.int64).data, checksum)
    return {"keys": np.array(checksum, np.uint32)}


def table_of(size: Size, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys and values to group; with `share` below 1, only that part of the rows."""
    rows = round(size["rows"] * share)
    keys = np.random.default_rng(7).integers(0, size["groups"], rows)
    return keys, np.random.default_rng(8).lognormal(size=rows)


def group_answer(key: np.ndarray, count: np.ndarray, sum: np.ndarray, mean: np.ndarray) -> Answer:
    """Return the answer for groups in any order: the numbers of groups and rows, and a sample, sorted by key."""
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


def group_by_numpy(keys: np.ndarray, values: np.ndarray) -> Answer:
    """Group the rows by NumPy."""
    key, inverse, count = np.unique(keys, return_inverse=True, return_counts=True)
    total = np.bincount(inverse, values)
    return group_answer(key, count, total, total / count)


def weather_start(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the initial p, u and v of NCAR's benchmark on side² cells."""
    from anyrank.programs.weather import Weather

    i, j = np.ogrid[:side, :side]
    return Weather(rows=side, columns=side).start(None, i, j)  # type: ignore[arg-type]  # asks for no state


def numbers(size: Size) -> np.ndarray:
    """Return the numbers to sum."""
    return np.random.default_rng(7).normal(size=size["elements"])


#: The fields of the checkpoint.
NAMES = ("p", "u", "v", "p_old", "u_old", "v_old")


def rows_of(comm: Any, side: int) -> slice:
    """Return the slice of this rank's rows."""
    return slice(side * comm.rank // comm.size, side * (comm.rank + 1) // comm.size)


def local_fields(comm: Any, side: int) -> dict[str, np.ndarray]:
    """Return this rank's rows of every field, with random values."""
    mine = rows_of(comm, side)
    random = np.random.default_rng(comm.rank)
    return {name: random.random((mine.stop - mine.start, side)) for name in NAMES}


def checksum(read: Callable[[str], np.ndarray]) -> Answer:
    """Return a checksum of each field, read by `read`."""
    return {name: np.array(zlib.crc32(np.ascontiguousarray(read(name)).data), np.uint32) for name in NAMES}


def sync(path: Path) -> None:
    """Call fsync on a file."""
    descriptor = os.open(path, os.O_RDWR)
    os.fsync(descriptor)
    os.close(descriptor)


def delete_files(comm: Any, paths: Sequence[Path]) -> None:
    """Delete files, and wait until the disk is idle again."""
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
        "points", lambda size: size["points"], check_pi,
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
        "B", lambda size: size["bytes"], check_counts, prepare=write_text,
    ),
    "sort": Job(
        "sort of {keys:,} int64", ({"keys": 50_000_000},), {"keys": 100_000},
        "keys", lambda size: size["keys"],
    ),
    "groupby": Job(
        "count, sum and mean of {rows:,} rows in {groups:,} groups",
        tuple({"rows": 100_000_000, "groups": groups} for groups in (100, 1_000_000, 50_000_000)),
        {"rows": 100_000, "groups": 1000},
        "rows", lambda size: size["rows"], check_groups, apart=True,
    ),
}  # fmt: skip
