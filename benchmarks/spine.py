"""The promises of speed, measured in one run: python benchmarks/spine.py [--quick]; `make bench`.

Every row is a ratio of two things measured alternately on the same machine, medians over repeats, so that
the machine's moods hit both alike. The table is printed and kept under benchmarks/results/.
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
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import Row, anyrank, interleaved, keep, ratio

from anyrank import exact
from anyrank.kernel import Kernel
from anyrank.numerics.digest import local_digest
from anyrank.runtime.launch import mpiexec

HERE = Path(__file__).parent
GIGA = 1e9


def two_ranks(*words: object) -> dict[str, list[float]]:
    """Return what `two_ranks.py` measures inside one launch."""
    command = [*mpiexec(), "-n", "2", sys.executable, str(HERE / "two_ranks.py"), *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def weather(folder: Path, repeat: int, side: int, steps: int) -> list[Row]:
    """Compare one rank with the triad of one core, and two ranks with one; measure a whole run's memory."""
    found = two_ranks("weather", side, steps, 3 * repeat)
    one, two, bound = found["one"], found["two"], found["triad"]
    share, share_span = ratio([96 * value / GIGA for value in one], bound)
    speedup, speedup_span = ratio(two, one)
    machine, machine_span = ratio(found["two_triads"], bound)
    run = ("weather", "--rows", side, "--columns", side, "--steps", steps, "--no-picture", "--checkpoint-every", "off")
    memory = anyrank(*run, ranks=2, folder=folder)["memory"]
    allowed = 1.25 * memory["arrays"] + 150e6 + memory["staging"]
    text = f"{statistics.median(one) / 1e6:.0f} M cell-steps/s, triad {statistics.median(bound):.1f} GB/s"
    pace = f"{statistics.median(two) / 1e6:.0f} M cell-steps/s, at best {max(two) / 1e6:.0f}; in the same rounds two "
    pace += f"triads at once made {machine:.2f} ({machine_span}) of one"
    peak = f"{memory['peak'] / 1e6:.0f} MB of {allowed / 1e6:.0f} (arrays {memory['arrays'] / 1e6:.0f}, "
    peak += f"staging {memory['staging'] / 1e6:.0f})"
    return [
        (f"weather {side}², 96 B × rate / triad, 1 rank", f"{share:.2f} ({share_span})", "≥ 0.70", text, share >= 0.7),
        (f"weather {side}², 2 ranks / 1 rank", f"{speedup:.2f} ({speedup_span})", "≥ 1.9", pace, speedup >= 1.9),
        ("peak memory a rank, 2 ranks", f"{memory['peak'] / allowed:.2f}", "≤ 1", peak, memory["peak"] <= allowed),
    ]


def pi(repeat: int, points: int) -> list[Row]:
    """Compare the kernel that a rank runs with the program that everybody writes first."""
    kernel, generator, plain = Kernel("quarter_circle"), np.random.default_rng(1), 10_000_000

    def numpy_rate() -> float:
        before = time.perf_counter()
        x, y = generator.uniform(size=plain), generator.uniform(size=plain)
        (x**2 + y**2 < 1).sum()
        return plain / (time.perf_counter() - before)

    def our_rate() -> float:
        before = time.perf_counter()
        kernel(1, 0, 0, points)
        return points / (time.perf_counter() - before)

    numpy_rate(), our_rate()
    theirs, ours = interleaved(repeat, numpy_rate, our_rate)
    factor, span = ratio(ours, theirs)
    text = f"{statistics.median(ours) / GIGA:.2f} G points/s, NumPy {statistics.median(theirs) / 1e6:.0f} M"
    return [("π, one core, ours / plain NumPy", f"{factor:.0f} ({span})", "≥ 100", text, factor >= 100)]


def sums(repeat: int, elements: int) -> list[Row]:
    """Compare exact.sum and digest with reading the array once."""
    values = np.random.default_rng(2).normal(size=elements)
    bits = values.view(np.int64)

    def timed(action: Callable[[], object]) -> Callable[[], float]:
        def rate() -> float:
            before = time.perf_counter()
            action()
            return elements / (time.perf_counter() - before) / GIGA

        return rate

    actions = [
        timed(bits.sum),
        timed(lambda: exact.sum(values, local=True)),
        timed(lambda: local_digest(values, (elements,), (0,))),
    ]
    for action in actions:
        action()
    read, added, digested = interleaved(repeat, *actions)
    share, span = ratio(digested, read)
    speed = statistics.median(added)
    text = f"{8 * statistics.median(digested):.1f} GB/s; NumPy's sum of int64 reads {8 * statistics.median(read):.1f}"
    return [
        ("exact.sum, one core", f"{speed:.2f} G elements/s", "≥ 0.5", f"{elements:.1e} normal numbers", speed >= 0.5),
        ("digest / reading, one core", f"{share:.2f} ({span})", "≥ 0.5", text, share >= 0.5),
    ]


