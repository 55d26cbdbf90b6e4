"""What is promised of a GPU's speed, in one run of under 9 minutes: python benchmarks/gpu/bench.py; `make gpu-bench`.

Bandwidths are compared with what a copy of large arrays reaches on the same card in the same run, counting bytes read
and written, and with what a sum of integers reads. `--body shim --quick` shows, where no GPU is, that it works.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from measure import Row, anyrank, keep

from anyrank import exact
from anyrank.digest import local_digest
from anyrank.kernel import BODIES, Kernel
from anyrank.random import Philox

GIGA = 1e9
#: Bytes that a step of the weather moves a cell: six arrays read once, six written once.
CELL = 96


def seconds(action: Callable[[], object], repeat: int) -> float:
    """The median time of one of several calls, from launch to end, after one that does not count."""
    device, found = BODIES.device, []
    action()
    for _ in range(repeat):
        device.synchronize()
        before = time.perf_counter()
        action()
        device.synchronize()
        found.append(time.perf_counter() - before)
    return statistics.median(found)


def bandwidths(repeat: int, size: int) -> tuple[float, float]:
    """GB/s of a copy (read and written) and of reading alone."""
    device = BODIES.device
    a, b = device.full((size,), 1, np.int64), device.full((size,), 0, np.int64)

    def copy() -> None:
        b[...] = a

    copied, read = 16 * size / seconds(copy, repeat), 8 * size / seconds(a.sum, repeat)
    return copied / GIGA, max(read, copied) / GIGA


def readers(repeat: int, size: int, read: float) -> list[Row]:
    """Sums, digests and random numbers against what memory gives."""
    device = BODIES.device
    index = device.from_host(np.arange(size, dtype=np.uint64))
    normal = Philox(1).normal(index)
    wide = np.exp2(index * (600 / size) - 300.0) * normal
    jobs: list[tuple[str, Callable[[], object], int, float]] = [
        ("exact.sum of normal numbers", lambda: exact.sum(normal), 8, 0.7),
        ("exact.sum of numbers over 600 binades", lambda: exact.sum(wide), 8, 0),
        ("exact.dot", lambda: exact.dot(normal, wide), 16, 0),
        ("digest", lambda: local_digest(normal, (size,), (0,)), 8, 0.7),
        ("Philox.uniform", lambda: Philox(1).uniform(index), 16, 0),
        ("Philox.normal", lambda: Philox(1).normal(index), 16, 0),
    ]
    rows = []
    for name, action, item, goal in jobs:
        rate = item * size / seconds(action, repeat) / GIGA
        text, share = f"{rate:.0f} GB/s of {read:.0f}, {rate / item:.1f} G elements/s", rate / read
        rows.append((f"{name} / reading", f"{share:.2f}", f"≥ {goal}" if goal else "", text, share >= goal))
    return rows


def clocks(work: Callable[[], object]) -> str:
    """What nvidia-smi says of the card while it works."""
    device: Any = BODIES.device
    if not shutil.which("nvidia-smi"):
        return "no nvidia-smi here"
    asked = "clocks.sm,clocks.max.sm,clocks.mem,power.draw,temperature.gpu,clocks_event_reasons.active"
    words = ["nvidia-smi", f"--id={device.cupy.cuda.Device(device.index).pci_bus_id}", f"--query-gpu={asked}"]
    with subprocess.Popen([*words, "--format=csv"], stdout=subprocess.PIPE, text=True) as smi:
        while smi.poll() is None:
            work()
        return "; ".join(smi.stdout.read().splitlines())


def pi_alone(repeat: int, points: int, goal: float = 300.0) -> list[Row]:
    """The kernel, and the card's clocks meanwhile."""
    kernel = Kernel("quarter_circle")
    rate = points / seconds(lambda: kernel(1, 0, 0, points), repeat) / GIGA
    text = f"{points:.2g} points; {clocks(lambda: kernel(1, 0, 0, points))}"
    return [("π, kernel", f"{rate:.0f} G points/s", f"≥ {goal:.0f}", text, rate >= goal)]


def pi(points: int, run: Callable[..., dict], goal: float = 300.0) -> list[Row]:
    """A whole run."""
    timing = run("pi", "--points", 8 * points, "--batch", points)["timing"]
    rate = timing["steps"] * points / timing["seconds"] / GIGA
    return [("π, steps of a run", f"{rate:.0f} G points/s", f"≥ {goal:.0f}", "with a reduction a batch", rate >= goal)]


