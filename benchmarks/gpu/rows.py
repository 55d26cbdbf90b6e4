"""The rows of bench.py, each measured by one function: kernels, then copies to the host, then whole runs."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measure import Row, anyrank

from anyrank import exact
from anyrank.kernel import BODIES, Kernel
from anyrank.numerics.digest import local_digest
from anyrank.numerics.random import Philox

GIGA = 1e9
#: Bytes that a step of the weather moves per cell (six arrays read once, six written once), and bytes of its state.
CELL, STATE = 96, 48
#: What rows need of earlier ones, until it is measured: bandwidths of the card and the disk in B/s, and cell-steps/s.
ASSUMED = {"copy": 4.3e12, "read": 4.3e12, "disk": 3e8, "cells": 3e10}
#: Seconds that a child process takes before its first row, that a run takes beside its setup, steps and checkpoint,
#: and that setup on the host takes per cell.
CHILD, RUN, SETUP = 6.0, 9.0, 1.2e-7
#: Bytes of the largest checkpoint that is timed, and the most seconds that its write may take.
CHECKPOINT, WRITE = 3.2e9, 4.0

#: The row, and numbers that later rows need.
Answer = tuple[Row, dict[str, float]]


@dataclass(frozen=True)
class Bench:
    """How to measure: small or full sizes, the body, a folder for runs, and the numbers of the rows before."""

    quick: bool
    body: str
    folder: Path
    known: dict[str, float]

    def seconds(self, action: Callable[[], object], batch: int = 1) -> float:
        """Return the median seconds of one call: batches of calls, timed from the first launch until all are done."""
        repeat, batch, times = (1, 1, []) if self.quick else (5, batch, [])
        action()  # compiles and allocates
        for _ in range(repeat):
            BODIES.device.synchronize()
            before = time.perf_counter()
            for _ in range(batch):
                action()
            BODIES.device.synchronize()
            times.append((time.perf_counter() - before) / batch)
        return statistics.median(times)

    def run(self, *words: Any, ranks: int = 1) -> dict:
        """Return the summary of a run; its only checkpoint is the last, unless words ask for more."""
        options = ("--no-picture", "--keep", 1, "--body", self.body, "--checkpoint-every", "off")
        return anyrank(words[0], *options, *words[1:], ranks=ranks, folder=self.folder)

    def weather(self, rows: int, columns: int, steps: int, *words: Any, ranks: int = 1, checkpoints: int = 1) -> dict:
        """Return the timing of a run of the weather; raise OSError if the disk is too small for the checkpoints."""
        free, needed = shutil.disk_usage(self.folder).free / GIGA, checkpoints * STATE * rows * columns / GIGA
        if free < needed:
            raise OSError(f"{self.folder} has {free:.1f} GB free, and {needed:.1f} are needed: use --folder DIR")
        size = ("--rows", rows, "--columns", columns, "--steps", steps)
        return self.run("weather", *size, *words, ranks=ranks)["timing"]


def row(what: str, value: str, remark: str, goal: str = "", met: bool = True, **numbers: float) -> Answer:
    return (what, value, goal, remark, met), numbers


def share(what: str, rate: float, best: float, remark: str, goal: float = 0.0, **numbers: float) -> Answer:
    """Return a row for `rate` B/s compared with the best known."""
    text = f"{rate / GIGA:.0f} of {best / GIGA:.0f} GB/s; {remark}"
    return row(what, f"{rate / best:.2f}", text, f"≥ {goal}" if goal else "", rate >= goal * best, **numbers)


@lru_cache(maxsize=1)
def indices(side: int) -> Any:
    """Return the global indices of side × side elements: uint64, computed on the card from two short arrays."""
    line = np.arange(side, dtype=np.uint64)
    rows, columns = (BODIES.device.from_host(values) for values in (line * np.uint64(side), line))
    return rows[:, None] + columns


@lru_cache(maxsize=1)
def normal(side: int) -> Any:
    """Return standard normal numbers, on the card."""
    return Philox(1).normal(indices(side))


@lru_cache(maxsize=1)
def wide(side: int) -> Any:
    """Return normal numbers times powers of two from 2^-300 to 2^300, on the card."""
    return np.exp2(indices(side) * (600.0 / side**2) - 300.0) * normal(side)


def large(bench: Bench) -> int:
    """Return the side of large arrays: 2^30 elements, or fewer if the card has no memory for a dozen of them."""
    device: Any = BODIES.device
    return 72 if bench.quick else min(1 << 15, int((device.free_memory()[0] / 96) ** 0.5))


def copy(bench: Bench) -> Answer:
    device, size = BODIES.device, large(bench) ** 2
    a, b = device.full((size,), 1, np.int64), device.full((size,), 0, np.int64)
    memcpy = 16 * size / bench.seconds(lambda: np.copyto(b, a), 5)
    kernel = 16 * size / bench.seconds(lambda: b.__setitem__(..., a), 5)
    read, copied = 8 * size / bench.seconds(a.sum, 5), max(memcpy, kernel)
    remark = f"{8 * size / GIGA:.1f} GB, read and written: memcpy {memcpy / GIGA:.0f}, CuPy {kernel / GIGA:.0f}; "
    remark += f"CuPy's sum of int64 reads {read / GIGA:.0f}; 'reading' below is the best of these"
    return row("copy on the card", f"{copied / GIGA:.0f} GB/s", remark, copy=copied, read=max(read, copied))


def shallow_water(side: int) -> Callable[[], object]:
    """Return a call of the weather's kernel for side × side cells, in arrays that are aligned as fields are."""
    device, inside = BODIES.device, (slice(1, -1), slice(1, -1))
    level, new = ([device.rows((side + 2, side + 2), 0, np.float64, 1) for _ in range(3)] for _ in range(2))
    old = [device.rows((side, side), 0, np.float64, 0) for _ in range(3)]
    for stream, (values, before) in enumerate(zip(level, old, strict=True)):
        values[...] = (50000.0, 0.0, 0.0)[stream] + Philox(1, stream).normal(indices(side + 2))
        before[...] = values[inside]
    return partial(Kernel("shallow_water"), *(x[inside] for x in new), *level, *old, 180.0, 0.001, 1e5, 1e5, False)


