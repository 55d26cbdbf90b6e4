"""What wider halos give weather on two ranks, and what its kernel makes of the memory.

`python benchmarks/scaling/blocking.py`: two ranks in one launch take turns with 1, 2 and 4 steps to an exchange,
at sizes from where messages are most of a step to where memory is; ratios are taken within a round. Then rank 0
alone: the kernel's 96 bytes a cell against STREAM's triad. Prints tables; on a machine that others use, their
medians say more than their spans.
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
#: Cells a side, and steps of a turn.
SIZES = ((64, 2000), (256, 600), (1024, 60), (4096, 8))
TRIAD_SIDE = 4096


def measured(sizes: list[tuple[int, int]], rounds: int) -> dict[str, list[float]]:
    """Return cell-steps per second by `side/halo steps`, and of one rank and the triad; on rank 0 of this launch."""
    from mpi4py import MPI
    from triad import triad
    from two_ranks import stepper, wait_idly

    from anyrank.world import World

    world = World()
    found: dict[str, list[float]] = {}
    for side, steps in sizes:
        turns = {f"{side}/{k}": stepper(world, side, steps, k) for k in HALO_STEPS}
        for number in range(rounds + 1):
            for name, turn in turns.items():
                value = turn()
                found.setdefault(name, []).extend([value] if number else [])
    alone = stepper(World(MPI.COMM_SELF), TRIAD_SIDE, 8) if world.rank == 0 else None
    for number in range((rounds + 1) if alone is not None else 0):
        size = 24 * TRIAD_SIDE**2
        taken = {"triad": triad(size, 1), "streaming": triad(size, 1, streaming=True), "one": alone()}
        for name, value in taken.items():
            found.setdefault(name, []).extend([value] if number else [])
    wait_idly(world)
    return found


def table(found: dict[str, list[float]], sizes: list[tuple[int, int]]) -> list[str]:
    """Return the rows of the table."""
    lines = ["| weather, 2 ranks | M cell-steps/s | to one step an exchange |", "|---|---|---|"]
    for side, _ in sizes:
        for k in HALO_STEPS:
            values, (gain, span) = found[f"{side}/{k}"], ratio(found[f"{side}/{k}"], found[f"{side}/1"])
            rate = statistics.median(values) / 1e6
            lines.append(f"| {side}², {k} steps an exchange | {rate:.0f} | {gain:.2f} ({span}) |")
    lines += ["", f"| weather {TRIAD_SIDE}², 96 B × rate, 1 rank | GB/s | weather's share |", "|---|---|---|"]
    moved = [96e-9 * rate for rate in found["one"]]
    for name, words in (("triad", "triad, 24 B a point"), ("streaming", "triad with streaming stores, 24 B a point")):
        share, span = ratio(moved, found[name])
        lines.append(f"| {words} | {statistics.median(found[name]):.1f} | {share:.2f} ({span}) |")
    return lines


def main() -> None:
    """Start two ranks, or be one; print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = list(SIZES[:2]) if options.quick else list(SIZES)
    if options.rank:
        found = measured(sizes, options.rounds)
        if found.get("one"):
            print(json.dumps(found))
        return
    mpiexec = Path(sys.executable).with_name("mpiexec")
    words = [str(mpiexec), "-n", "2", sys.executable, __file__, "--rank", "--rounds", str(options.rounds)]
    done = subprocess.run([*words, *["--quick"][: options.quick]], stdout=subprocess.PIPE, text=True, check=True)
    print(f"On {machine()}; load at the end {os.getloadavg()[0]:.1f}.\n")
    print("\n".join(table(json.loads(done.stdout.splitlines()[-1]), sizes)))


if __name__ == "__main__":
    main()