def checkpoint(folder: Path, repeat: int, total: int) -> list[Row]:
    """Compare a checkpoint of `total` bytes with as many ranks that only write and fsync as much."""
    found = two_ranks("checkpoint", total, repeat, folder / "checkpoints")
    share, span = ratio(found["checkpoint"], found["plain"])
    text = f"{statistics.median(found['checkpoint']):.2f} GB/s, plain {statistics.median(found['plain']):.2f}"
    return [
        (f"checkpoint {total / GIGA:.1f} GB / plain, 2 ranks", f"{share:.2f} ({span})", "≥ 0.70", text, share >= 0.7)
    ]


def hiding(folder: Path, repeat: int, side: int, steps: int, every: int) -> list[Row]:
    """Measure the part of a checkpoint's time that the steps do not wait for, and how much it slows them down."""
    run = ("weather", "--rows", side, "--columns", side, "--steps", steps, "--no-picture", "--checkpoint-every")
    hidden: list[float] = []

    def with_checkpoints() -> float:
        seconds = anyrank(*run, every, ranks=2, folder=folder)["seconds"]
        written = checkpoints_of(folder / "run")
        hidden.extend(event["hidden"] for event in written[:-1])
        return seconds

    def without() -> float:
        return anyrank(*run, "off", ranks=2, folder=folder)["seconds"]

    slow, fast = interleaved(repeat, with_checkpoints, without)
    factor, span = ratio(slow, fast)
    size = 6 * 8 * side * side / GIGA
    text = f"{size:.2f} GB every {every} steps; the steps take {factor:.2f} ({span}) of their time without"
    return [("checkpoint time hidden behind steps, 2 ranks", f"{statistics.median(hidden):.0%}", "", text, True)]


def checkpoints_of(run: Path) -> list[dict]:
    """Return the checkpoints that a run wrote, from its events."""
    events = map(json.loads, (run / "events.jsonl").read_text().splitlines())
    return [event for event in events if event["event"] == "checkpoint"]


def overheads(folder: Path, repeat: int) -> list[Row]:
    """Time an empty step, and the start-up."""

    def wall(*words: str) -> float:
        before = time.perf_counter()
        subprocess.run(words, capture_output=True, check=True)
        return time.perf_counter() - before

    def ours() -> float:
        out = folder / "start"
        shutil.rmtree(out, ignore_errors=True)
        words = (sys.executable, "-m", "anyrank", "run", "pi", "--points", "1000", "-n", "2", "--out", str(out))
        return wall(*words)

    def bare() -> float:
        return wall(*mpiexec(), "-n", "2", sys.executable, "-c", "from mpi4py import MPI")

    steps = [anyrank(HERE / "empty.py", ranks=2, folder=folder) for _ in range(repeat)]
    micro = statistics.median(1e6 / summary["rate"]["value"] for summary in steps)
    started, bare_started = interleaved(repeat, ours, bare)
    more = statistics.median(a - b for a, b in zip(started, bare_started, strict=True))
    text = f"{statistics.median(started):.2f} s against {statistics.median(bare_started):.2f} s"
    return [
        ("an empty step, 2 ranks", f"{micro:.1f} µs", "≤ 50", "", micro <= 50),
        ("anyrank run pi − bare mpiexec", f"{more:.2f} s", "≤ 1", text, more <= 1),
    ]


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--folder", type=Path, help="where runs and checkpoints are written  [a temporary one]")
    options = parser.parse_args()
    repeat, quick = (1 if options.quick else 5), options.quick
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        rows = [
            *weather(folder, repeat, 512 if quick else 4096, 10),
            *pi(repeat, 10**8 if quick else 4 * 10**9),
            *sums(repeat, 10**6 if quick else 10**8),
            *checkpoint(folder, repeat, 48 * 10**6 if quick else 2 * 10**9),
            *hiding(folder, min(repeat, 3), 512 if quick else 2048, 40 if quick else 800, 20 if quick else 200),
            *overheads(folder, repeat),
        ]
    keep("spine", rows, quick)


if __name__ == "__main__":
    main()
