"""The rows of bench.py, with one function for each: kernels, then copies to the host, then whole runs."""

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
from measure import Row, run_anyrank

from anyrank import exact
from anyrank.kernel import BODIES, Kernel
from anyrank.numerics.digest import local_digest
from anyrank.numerics.random import Philox

GIGA = 1e9
#: Bytes per cell that a step of the weather transfers (six arrays read, six written), and bytes per cell of its State.
CELL_BYTES, STATE_BYTES = 96, 48
#: Values to assume until they are measured: bandwidths of the GPU and the disk in B/s, and cell-steps/s of the weather.
ASSUMED = {"copy": 4.3e12, "read": 4.3e12, "disk": 3e8, "cells": 3e10}
#: Seconds of a child process before its first row; of a run besides setup, steps and checkpoint; of setup per cell.
CHILD_SECONDS, RUN_SECONDS, SETUP_SECONDS = 6.0, 9.0, 1.2e-7
#: The largest checkpoint to time, in bytes, and the longest time for its write.
CHECKPOINT_BYTES, WRITE_SECONDS = 3.2e9, 4.0

#: A row, and the numbers that later rows need.
Measurement = tuple[Row, dict[str, float]]


@dataclass(frozen=True)
class Bench:
    """Settings of a measurement: small or full sizes, the body, a folder for runs, and numbers of earlier rows."""

    quick: bool
    body: str
    folder: Path
    known: dict[str, float]

    def seconds(self, action: Callable[[], object], batch: int = 1) -> float:
        """Return the median seconds of a call, from batches that are timed until their last launch has ended."""
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
        """Run a program and return its summary. There is one checkpoint, at the end, unless `words` ask for more."""
        options = ("--no-picture", "--keep", 1, "--body", self.body, "--checkpoint-every", "off")
        return run_anyrank(words[0], *options, *words[1:], ranks=ranks, folder=self.folder)

    def weather(self, rows: int, columns: int, steps: int, *words: Any, ranks: int = 1, checkpoints: int = 1) -> dict:
        """Run the weather and return its timing. Raises OSError if the disk has no space for so many checkpoints."""
        free, needed = shutil.disk_usage(self.folder).free / GIGA, checkpoints * STATE_BYTES * rows * columns / GIGA
        if free < needed:
            raise OSError(f"{self.folder} has {free:.1f} GB free, and {needed:.1f} are needed: use --folder DIR")
        size = ("--rows", rows, "--columns", columns, "--steps", steps)
        return self.run("weather", *size, *words, ranks=ranks)["timing"]


def row(what: str, value: str, remark: str, goal: str = "", met: bool = True, **numbers: float) -> Measurement:
    return (what, value, goal, remark, met), numbers


def bandwidth_row(what: str, rate: float, best: float, remark: str, goal: float = 0.0, **numbers: float) -> Measurement:
    """Return a row that compares `rate` with `best`, both in B/s."""
    text = f"{rate / GIGA:.0f} of {best / GIGA:.0f} GB/s; {remark}"
    return row(what, f"{rate / best:.2f}", text, f"≥ {goal}" if goal else "", rate >= goal * best, **numbers)


@lru_cache(maxsize=1)
def indices(side: int) -> Any:
    """Return the global indices of side × side elements on the GPU, as uint64."""
    line = np.arange(side, dtype=np.uint64)
    rows, columns = (BODIES.device.from_host(values) for values in (line * np.uint64(side), line))
    return rows[:, None] + columns


@lru_cache(maxsize=1)
def normal(side: int) -> Any:
    """Return standard normal numbers on the GPU."""
    return Philox(1).normal(indices(side))


@lru_cache(maxsize=1)
def wide_normal(side: int) -> Any:
    """Return normal numbers times powers of two from 2^-300 to 2^300, on the GPU."""
    return np.exp2(indices(side) * (600.0 / side**2) - 300.0) * normal(side)


def large_side(bench: Bench) -> int:
    """Return the side of large arrays: 2^30 elements, or fewer if the GPU has no memory for a dozen of them."""
    device: Any = BODIES.device
    return 72 if bench.quick else min(1 << 15, int((device.free_memory()[0] / 96) ** 0.5))