def weather_kernel(side: int, bench: Bench) -> Answer:
    side = 24 if bench.quick else side
    rate = side**2 / bench.seconds(shallow_water(side), 20)
    what, remark = f"weather's kernel, {side}², {CELL} B a cell / copy", f"{rate / GIGA:.1f} G cell-steps/s"
    return share(what, CELL * rate, bench.known["copy"], remark, 0.8, cells=rate)


def reading(what: str, item: int, goal: float, action: Callable[[int], object], bench: Bench) -> Answer:
    """Return a row for an action that reads and writes `item` bytes per element of large arrays."""
    side = large(bench)
    rate = side**2 / bench.seconds(lambda: action(side), 5)
    return share(f"{what} / reading", item * rate, bench.known["read"], f"{rate / GIGA:.1f} G elements/s", goal)


def clocks(work: Callable[[], object]) -> str:
    """Return what nvidia-smi reports of the card while it works."""
    device: Any = BODIES.device
    if not shutil.which("nvidia-smi"):
        return "no nvidia-smi here"
    asked = "clocks.sm,clocks.max.sm,clocks.mem,power.draw,temperature.gpu,clocks_event_reasons.active"
    words = ["nvidia-smi", f"--id={device.cupy.cuda.Device(device.index).pci_bus_id}", f"--query-gpu={asked}"]
    with subprocess.Popen([*words, "--format=csv"], stdout=subprocess.PIPE, text=True) as smi:
        while smi.poll() is None:
            work()
        return "; ".join(smi.stdout.read().splitlines()) if smi.stdout else ""


def pi_kernel(bench: Bench) -> Answer:
    points = 10**5 if bench.quick else 1 << 36
    action = partial(Kernel("quarter_circle"), 1, 0, 0, points)
    rate = points / bench.seconds(action) / GIGA
    return row("π, kernel", f"{rate:.0f} G points/s", f"{points:.2g} points; {clocks(action)}", "≥ 300", rate >= 300)


def launches(bench: Bench) -> Answer:
    took = bench.seconds(shallow_water(64), 2000)
    return row("launches of the weather's kernel, 64²", f"{1 / took:.0f} /s", f"{1e6 * took:.1f} µs each")


def pinned(bench: Bench) -> Answer:
    device: Any = BODIES.device
    size, times = 1 << (16 if bench.quick else 30), []
    for _ in range(2):  # the second one is of memory that CuPy has kept
        before = time.perf_counter()
        device.pinned(size)
        times.append(time.perf_counter() - before)
    remark = f"{size / GIGA:.2g} GB, zeros written; again, from CuPy's pool: {times[1]:.3f} s"
    return row("pinned memory allocated", f"{times[0]:.3f} s", remark)


