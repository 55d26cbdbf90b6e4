"""The farm alone: ten million tasks, two ranks against one, tasks that wait, tasks of different lengths, latency.

    python benchmarks/peers/farm_cases.py [CASE ...] [--tasks 1e7] [--rounds 3]

Each case adds a section to benchmarks/results/farm-DATE.md. `many`: tasks that return their argument, their rate and
the peak memory of the rank that needs most. `fib`: fib(34) sixteen times, on one rank and on two. `lookups`: six tasks
that wait 0.25 s, in threads and as coroutines. `lengths`: a thousand tasks that wait; the lengths are lognormal with
σ = 1 and a mean of 20 ms; imbalance is the time until the last one has ended over the ideal, which is half the sum.
`latency`: from `submit` of a function that returns its argument to its result, one task at a time.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import measure

from anyrank import farm

FUNCTIONS = """
import asyncio, time
def same(x):
    return x
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
def wait(x):
    time.sleep(x)
async def wait_async(x):
    await asyncio.sleep(x)
"""
Case = Callable[[Path, argparse.Namespace], list[str]]


def run_farm(folder: Path, function: str, column: str, values: Iterable[object], ranks: int, *words: object) -> Any:
    """Run a farm over a column, and return its summary; the seconds are those of the run without the start of MPI."""
    (folder / "functions.py").write_text(FUNCTIONS)
    table = folder / "table.csv"
    with table.open("w") as file:
        file.write(f"{column}\n")
        file.writelines(f"{value}\n" for value in values)
    given = ("--function", f"{folder}/functions.py:{function}", "--table", table, *words)
    return measure.run_anyrank("farm", *given, ranks=ranks, folder=folder)


def span(folder: Path) -> tuple[float, float]:
    """Return the seconds from the first start to the last end of tasks, and the sum of their seconds."""
    with (folder / "run" / "tasks.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    starts = [datetime.fromisoformat(row["started"].rstrip("Z")).timestamp() for row in rows]
    seconds = [float(row["seconds"]) for row in rows]
    return max(map(sum, zip(starts, seconds, strict=True))) - min(starts), sum(seconds)


def many(folder: Path, options: argparse.Namespace) -> list[str]:
    """Return the rate and the memory of very many tasks."""
    summary = run_farm(folder, "same", "x", range(options.tasks), 2)
    peak, seconds = summary["memory"]["peak"] / 1e6, summary["seconds"]
    rate = options.tasks / seconds
    return [f"{options.tasks:,} tasks on 2 ranks: {seconds:.0f} s, {rate:,.0f} tasks/s; peak {peak:.0f} MB a rank."]


def fib(folder: Path, options: argparse.Namespace) -> list[str]:
    """Return the times of fib(34) on one rank and on two."""

    def seconds(ranks: int) -> float:
        return float(run_farm(folder, "fib", "n", [34] * 16, ranks)["seconds"])

    single, double = measure.run_in_turn(options.rounds, lambda: seconds(1), lambda: seconds(2))
    ratio, spread = measure.ratio(single, double)
    return [
        f"fib(34) 16 times: {statistics.median(single):.2f} s on one rank, {statistics.median(double):.2f} s on two; "
        f"ratio {ratio:.3f} ({spread}), of the shortest {min(single) / min(double):.3f}; goal 1.94."
    ]


def lookups(folder: Path, options: argparse.Namespace) -> list[str]:
    """Return the times of six tasks that wait."""
    lines = []
    for function in ("wait", "wait_async"):
        for ranks in (1, 2):
            began = time.perf_counter()
            summary = run_farm(folder, function, "x", [0.25] * 6, ranks, "--concurrency", 6)
            whole = time.perf_counter() - began
            tasks = span(folder)[0]
            lines.append(
                f"6 × 0.25 s, {function}, {ranks} ranks: {tasks:.3f} s for the tasks (goal 0.3), "
                f"{summary['seconds']:.2f} s for the run, {whole:.2f} s with the start of MPI and Python."
            )
    return lines


def lengths(folder: Path, options: argparse.Namespace) -> list[str]:
    """Return the imbalance of tasks of different lengths."""
    values = np.random.default_rng(7).lognormal(np.log(0.02) - 0.5, 1.0, 1000)
    lines = []
    for words in ((), ("--cost", "x")):
        imbalances = []
        for _ in range(options.rounds):
            run_farm(folder, "wait", "x", values, 2, *words)
            time_of_all, total = span(folder)
            imbalances.append(100 * (2 * time_of_all / total - 1))
        middle = statistics.median(imbalances)
        lines.append(
            f"1000 lognormal lengths, 2 ranks{', longest first' if words else ''}: imbalance {middle:.2f} % "
            f"({min(imbalances):.2f} to {max(imbalances):.2f}), goal 5 %."
        )
    return lines


def latency(_folder: Path, _options: argparse.Namespace) -> list[str]:
    """Return the times from the submission of a task to its result."""
    lines = []
    executors: dict[str, Callable[[], Executor]] = {
        "farm.Executor": lambda: farm.Executor(1),
        "concurrent.futures": lambda: ProcessPoolExecutor(1),
    }
    for name, make in executors.items():
        times = []
        with make() as executor:
            for _ in range(3000):
                began = time.perf_counter()
                executor.submit(abs, -1).result()
                times.append(1e6 * (time.perf_counter() - began))
        middle, late = np.percentile(times[100:], [50, 99])
        lines.append(
            f"Latency of {name}: median {middle:.0f} µs, 99 % below {late:.0f} µs; the first {times[0] / 1e3:.0f} ms."
        )
    return lines


CASES: dict[str, Case] = {"many": many, "fib": fib, "lookups": lookups, "lengths": lengths, "latency": latency}


def main() -> None:
    """Measure, print and append the sections."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], default=[*CASES])
    parser.add_argument("--tasks", type=lambda text: int(float(text)), default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    date = measure.now()
    file = measure.HERE / "results" / f"farm-{date:%Y-%m-%d}.md"
    for name in options.cases:
        with tempfile.TemporaryDirectory() as temporary:
            lines = CASES[name](Path(temporary), options)
        command = f"`python benchmarks/peers/farm_cases.py {name}`, {measure.now():%Y-%m-%d %H:%M} UTC"
        text = "\n".join([f"\n## {name}", "", f"{command}, {measure.machine()}.", "", *(f"- {line}" for line in lines)])
        print(text, flush=True)
        with file.open("a") as results:
            results.write(f"{text}\n")


if __name__ == "__main__":
    main()