def copy(bench: Bench) -> Measurement:
    device, size = BODIES.device, large_side(bench) ** 2
    a, b = device.full((size,), 1, np.int64), device.full((size,), 0, np.int64)
    memcpy = 16 * size / bench.seconds(lambda: np.copyto(b, a), 5)
    kernel = 16 * size / bench.seconds(lambda: b.__setitem__(..., a), 5)
    read, copied = 8 * size / bench.seconds(a.sum, 5), max(memcpy, kernel)
    remark = f"{8 * size / GIGA:.1f} GB, read and written: memcpy {memcpy / GIGA:.0f}, CuPy {kernel / GIGA:.0f}; "
    remark += f"CuPy's sum of int64 reads {read / GIGA:.0f}; 'reading' in the rows below is the best of these"
    return row("copy on the GPU", f"{copied / GIGA:.0f} GB/s", remark, copy=copied, read=max(read, copied))


def shallow_water(side: int) -> Callable[[], object]:
    """Return a function that calls the weather's kernel on side × side cells, in arrays with the layout of fields."""
    device, inside = BODIES.device, (slice(1, -1), slice(1, -1))
    level, new = ([device.rows((side + 2, side + 2), 0, np.float64, 1) for _ in range(3)] for _ in range(2))
    old = [device.rows((side, side), 0, np.float64, 0) for _ in range(3)]
    for stream, (values, before) in enumerate(zip(level, old, strict=True)):
        values[...] = (50000.0, 0.0, 0.0)[stream] + Philox(1, stream).normal(indices(side + 2))
        before[...] = values[inside]
    return partial(Kernel("shallow_water"), *(x[inside] for x in new), *level, *old, 180.0, 0.001, 1e5, 1e5, False)


def weather_kernel(side: int, bench: Bench) -> Measurement:
    side = 24 if bench.quick else side
    rate = side**2 / bench.seconds(shallow_water(side), 20)
    what, remark = f"weather's kernel, {side}², {CELL_BYTES} B a cell / copy", f"{rate / GIGA:.1f} G cell-steps/s"
    return bandwidth_row(what, CELL_BYTES * rate, bench.known["copy"], remark, 0.8, cells=rate)


def read_row(what: str, item: int, goal: float, action: Callable[[int], object], bench: Bench) -> Measurement:
    """Return a row for an action that reads and writes `item` bytes per element of large arrays."""
    side = large_side(bench)
    rate = side**2 / bench.seconds(lambda: action(side), 5)
    return bandwidth_row(f"{what} / reading", item * rate, bench.known["read"], f"{rate / GIGA:.1f} G elements/s", goal)


def clocks(work: Callable[[], object]) -> str:
    """Return the clocks, power and temperature of the GPU by nvidia-smi, while the GPU works."""
    device: Any = BODIES.device
    if not shutil.which("nvidia-smi"):
        return "nvidia-smi is not installed"
    query = "clocks.sm,clocks.max.sm,clocks.mem,power.draw,temperature.gpu,clocks_event_reasons.active"
    words = ["nvidia-smi", f"--id={device.cupy.cuda.Device(device.index).pci_bus_id}", f"--query-gpu={query}"]
    with subprocess.Popen([*words, "--format=csv"], stdout=subprocess.PIPE, text=True) as smi:
        while smi.poll() is None:
            work()
        return "; ".join(smi.stdout.read().splitlines()) if smi.stdout else ""


def pi_kernel(bench: Bench) -> Measurement:
    points = 10**5 if bench.quick else 1 << 36
    action = partial(Kernel("quarter_circle"), 1, 0, 0, points)
    rate = points / bench.seconds(action) / GIGA
    return row("π, kernel", f"{rate:.0f} G points/s", f"{points:.2g} points; {clocks(action)}", "≥ 300", rate >= 300)


def launches(bench: Bench) -> Measurement:
    seconds = bench.seconds(shallow_water(64), 2000)
    return row("launches of the weather's kernel, 64²", f"{1 / seconds:.0f} /s", f"{1e6 * seconds:.1f} µs each")


def pinned(bench: Bench) -> Measurement:
    device: Any = BODIES.device
    size, times = 1 << (16 if bench.quick else 30), []
    for _ in range(2):  # the second allocation comes from CuPy's pool
        before = time.perf_counter()
        device.pinned(size)
        times.append(time.perf_counter() - before)
    remark = f"{size / GIGA:.2g} GB, zeros written; again, from CuPy's pool: {times[1]:.3f} s"
    return row("pinned memory allocated", f"{times[0]:.3f} s", remark)