def crossings(bench: Bench) -> Answer:
    """Measure copies between the card and memory of the host, pageable (from_host, to_host) and pinned."""
    device: Any = BODIES.device
    size = 1 << (16 if bench.quick else 30)
    host, there = np.ones(size // 8), device.full((size // 8,), 1, np.float64)
    fast = device.pinned(size).view(np.float64)
    actions: dict[str, Callable[[], object]] = {
        "from_host": lambda: device.from_host(host),
        "to_host": lambda: device.to_host(there),
        "pinned in": lambda: there.set(fast, stream=device.compute),
        "pinned out": lambda: there.get(stream=device.compute, out=fast, blocking=False),
    }
    rates = {name: size / bench.seconds(action) / GIGA for name, action in actions.items()}
    remark = f"{size / GIGA:.2g} GB: " + ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
    return row("copies to pinned memory", f"{rates['pinned out']:.1f} GB/s", remark)


def phases(timing: dict[str, Any]) -> str:
    return ", ".join(f"{name} {part / timing['seconds']:.0%}" for name, part in timing["phases"].items())


def small_run(bench: Bench) -> Answer:
    timing = bench.weather(64, 64, 20 if bench.quick else 10000)
    took = timing["seconds"] / timing["steps"]
    return row("weather 64², steps of a run", f"{1 / took:.0f} /s", f"{1e6 * took:.0f} µs each; {phases(timing)}")


def halo_run(bench: Bench) -> Answer:
    columns, steps = (64, 20) if bench.quick else (8192, 2000)
    words = (Path(__file__).with_name("halo.py"), "--columns", columns, "--steps", steps, "--split", "rows")
    summary = bench.run(*words, ranks=2)
    timing, way = summary["timing"], summary["transfer"]
    took, moved = timing["seconds"] / timing["steps"], timing["traffic"]["bytes"]
    remark = f"{way}; {moved / 1e3:.0f} kB out of each rank, {moved / took / GIGA:.2f} GB/s; {phases(timing)}"
    return row(f"halo exchange, 3 fields, edge of {columns}, 2 ranks", f"{1e6 * took:.0f} µs", remark)


def disk(bench: Bench) -> Answer:
    """Return the rate of a short file of random bytes, until it is on the disk."""
    piece, pieces, path = os.urandom(1 << 24), 1 if bench.quick else 32, bench.folder / "disk"
    before = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(pieces):
            file.write(piece)
        os.fsync(file.fileno())
    size, took = pieces * len(piece), time.perf_counter() - before
    path.unlink()
    return row("disk, write and fsync", f"{size / took / GIGA:.2f} GB/s", f"{size / GIGA:.2f} GB", disk=size / took)


def weather_run(side: int, steps: int, ranks: int, bench: Bench) -> Answer:
    """Measure the steps of a whole run; several ranks share the card, with their halos."""
    side, steps = (24, 4) if bench.quick else (side, steps)
    timing = bench.weather(side, side, steps, ranks=ranks)
    rate = timing["steps"] * side**2 / timing["seconds"]
    what = f"weather {side}², steps of a run, {CELL} B a cell / copy, {ranks} rank(s)"
    remark, goal = f"{rate / GIGA:.1f} G cell-steps/s; {phases(timing)}", 0.8 if ranks == 1 else 0.0
    return share(what, CELL * rate, bench.known["copy"], remark, goal, **({"cells": rate} if ranks == 1 else {}))


def weather_seconds(side: int, steps: int, known: dict[str, float]) -> float:
    return RUN + (SETUP + steps / known["cells"] + STATE / known["disk"]) * side**2


def pi_run(bench: Bench) -> Answer:
    points = 10**5 if bench.quick else 1 << 36
    timing = bench.run("pi", "--points", 8 * points, "--batch", points)["timing"]
    rate, remark = timing["steps"] * points / timing["seconds"] / GIGA, f"a reduction every {points:.2g} points"
    return row("π, steps of a run", f"{rate:.0f} G points/s", remark, "≥ 300", rate >= 300)


def written(known: dict[str, float]) -> float:
    """Return the bytes of the checkpoint that is timed."""
    return min(CHECKPOINT, WRITE * known["disk"])


def checkpoint(bench: Bench) -> Answer:
    """Measure a checkpoint in the middle of a run; the steps before and after it take 1.75 times as long as its write.

    There is another one at the end, before the first is removed.
    """
    known, columns = bench.known, 8192
    rows = max(256, int(written(known) / (STATE * columns)))
    half = 1 + int(1.75 * STATE / known["disk"] * known["cells"])
    rows, columns, half = (24, 24, 4) if bench.quick else (rows, columns, half)
    timing = bench.weather(rows, columns, 2 * half, "--checkpoint-every", half, checkpoints=2)
    events = map(json.loads, (bench.folder / "run" / "events.jsonl").read_text().splitlines())
    first = next(event for event in events if event["event"] == "checkpoint")
    rate = timing["steps"] * rows * columns / timing["seconds"]
    remark = f"{first['bytes'] / GIGA:.2f} GB on disk after {first['seconds']:.1f} s, which held up steps for "
    remark += f"{first['blocked']:.3f} s; {rate / known['cells']:.0%} of the rate without, in {timing['seconds']:.1f} s"
    met = first["hidden"] >= 0.8
    return row("a checkpoint's time hidden behind steps", f"{first['hidden']:.0%}", remark, "≥ 80%", met)


def checkpoint_seconds(known: dict[str, float]) -> float:
    return RUN + SETUP * written(known) / STATE + 4.5 * written(known) / known["disk"]


class Attempt(NamedTuple):
    """A row, the child process that measures it, and the seconds that takes on an H200 (without the child's start)."""

    name: str
    group: str
    seconds: float | Callable[[dict[str, float]], float]
    measure: Callable[[Bench], Answer]

    def estimate(self, known: dict[str, float]) -> float:
        """Estimate the seconds, given the numbers of the rows before."""
        return self.seconds(known) if callable(self.seconds) else self.seconds


def inner(side: int) -> Any:
    """Return normal numbers with others around them, as a field with a halo has them."""
    return normal(side)[1:-1, 1:-1]


def reader(name: str, seconds: float, item: int, goal: float, action: Callable[[int], object]) -> Attempt:
    return Attempt(name, "kernels", seconds, partial(reading, name, item, goal, action))


#: In the order in which they are measured.
ATTEMPTS = [
    Attempt("copy", "kernels", 4.0, copy),
    Attempt("weather-kernel", "kernels", 6.0, partial(weather_kernel, 8192)),
    reader("exact.sum", 4.0, 8, 0.7, lambda n: exact.sum(normal(n), local=True)),
    reader("exact.dot", 4.0, 16, 0.0, lambda n: exact.dot(normal(n), wide(n), local=True)),
    reader("digest", 3.0, 8, 0.7, lambda n: local_digest(normal(n), (n, n), (0, 0))),
    reader("exact.max-halo", 3.0, 8, 0.0, lambda n: exact.max(inner(n), local=True)),
    reader("exact.min-halo", 3.0, 8, 0.0, lambda n: exact.min(inner(n), local=True)),
    reader("uniform", 1.0, 16, 0.0, lambda n: Philox(1).uniform(indices(n))),
    reader("normal", 1.0, 16, 0.0, lambda n: Philox(1).normal(indices(n))),
    reader("exact.sum-600-binades", 1.0, 8, 0.0, lambda n: exact.sum(wide(n), local=True)),
    Attempt("pi-kernel", "kernels", 6.0, pi_kernel),
    Attempt("weather-16384-kernel", "kernels", 4.0, partial(weather_kernel, 16384)),
    Attempt("launches", "host", 2.0, launches),
    Attempt("pinned", "host", 2.0, pinned),
    Attempt("crossings", "host", 7.0, crossings),
    Attempt("weather-64", "runs", RUN + 2.0, small_run),
    Attempt("halo", "runs", RUN + 2.0, halo_run),
    Attempt("disk", "runs", lambda known: 0.5 + 0.54e9 / known["disk"], disk),
    Attempt("weather", "runs", partial(weather_seconds, 8192, 1000), partial(weather_run, 8192, 1000, 1)),
    Attempt("weather-2", "runs", partial(weather_seconds, 8192, 500), partial(weather_run, 8192, 500, 2)),
    Attempt("pi", "runs", RUN + 2.0, pi_run),
    Attempt("checkpoint", "runs", checkpoint_seconds, checkpoint),
    Attempt("weather-16384", "runs", partial(weather_seconds, 16384, 300), partial(weather_run, 16384, 300, 1)),
]
