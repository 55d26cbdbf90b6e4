"""Measure the cost of the watchdog, --check, --digests and provenance: python benchmarks/trust.py [--quick].

It compares steps of one millisecond with and without the watchdog, and then measures each part alone. The quantities of
a row are measured in turn. Part of `make bench`.
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

from measure import HERE, Row, ratio, run_anyrank, run_in_turn, write_table

from anyrank.provenance import provenance
from anyrank.runtime.watchdog import Watchdog
from anyrank.world import World

EMPTY = HERE / "empty.py"
MILLI = 1e-3


def watchdog_rows(folder: Path, repeat: int, count: int) -> list[Row]:
    """Compare a step of one millisecond with and without the watchdog."""

    def seconds(timeout: str) -> float:
        words = (EMPTY, "--steps", count, "--spin", MILLI, "--hang-timeout", timeout)
        return run_anyrank(*words, ranks=2, folder=folder)["seconds"] / count

    with_watchdog, without_watchdog = run_in_turn(repeat, lambda: seconds("30min"), lambda: seconds("0"))
    factor, span = ratio(with_watchdog, without_watchdog)
    text = f"{1e6 * statistics.median(with_watchdog):.1f} µs against {1e6 * statistics.median(without_watchdog):.1f}"
    return [("a step of 1 ms, watchdog / none, 2 ranks", f"{factor:.4f} ({span})", "≤ 1.01", text, factor <= 1.01)]


def loop_rows(repeat: int) -> list[Row]:
    """Measure the work for the watchdog and the recorder in each step, and the provenance of a checkpoint."""
    watchdog, world, number = Watchdog(1800.0), World(), 200_000
    beat_seconds, check_seconds, provenance_seconds = run_in_turn(
        repeat,
        lambda: timeit.timeit(lambda: watchdog.beat(7), number=number) / number,
        lambda: timeit.timeit(lambda: world.recorder is not None, number=number) / number,
        lambda: timeit.timeit(lambda: provenance(world, "anyrank run"), number=20) / 20,
    )
    watchdog.close()
    per_step = statistics.median(beat_seconds) + 3 * statistics.median(check_seconds)
    text = f"{1e9 * statistics.median(beat_seconds):.0f} ns for a beat, three times "
    text += f"{1e9 * statistics.median(check_seconds):.0f} ns to see that there is no recorder; lambda calls included"
    share = per_step / MILLI
    file = 1e3 * statistics.median(provenance_seconds)
    return [
        ("watchdog and recorder off, of a 1 ms step", f"{share:.3%}", "≤ 1 %", text, share <= 0.01),
        ("provenance of a checkpoint", f"{file:.2f} ms", "", "once per file, on rank 0 only", True),
    ]


def option_rows(folder: Path, repeat: int, count: int) -> list[Row]:
    """Measure what --check and --digests add to an empty step."""

    def microseconds(*words: str) -> float:
        return 1e6 * run_anyrank(EMPTY, "--steps", count, *words, ranks=2, folder=folder)["seconds"] / count

    plain, with_check, with_digests = run_in_turn(
        repeat, microseconds, lambda: microseconds("--check"), lambda: microseconds("--digests")
    )
    base, check, digest = map(statistics.median, (plain, with_check, with_digests))
    return [
        ("an empty step, 2 ranks", f"{base:.1f} µs", "", "one collective call, the agreement", True),
        ("with --check", f"{check:.1f} µs", "", f"{check - base:.1f} µs more for that call", True),
        ("with --digests", f"{digest:.1f} µs", "", "one Scalar", True),
    ]


def verify_rows(folder: Path) -> list[Row]:
    """Measure `anyrank verify --quick` for three small programs."""
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
        seconds = time.perf_counter() - before
        met = done.returncode == 0 and seconds < 30
        rows.append((f"verify --quick, {name}", f"{seconds:.1f} s", "< 30 s", done.stdout.splitlines()[-1], met))
    return rows


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps, as a test; write no results")
    quick = parser.parse_args().quick
    repeat, count = (1, 500) if quick else (9, 4000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [
            *watchdog_rows(folder, repeat, count),
            *loop_rows(repeat),
            *option_rows(folder, repeat, 5 * count),
            *verify_rows(folder),
        ]
    write_table("trust", rows, quick)


if __name__ == "__main__":
    main()