def host_copies(bench: Bench) -> Measurement:
    """Measure copies between GPU and host, for pageable memory (from_host, to_host) and pinned memory."""
    device: Any = BODIES.device
    size = 1 << (16 if bench.quick else 30)
    host, on_gpu = np.ones(size // 8), device.full((size // 8,), 1, np.float64)
    fast = device.pinned(size).view(np.float64)
    actions: dict[str, Callable[[], object]] = {
        "from_host": lambda: device.from_host(host),
        "to_host": lambda: device.to_host(on_gpu),
        "pinned in": lambda: on_gpu.set(fast, stream=device.compute),
        "pinned out": lambda: on_gpu.get(stream=device.compute, out=fast, blocking=False),
    }
    rates = {name: size / bench.seconds(action) / GIGA for name, action in actions.items()}
    remark = f"{size / GIGA:.2g} GB: " + ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
    return row("copies to pinned memory", f"{rates['pinned out']:.1f} GB/s", remark)


def phases(timing: dict[str, Any]) -> str:
    return ", ".join(f"{name} {part / timing['seconds']:.0%}" for name, part in timing["phases"].items())


def small_run(bench: Bench) -> Measurement:
    timing = bench.weather(64, 64, 20 if bench.quick else 10000)
    seconds = timing["seconds"] / timing["steps"]
    return row("weather 64², steps of a run", f"{1 / seconds:.0f} /s", f"{1e6 * seconds:.0f} µs each; {phases(timing)}")


def halo_run(bench: Bench) -> Measurement:
    columns, steps = (64, 20) if bench.quick else (8192, 2000)
    words = (Path(__file__).with_name("halo.py"), "--columns", columns, "--steps", steps, "--split", "rows")
    summary = bench.run(*words, ranks=2)
    timing, transfer = summary["timing"], summary["transfer"]
    seconds, moved = timing["seconds"] / timing["steps"], timing["traffic"]["bytes"]
    remark = f"{transfer}; {moved / 1e3:.0f} kB out of each rank, {moved / seconds / GIGA:.2f} GB/s; {phases(timing)}"
    return row(f"halo exchange, 3 fields, edge of {columns}, 2 ranks", f"{1e6 * seconds:.0f} µs", remark)


def disk(bench: Bench) -> Measurement:
    """Measure the rate of writing random bytes to a file, including fsync."""
    piece, pieces, path = os.urandom(1 << 24), 1 if bench.quick else 32, bench.folder / "disk"
    before = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(pieces):
            file.write(piece)
        os.fsync(file.fileno())
    size, seconds = pieces * len(piece), time.perf_counter() - before
    path.unlink()
    return row(
        "disk, write and fsync", f"{size / seconds / GIGA:.2f} GB/s", f"{size / GIGA:.2f} GB", disk=size / seconds
    )


def weather_run(side: int, steps: int, ranks: int, bench: Bench) -> Measurement:
    """Measure the steps of a run. Several ranks share the GPU and exchange halos."""
    side, steps = (24, 4) if bench.quick else (side, steps)
    timing = bench.weather(side, side, steps, ranks=ranks)
    rate = timing["steps"] * side**2 / timing["seconds"]
    what = f"weather {side}², steps of a run, {CELL_BYTES} B a cell / copy, {ranks} rank(s)"
    remark, goal = f"{rate / GIGA:.1f} G cell-steps/s; {phases(timing)}", 0.8 if ranks == 1 else 0.0
    return bandwidth_row(
        what, CELL_BYTES * rate, bench.known["copy"], remark, goal, **({"cells": rate} if ranks == 1 else {})
    )


def weather_seconds(side: int, steps: int, known: dict[str, float]) -> float:
    return RUN_SECONDS + (SETUP_SECONDS + steps / known["cells"] + STATE_BYTES / known["disk"]) * side**2


def pi_run(bench: Bench) -> Measurement:
    points = 10**5 if bench.quick else 1 << 36
    timing = bench.run("pi", "--points", 8 * points, "--batch", points)["timing"]
    rate, remark = timing["steps"] * points / timing["seconds"] / GIGA, f"a reduction every {points:.2g} points"
    return row("π, steps of a run", f"{rate:.0f} G points/s", remark, "≥ 300", rate >= 300)


def checkpoint_bytes(known: dict[str, float]) -> float:
    """Return the bytes of the checkpoint to time."""
    return min(CHECKPOINT_BYTES, WRITE_SECONDS * known["disk"])


def checkpoint(bench: Bench) -> Measurement:
    """Measure a checkpoint in the middle of a run.

    The steps before and after it take 1.75 times as long as its write. The checkpoint at the end of the run is written
    before the first is removed.
    """
    known, columns = bench.known, 8192
    rows = max(256, int(checkpoint_bytes(known) / (STATE_BYTES * columns)))
    half = 1 + int(1.75 * STATE_BYTES / known["disk"] * known["cells"])
    rows, columns, half = (24, 24, 4) if bench.quick else (rows, columns, half)
    timing = bench.weather(rows, columns, 2 * half, "--checkpoint-every", half, checkpoints=2)
    events = map(json.loads, (bench.folder / "run" / "events.jsonl").read_text().splitlines())
    first = next(event for event in events if event["event"] == "checkpoint")
    rate = timing["steps"] * rows * columns / timing["seconds"]
    remark = f"{first['bytes'] / GIGA:.2f} GB on disk after {first['seconds']:.1f} s, which stopped the steps for "
    remark += f"{first['blocked']:.3f} s; {rate / known['cells']:.0%} of the rate without, in {timing['seconds']:.1f} s"
    met = first["hidden"] >= 0.8
    return row("part of a checkpoint that overlaps with steps", f"{first['hidden']:.0%}", remark, "≥ 80%", met)


def checkpoint_seconds(known: dict[str, float]) -> float:
    size = checkpoint_bytes(known)
    return RUN_SECONDS + SETUP_SECONDS * size / STATE_BYTES + 4.5 * size / known["disk"]


class Attempt(NamedTuple):
    """A row, the child process that measures it, and its seconds on an H200, without the start of the child."""

    name: str
    group: str
    seconds: float | Callable[[dict[str, float]], float]
    measure: Callable[[Bench], Measurement]

    def estimate(self, known: dict[str, float]) -> float:
        """Return the seconds, given the numbers of earlier rows."""
        return self.seconds(known) if callable(self.seconds) else self.seconds


def normal_in_halo(side: int) -> Any:
    """Return normal numbers as a view with other elements around it, like a field with a halo."""
    return normal(side)[1:-1, 1:-1]


def read_attempt(name: str, seconds: float, item: int, goal: float, action: Callable[[int], object]) -> Attempt:
    return Attempt(name, "kernels", seconds, partial(read_row, name, item, goal, action))


#: All rows, in the order of measurement.
ATTEMPTS = [
    Attempt("copy", "kernels", 4.0, copy),
    Attempt("weather-kernel", "kernels", 6.0, partial(weather_kernel, 8192)),
    read_attempt("exact.sum", 4.0, 8, 0.7, lambda n: exact.sum(normal(n), local=True)),
    read_attempt("exact.dot", 4.0, 16, 0.0, lambda n: exact.dot(normal(n), wide_normal(n), local=True)),
    read_attempt("digest", 3.0, 8, 0.7, lambda n: local_digest(normal(n), (n, n), (0, 0))),
    read_attempt("exact.max-halo", 3.0, 8, 0.0, lambda n: exact.max(normal_in_halo(n), local=True)),
    read_attempt("exact.min-halo", 3.0, 8, 0.0, lambda n: exact.min(normal_in_halo(n), local=True)),
    read_attempt("uniform", 1.0, 16, 0.0, lambda n: Philox(1).uniform(indices(n))),
    read_attempt("normal", 1.0, 16, 0.0, lambda n: Philox(1).normal(indices(n))),
    read_attempt("exact.sum-600-binades", 1.0, 8, 0.0, lambda n: exact.sum(wide_normal(n), local=True)),
    Attempt("pi-kernel", "kernels", 6.0, pi_kernel),
    Attempt("weather-16384-kernel", "kernels", 4.0, partial(weather_kernel, 16384)),
    Attempt("launches", "host", 2.0, launches),
    Attempt("pinned", "host", 2.0, pinned),
    Attempt("host-copies", "host", 7.0, host_copies),
    Attempt("weather-64", "runs", RUN_SECONDS + 2.0, small_run),
    Attempt("halo", "runs", RUN_SECONDS + 2.0, halo_run),
    Attempt("disk", "runs", lambda known: 0.5 + 0.54e9 / known["disk"], disk),
    Attempt("weather", "runs", partial(weather_seconds, 8192, 1000), partial(weather_run, 8192, 1000, 1)),
    Attempt("weather-2", "runs", partial(weather_seconds, 8192, 500), partial(weather_run, 8192, 500, 2)),
    Attempt("pi", "runs", RUN_SECONDS + 2.0, pi_run),
    Attempt("checkpoint", "runs", checkpoint_seconds, checkpoint),
    Attempt("weather-16384", "runs", partial(weather_seconds, 16384, 300), partial(weather_run, 16384, 300, 1)),
]