def weather(side: int, steps: int, ranks: int, copied: float, run: Callable[..., dict]) -> list[Row]:
    """Steps of a whole run; several ranks share the card, with their halos."""
    timing = run(
        *("weather", "--rows", side, "--columns", side, "--steps", steps, "--no-picture", "--keep", 1),
        *("--checkpoint-every", "off"),
        ranks=ranks,
    )["timing"]
    rate = timing["steps"] * side * side / timing["seconds"]
    share, goal = CELL * rate / GIGA / copied, 0.8 if ranks == 1 else 0
    phases = ", ".join(f"{name} {part / timing['seconds']:.0%}" for name, part in timing["phases"].items())
    text = f"{rate / GIGA:.1f} G cell-steps/s; a copy makes {copied:.0f} GB/s; {phases}"
    name = f"weather {side}², {CELL} B × rate / copy, {ranks} rank(s)"
    return [(name, f"{share:.2f}", f"≥ {goal}" if goal else "", text, share >= goal)]


def hiding(rows: int, columns: int, steps: int, folder: Path, run: Callable[..., dict]) -> list[Row]:
    """A checkpoint in the middle of a run; there is another one at its end before the first is removed."""
    needed, free = 2 * 48 * rows * columns, shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"{folder} has {free / GIGA:.1f} GB free, and {needed / GIGA:.1f} are needed: use --folder DIR")
    words = ("weather", "--rows", rows, "--columns", columns, "--steps", steps, "--no-picture", "--keep", 1)
    with_one = run(*words, "--checkpoint-every", steps // 2)
    events = map(json.loads, (folder / "run" / "events.jsonl").read_text().splitlines())
    first = next(event for event in events if event["event"] == "checkpoint")
    without = run(*words, "--checkpoint-every", "off")
    longer = with_one["timing"]["seconds"] - without["timing"]["seconds"]
    text = (
        f"{first['bytes'] / GIGA:.1f} GB on disk after {first['seconds']:.1f} s; held up {first['blocked']:.2f} s by "
    )
    text += f"its own count, and the steps took {longer:.2f} s more than without"
    met = first["hidden"] >= 0.8
    return [("a checkpoint's time hidden behind steps", f"{first['hidden']:.0%}", "≥ 80%", text, met)]


def attempts(
    options: argparse.Namespace, folder: Path, run: Callable[..., dict]
) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """What is measured, by name, in turn: first what this process does, which then gives the card's memory back."""
    quick, repeat, points = options.quick, 1 if options.quick else 7, 10**5 if options.quick else 1 << 36
    size, side, steps = (5000, 24, 4) if quick else (1 << 30, 16384, 300)
    copied, read = bandwidths(repeat, size)
    remark = f"bytes read and written; reading: the better of both, {read:.0f}"
    yield "copy", lambda: [("copy", f"{copied:.0f} GB/s", "", remark, True)]
    yield "sums, digests, random numbers", lambda: readers(repeat, size, read)
    yield "π, kernel", lambda: pi_alone(repeat, points)
    device: Any = BODIES.device
    device.cupy.get_default_memory_pool().free_all_blocks()
    yield "π, run", lambda: pi(points, run)
    for ranks in (1, 2):
        yield f"weather, {ranks} rank(s)", partial(weather, side, steps, ranks, copied, run)
    yield "checkpoint", lambda: hiding(*((24, 24, 8) if quick else (16384, 20480, 6000)), folder, run)


def measured(name: str, job: Callable[[], list[Row]]) -> list[Row]:
    """The job's rows, shown at once; a row that says why there are none where it fails."""
    try:
        rows = job()
    except Exception as error:
        rows = [(name, "FAILED", "", " ".join(f"{type(error).__name__}: {error}".replace("|", "/").split()), False)]
    for what, value, _, remark, _ in rows:
        print(f"{what}: {value} ({remark})", flush=True)
    return rows


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--body", default="cupy", choices=("cupy", "shim"))
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--folder", type=Path, help="where runs and checkpoints are written  [a temporary one]")
    options = parser.parse_args()
    BODIES.prefer(options.body)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)

        def run(*words: Any, ranks: int = 1) -> dict:
            return anyrank(*words, "--body", options.body, ranks=ranks, folder=folder)

        rows = [row for attempt in attempts(options, folder, run) for row in measured(*attempt)]
    keep("gpu/bench", rows, options.quick)


if __name__ == "__main__":
    main()
