"""Measure the effect of wider halos on weather on two ranks, and the memory bandwidth of its kernel.

`python benchmarks/scaling/blocking.py` runs the weather on two ranks in one launch, in turn with 1, 2 and 4 steps per
exchange. On the smallest grid most of a step is messages, on the largest grid most of it is memory traffic. Ratios are
computed within a round. Then rank 0 alone compares the kernel (96 bytes per cell) with STREAM's triad. It prints
tables. On a machine with other users, the medians are more reliable than the spans.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from measure import machine, ratio  # noqa: E402

HALO_STEPS = (1, 2, 4)
#: Cells per side of the grid, and steps in a turn.
SIZES = ((64, 2000), (256, 600), (1024, 60), (4096, 8))
TRIAD_SIDE = 4096


def measure_rates(sizes: list[tuple[int, int]], rounds: int) -> dict[str, list[float]]:
    """Return lists of rates on rank 0: cell-steps/s by `side/halo steps`, and those of one rank and of the triads."""
    from mpi4py import MPI
    from triad import triad
    from two_ranks import idle_barrier, weather_rate

    from anyrank.world import World

    world = World()
    rates: dict[str, list[float]] = {}
    for side, steps in sizes:
        turns = {f"{side}/{k}": weather_rate(world, side, steps, k) for k in HALO_STEPS}
        for number in range(rounds + 1):
            for name, turn in turns.items():
                value = turn()
                rates.setdefault(name, []).extend([value] if number else [])
    alone = weather_rate(World(MPI.COMM_SELF), TRIAD_SIDE, 8) if world.rank == 0 else None
    for number in range((rounds + 1) if alone is not None else 0):
        size = 24 * TRIAD_SIDE**2
        values_of_round = {"triad": triad(size, 1), "streaming": triad(size, 1, streaming=True), "one": alone()}
        for name, value in values_of_round.items():
            rates.setdefault(name, []).extend([value] if number else [])
    idle_barrier(world)
    return rates


def table(rates: dict[str, list[float]], sizes: list[tuple[int, int]]) -> list[str]:
    """Return the lines of both tables."""
    lines = ["| weather, 2 ranks | M cell-steps/s | ratio to one step per exchange |", "|---|---|---|"]
    for side, _ in sizes:
        for k in HALO_STEPS:
            values, (gain, span) = rates[f"{side}/{k}"], ratio(rates[f"{side}/{k}"], rates[f"{side}/1"])
            rate = statistics.median(values) / 1e6
            lines.append(f"| {side}², {k} steps per exchange | {rate:.0f} | {gain:.2f} ({span}) |")
    lines += ["", f"| weather {TRIAD_SIDE}², 96 B × rate, 1 rank | GB/s | weather's share |", "|---|---|---|"]
    bandwidths = [96e-9 * rate for rate in rates["one"]]
    for name, words in (
        ("triad", "triad, 24 B per point"),
        ("streaming", "triad with streaming stores, 24 B per point"),
    ):
        share, span = ratio(bandwidths, rates[name])
        lines.append(f"| {words} | {statistics.median(rates[name]):.1f} | {share:.2f} ({span}) |")
    return lines


def main() -> None:
    """Start two ranks and print the tables; with --rank, measure as one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small sizes, as a test")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = list(SIZES[:2]) if options.quick else list(SIZES)
    if options.rank:
        rates = measure_rates(sizes, options.rounds)
        if rates.get("one"):
            print(json.dumps(rates))
        return
    mpiexec = Path(sys.executable).with_name("mpiexec")
    words = [str(mpiexec), "-n", "2", sys.executable, __file__, "--rank", "--rounds", str(options.rounds)]
    done = subprocess.run([*words, *["--quick"][: options.quick]], stdout=subprocess.PIPE, text=True, check=True)
    print(f"On {machine()}; load at the end {os.getloadavg()[0]:.1f}.\n")
    print("\n".join(table(json.loads(done.stdout.splitlines()[-1]), sizes)))


if __name__ == "__main__":
    main()
