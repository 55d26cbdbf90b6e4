"""Measure the promises about the speed of frames: python benchmarks/frames.py [--quick]; part of `make bench`.

100 frames of 4096² float64 on 2 ranks: which part of their work overlaps with the steps of the weather, how much they
slow it down, and how fast they are beside plain `pwrite` and `fsync` of as many bytes by as many ranks, in one launch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from measure import Row, ratio, run_anyrank, run_in_turn, write_table
from spine import GIGA, two_ranks


def overlap(folder: Path, repeat: int, side: int, frames: int, every: int) -> list[Row]:
    """Measure which part of the frames of a run overlaps with its steps."""
    steps = (frames - 1) * every
    run = ("weather", "--rows", side, "--columns", side, "--steps", steps, "--no-picture", "--checkpoint-every", "off")
    shares: list[float] = []

    def with_frames() -> float:
        words = (*run, "--frames", "p", "--frames-every", every)
        seconds = run_anyrank(*words, ranks=2, folder=folder)["seconds"]
        events = map(json.loads, (folder / "run" / "events.jsonl").read_text().splitlines())
        shares.extend(event["hidden"] for event in events if event["event"] == "frames")
        return seconds

    def without() -> float:
        return run_anyrank(*run, ranks=2, folder=folder)["seconds"]

    slow, fast = run_in_turn(repeat, with_frames, without)
    factor, span = ratio(slow, fast)
    share = statistics.median(shares)
    text = (
        f"{frames * 8 * side * side / GIGA:.2f} GB, a frame every {every} steps; the run takes {factor:.2f} ({span}) "
    )
    text += "times as long as without"
    spread = f"{share:.0%} ({min(shares):.0%} to {max(shares):.0%})"
    title = f"part of {frames} frames of {side}² that overlaps with steps, 2 ranks"
    return [(title, spread, "≥ 80 %", text, share >= 0.8)]


def writes(folder: Path, repeat: int, side: int, frames: int) -> list[Row]:
    """Compare frames without steps between them with plain writes."""
    rates = two_ranks("frames", side, frames, repeat, folder / "writes")
    share, span = ratio(rates["frames"], rates["plain"])
    text = f"{statistics.median(rates['frames']):.2f} GB/s, plain {statistics.median(rates['plain']):.2f}"
    return [(f"{frames} frames of {side}² / plain, 2 ranks", f"{share:.2f} ({span})", "≥ 0.70", text, share >= 0.7)]


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, as a test; write no results")
    parser.add_argument("--folder", type=Path, help="folder for runs  [a temporary folder]")
    options = parser.parse_args()
    quick = options.quick
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        side, frames = (256, 5) if quick else (4096, 100)
        rows = [
            *overlap(folder, 1 if quick else 3, side, frames, 4 if quick else 10),
            *writes(folder, 1 if quick else 5, side, 3 if quick else 10),
        ]
    write_table("frames", rows, quick)


if __name__ == "__main__":
    main()
