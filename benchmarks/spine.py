"""Measure the main promises about speed: python benchmarks/spine.py [--quick]; part of `make bench`.

Most rows are ratios of two quantities that are measured in turn on the same machine, as medians over rounds. So changes
in the speed of the machine affect both alike. The table is printed and written to benchmarks/results/.
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
from measure import Row, ratio, run_anyrank, run_in_turn, write_table

from anyrank import exact
from anyrank.kernel import Kernel
from anyrank.numerics.digest import local_digest
from anyrank.runtime.launch import mpiexec

HERE = Path(__file__).parent
GIGA = 1e9


def two_ranks(*words: object) -> dict[str, list[float]]:
    """Run `two_ranks.py` on 2 ranks and return its measurements."""
    command = [*mpiexec(), "-n", "2", sys.executable, str(HERE / "two_ranks.py"), *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def weather(folder: Path, repeat: int, side: int, steps: int) -> list[Row]:
    """Compare one rank with the triad of one core, and two ranks with one; and check the memory of a run."""
    rates = two_ranks("weather", side, steps, 3 * repeat)
    one, two, bound = rates["one"], rates["two"], rates["triad"]
    share, bandwidth_span = ratio([96 * value / GIGA for value in one], bound)
    speedup, speedup_span = ratio(two, one)
    triads, triads_span = ratio(rates["two_triads"], bound)
    run = ("weather", "--rows", side, "--columns", side, "--steps", steps, "--no-picture", "--checkpoint-every", "off")
    memory = run_anyrank(*run, ranks=2, folder=folder)["memory"]
    limit = 1.25 * memory["arrays"] + 150e6 + memory["staging"]
    text = f"{statistics.median(one) / 1e6:.0f} M cell-steps/s, triad {statistics.median(bound):.1f} GB/s"
    speedup_text = f"{statistics.median(two) / 1e6:.0f} M cell-steps/s, at best {max(two) / 1e6:.0f}; in the same "
    speedup_text += f"rounds two triads at a time had {triads:.2f} ({triads_span}) times the rate of one"
    memory_text = f"{memory['peak'] / 1e6:.0f} MB of {limit / 1e6:.0f} (arrays {memory['arrays'] / 1e6:.0f}, "
    memory_text += f"staging {memory['staging'] / 1e6:.0f})"
    return [
        (
            f"weather {side}², 96 B × rate / triad, 1 rank",
            f"{share:.2f} ({bandwidth_span})",
            "≥ 0.70",
            text,
            share >= 0.7,
        ),
        (
            f"weather {side}², 2 ranks / 1 rank",
            f"{speedup:.2f} ({speedup_span})",
            "≥ 1.9",
            speedup_text,
            speedup >= 1.9,
        ),
        ("peak memory per rank, 2 ranks", f"{memory['peak'] / limit:.2f}", "≤ 1", memory_text, memory["peak"] <= limit),
    ]


def pi(repeat: int, points: int) -> list[Row]:
    """Compare the kernel of a rank with a plain NumPy program."""
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
    theirs, ours = run_in_turn(repeat, numpy_rate, our_rate)
    factor, span = ratio(ours, theirs)
    text = f"{statistics.median(ours) / GIGA:.2f} G points/s, NumPy {statistics.median(theirs) / 1e6:.0f} M"
    return [("π, one core, ours / plain NumPy", f"{factor:.0f} ({span})", "≥ 100", text, factor >= 100)]


def sums(repeat: int, elements: int) -> list[Row]:
    """Compare exact.sum and the digest with reading the array once."""
    values = np.random.default_rng(2).normal(size=elements)
    bits = values.view(np.int64)

    def rate_of(action: Callable[[], object]) -> Callable[[], float]:
        def rate() -> float:
            before = time.perf_counter()
            action()
            return elements / (time.perf_counter() - before) / GIGA

        return rate

    actions = [
        rate_of(bits.sum),
        rate_of(lambda: exact.sum(values, local=True)),
        rate_of(lambda: local_digest(values, (elements,), (0,))),
    ]
    for action in actions:
        action()
    read_rates, sum_rates, digest_rates = run_in_turn(repeat, *actions)
    share, span = ratio(digest_rates, read_rates)
    speed = statistics.median(sum_rates)
    text = f"{8 * statistics.median(digest_rates):.1f} GB/s; NumPy's sum of int64 reads "
    text += f"{8 * statistics.median(read_rates):.1f}"
    return [
        ("exact.sum, one core", f"{speed:.2f} G elements/s", "≥ 0.5", f"{elements:.1e} normal numbers", speed >= 0.5),
        ("digest / reading, one core", f"{share:.2f} ({span})", "≥ 0.5", text, share >= 0.5),
    ]


def checkpoint(folder: Path, repeat: int, total: int) -> list[Row]:
    """Compare a checkpoint of `total` bytes with plain writes and fsync of as many bytes by as many ranks."""
    rates = two_ranks("checkpoint", total, repeat, folder / "checkpoints")
    share, span = ratio(rates["checkpoint"], rates["plain"])
    text = f"{statistics.median(rates['checkpoint']):.2f} GB/s, plain {statistics.median(rates['plain']):.2f}"
    return [
        (f"checkpoint {total / GIGA:.1f} GB / plain, 2 ranks", f"{share:.2f} ({span})", "≥ 0.70", text, share >= 0.7)
    ]


def checkpoint_overlap(folder: Path, repeat: int, side: int, steps: int, every: int) -> list[Row]:
    """Measure which part of a checkpoint overlaps with steps, and how much it slows them down."""
    run = ("weather", "--rows", side, "--columns", side, "--steps", steps, "--no-picture", "--checkpoint-every")
    overlaps: list[float] = []

    def with_checkpoints() -> float:
        seconds = run_anyrank(*run, every, ranks=2, folder=folder)["seconds"]
        written = checkpoints_of(folder / "run")
        overlaps.extend(event["hidden"] for event in written[:-1])
        return seconds

    def without() -> float:
        return run_anyrank(*run, "off", ranks=2, folder=folder)["seconds"]

    slow, fast = run_in_turn(repeat, with_checkpoints, without)
    factor, span = ratio(slow, fast)
    size = 6 * 8 * side * side / GIGA
    text = f"{size:.2f} GB every {every} steps; steps take {factor:.2f} ({span}) times as long as without"
    return [
        ("part of a checkpoint that overlaps with steps, 2 ranks", f"{statistics.median(overlaps):.0%}", "", text, True)
    ]


def checkpoints_of(run: Path) -> list[dict]:
    """Return the checkpoint events of a run."""
    events = map(json.loads, (run / "events.jsonl").read_text().splitlines())
    return [event for event in events if event["event"] == "checkpoint"]


def overheads(folder: Path, repeat: int) -> list[Row]:
    """Measure an empty step, and the start-up of a run."""

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

    steps = [run_anyrank(HERE / "empty.py", ranks=2, folder=folder) for _ in range(repeat)]
    microseconds = statistics.median(1e6 / summary["rate"]["value"] for summary in steps)
    our_seconds, bare_seconds = run_in_turn(repeat, ours, bare)
    more = statistics.median(a - b for a, b in zip(our_seconds, bare_seconds, strict=True))
    text = f"{statistics.median(our_seconds):.2f} s against {statistics.median(bare_seconds):.2f} s"
    return [
        ("an empty step, 2 ranks", f"{microseconds:.1f} µs", "≤ 50", "", microseconds <= 50),
        ("anyrank run pi − bare mpiexec", f"{more:.2f} s", "≤ 1", text, more <= 1),
    ]


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, as a test; write no results")
    parser.add_argument("--folder", type=Path, help="folder for runs and checkpoints  [a temporary folder]")
    options = parser.parse_args()
    repeat, quick = (1 if options.quick else 5), options.quick
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        rows = [
            *weather(folder, repeat, 512 if quick else 4096, 10),
            *pi(repeat, 10**8 if quick else 4 * 10**9),
            *sums(repeat, 10**6 if quick else 10**8),
            *checkpoint(folder, repeat, 48 * 10**6 if quick else 2 * 10**9),
            *checkpoint_overlap(
                folder, min(repeat, 3), 512 if quick else 2048, 40 if quick else 800, 20 if quick else 200
            ),
            *overheads(folder, repeat),
        ]
    write_table("spine", rows, quick)


if __name__ == "__main__":
    main()
