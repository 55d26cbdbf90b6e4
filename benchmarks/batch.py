"""What starting a job costs: python benchmarks/batch.py [--quick]; part of `make bench`.

A run goes on, on 2 ranks, once with this environment and once with an archive of it (`anyrank pack`), unpacked: the
files that each rank opens and looks for on what would be the shared file system, and the seconds from mpiexec to its
end. Needs strace for the files.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import HERE, Row, interleaved, keep, ratio

PROJECT = HERE.parent
PROGRAM = PROJECT / "examples" / "heat.py"
RANKS = 2


class Place:
    """An environment: its programs, the user's file, and the files that lie in it."""

    def __init__(self, binaries: Path, program: Path):
        self.mpiexec, self.anyrank, self.program = binaries / "mpiexec", binaries / "anyrank", program

    def resume(self, run: Path, *before: object) -> float:
        """Return the seconds that a copy of the run takes to go on and end; `before` comes before mpiexec."""
        copy = run.with_name("copy")
        shutil.copytree(run, copy)
        words = [self.mpiexec, "-n", RANKS, self.anyrank, "resume", copy, "--program", self.program, "--quiet"]
        start = time.perf_counter()
        subprocess.run(list(map(str, [*before, *words])), check=True, cwd=run.parent)
        taken = time.perf_counter() - start
        shutil.rmtree(copy)
        return taken


def half_done(folder: Path) -> Path:
    """Run a program until one step is left; return its folder."""
    words = ["run", PROGRAM, "--n", 64, "--steps", 10, "--stop-at", 9, "--out", folder / "run", "--quiet", "-n", RANKS]
    done = subprocess.run([sys.executable, "-m", "anyrank", *map(str, words)])
    assert done.returncode == 75
    return folder / "run"


def packed(folder: Path, suffix: str) -> tuple[list[Row], Place]:
    """Measure packing and unpacking; return the rows, and the place where the archive was unpacked."""
    archive, there = folder / f"env.{suffix}", folder / suffix
    there.mkdir()
    words = ["pack", PROGRAM, "--only", "anyrank", "--out", archive]
    before = time.perf_counter()
    told = subprocess.run(
        [sys.executable, "-m", "anyrank", *map(str, words)], check=True, capture_output=True, text=True
    )
    middle = time.perf_counter()
    subprocess.run(["tar", "-xf", archive, "-C", there], check=True)
    after = time.perf_counter()
    size = f"{archive.stat().st_size / 1e6:.0f} MB"
    many = re.findall(r"\d+ files", told.stdout)[-1]
    archive.unlink()
    rows = [
        (f"pack --only anyrank, .{suffix}", f"{middle - before:.1f} s", "", f"{size}, {many}", True),
        (f"unpack it, .{suffix}", f"{after - middle:.1f} s", "", "tar -xf, once a node", True),
    ]
    return rows, Place(there / "bin", there / "program" / PROGRAM.name)


def shared() -> tuple[str, ...]:
    """Return the folders that all nodes of a cluster share: environment, project, a Python that is not the system's."""
    roots = {sys.prefix, str(PROJECT), *(() if sys.base_prefix == "/usr" else (sys.base_prefix,))}
    return tuple(f"{root}/" for root in roots)


def asked(place: Place, run: Path, folder: Path) -> tuple[float, float, float]:
    """Count the system calls of each rank: opened shared files; all on shared files; all on files of the run."""
    log = folder / "trace"
    place.resume(run, "strace", "-f", "-ff", "-qq", "-e", "trace=%file", "-o", log)
    counts = [0, 0, 0]
    for trace in folder.glob("trace.*"):
        lines = trace.read_text(errors="replace").splitlines()
        trace.unlink()
        if not lines or '"resume"' not in lines[0] or "/mpiexec" in lines[0].partition(",")[0]:
            continue  # not a rank
        for line in lines:
            path = (re.findall(r'"([^"]*)"', line) or [""])[0]
            if path.startswith(shared()):
                counts[0] += re.match(r"open.* = \d+$", line) is not None
                counts[1] += 1
            elif path.startswith(str(run.with_name("copy"))):
                counts[2] += 1
    opened, questions, of_run = (count / RANKS for count in counts)
    return opened, questions, of_run


def starts(folder: Path, repeat: int) -> list[Row]:
    """Compare the start of a job with this environment, and with an archive of it."""
    run = half_done(folder)
    rows, there = packed(folder, "tar.gz")
    rows += packed(folder, "tar")[0]
    here = Place(Path(sys.prefix) / "bin", PROGRAM)
    shared_seconds, local_seconds = interleaved(repeat, lambda: here.resume(run), lambda: there.resume(run))
    more, span = ratio(local_seconds, shared_seconds)
    seconds = (
        f"{statistics.median(local_seconds):.2f} s against {statistics.median(shared_seconds):.2f}, files in memory"
    )
    rows.append((f"resume on {RANKS} ranks, unpacked / not", f"{more:.2f} ({span})", "≤ 1.2", seconds, more <= 1.2))
    if not shutil.which("strace"):
        return [*rows, ("files of a shared file system", "not measured", "", "there is no strace", True)]
    opened, questions, of_run = asked(here, run, folder)
    left_opened, left, left_of_run = asked(there, run, folder)
    what = "what a rank asks of the shared file system"
    text = "{:.0f} of them open a file; {:.0f} more are about the run folder"
    met = left_opened == 0 and left <= questions / 100
    return [
        *rows,
        (f"{what}, with this environment", f"{questions:.0f}", "", text.format(opened, of_run), True),
        (f"{what}, unpacked", f"{left:.0f}", "≤ 1 % of that", text.format(left_opened, left_of_run), met),
    ]


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see that it works")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as name:
        rows = starts(Path(name), 1 if quick else 9)
    keep("batch", rows, quick)


if __name__ == "__main__":
    main()
