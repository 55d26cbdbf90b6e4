"""What being trusted costs: python benchmarks/trust.py [--quick]; part of `make bench`.

A step of one millisecond with the watchdog and without, and the parts one by one; each measured in turn.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path

from measure import HERE, Row, anyrank, interleaved, keep, ratio

from anyrank.provenance import provenance
from anyrank.runtime.watchdog import Watchdog
from anyrank.world import World

EMPTY = HERE / "empty.py"
MILLI = 1e-3


def steps(folder: Path, repeat: int, count: int) -> list[Row]:
    """Return the seconds of a step of one millisecond, watched and not."""

    def seconds(timeout: str) -> float:
        words = (EMPTY, "--steps", count, "--spin", MILLI, "--hang-timeout", timeout)
        return anyrank(*words, ranks=2, folder=folder)["seconds"] / count

    watched, alone = interleaved(repeat, lambda: seconds("30min"), lambda: seconds("0"))
    more, span = ratio(watched, alone)
    text = f"{1e6 * statistics.median(watched):.1f} µs against {1e6 * statistics.median(alone):.1f}"
    return [("a step of 1 ms, watchdog / none, 2 ranks", f"{more:.4f} ({span})", "≤ 1.01", text, more <= 1.01)]


def parts(repeat: int) -> list[Row]:
    """Time the work of each step for the watchdog and for the recorder, and that for the provenance of a file."""
    watchdog, world, number = Watchdog(1800.0), World(), 200_000
    beat, off, made = interleaved(
        repeat,
        lambda: timeit.timeit(lambda: watchdog.beat(7), number=number) / number,
        lambda: timeit.timeit(lambda: world.recorder is not None, number=number) / number,
        lambda: timeit.timeit(lambda: provenance(world, "anyrank run"), number=20) / 20,
    )
    watchdog.close()
    a_step = statistics.median(beat) + 3 * statistics.median(off)
    text = (
        f"{1e9 * statistics.median(beat):.0f} ns for a beat, three times {1e9 * statistics.median(off):.0f} ns to see "
    )
    text += "that nobody records; calls of lambdas included"
    share = a_step / MILLI
    file = 1e3 * statistics.median(made)
    return [
        ("watchdog and recorder off, of a 1 ms step", f"{share:.3%}", "≤ 1 %", text, share <= 0.01),
        ("provenance of a checkpoint", f"{file:.2f} ms", "", "once in a file, on rank 0 alone", True),
    ]


def extras(folder: Path, repeat: int, count: int) -> list[Row]:
    """Measure what --check and --digests add to an empty step of the loop."""

    def micro(*words: str) -> float:
        return 1e6 * anyrank(EMPTY, "--steps", count, *words, ranks=2, folder=folder)["seconds"] / count

    plain, checked, digested = interleaved(repeat, micro, lambda: micro("--check"), lambda: micro("--digests"))
    base, check, digest = map(statistics.median, (plain, checked, digested))
    return [
        ("an empty step, 2 ranks", f"{base:.1f} µs", "", "one collective call, the agreement", True),
        ("with --check", f"{check:.1f} µs", "", f"{check - base:.1f} µs more for that call", True),
        ("with --digests", f"{digest:.1f} µs", "", "one Scalar", True),
    ]


def verifying(folder: Path) -> list[Row]:
    """Return the seconds that `anyrank verify --quick` takes for small programs of all three kinds."""
    small = {
        "weather": ("weather", "--rows", "24", "--columns", "20", "--steps", "12"),
        "pi": ("pi", "--points", "1000000", "--batch", "100000"),
        "heat": (str(HERE.parent / "examples" / "heat.py"), "--n", "24", "--steps", "12"),
    }
    rows: list[Row] = []
    for name, words in small.items():
        before = time.perf_counter()
        command = [sys.executable, "-m", "anyrank", "verify", *words, "--quick"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        taken = time.perf_counter() - before
        met = done.returncode == 0 and taken < 30
        rows.append((f"verify --quick, {name}", f"{taken:.1f} s", "< 30 s", done.stdout.splitlines()[-1], met))
    return rows


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few steps, to see that it works")
    quick = parser.parse_args().quick
    repeat, count = (1, 500) if quick else (9, 4000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [*steps(folder, repeat, count), *parts(repeat), *extras(folder, repeat, 5 * count), *verifying(folder)]
    keep("trust", rows, quick)


if __name__ == "__main__":
    main()
