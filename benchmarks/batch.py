"""Measure the cost of starting a job: python benchmarks/batch.py [--quick]; part of `make bench`.

A run on 2 ranks is resumed, once in this environment and once in an unpacked archive of it (`anyrank pack`). Measured
are the seconds from mpiexec to the end of the run, and the requests of each rank to the file system, of those folders
that nodes of a cluster would share. The requests are counted by strace.
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

from measure import HERE, Row, ratio, run_in_turn, write_table

PROJECT = HERE.parent
PROGRAM = PROJECT / "examples" / "heat.py"
RANKS = 2


class Environment:
    """An environment: its commands `mpiexec` and `anyrank`, and the file of the program."""

    def __init__(self, binaries: Path, program: Path):
        self.mpiexec, self.anyrank, self.program = binaries / "mpiexec", binaries / "anyrank", program

    def resume(self, run: Path, *prefix: object) -> float:
        """Resume a copy of the run and return the seconds until it ends; `prefix` comes before mpiexec."""
        copy = run.with_name("copy")
        shutil.copytree(run, copy)
        words = [self.mpiexec, "-n", RANKS, self.anyrank, "resume", copy, "--program", self.program, "--quiet"]
        start = time.perf_counter()
        subprocess.run(list(map(str, [*prefix, *words])), check=True, cwd=run.parent)
        seconds = time.perf_counter() - start
        shutil.rmtree(copy)
        return seconds


def make_stopped_run(folder: Path) -> Path:
    """Make a run that is stopped one step before its end."""
    words = ["run", PROGRAM, "--n", 64, "--steps", 10, "--stop-at", 9, "--out", folder / "run", "--quiet", "-n", RANKS]
    done = subprocess.run([sys.executable, "-m", "anyrank", *map(str, words)])
    assert done.returncode == 75
    return folder / "run"


def pack_and_unpack(folder: Path, suffix: str) -> tuple[list[Row], Environment]:
    """Measure packing and unpacking; return the rows and the unpacked environment."""
    archive, target = folder / f"env.{suffix}", folder / suffix
    target.mkdir()
    words = ["pack", PROGRAM, "--only", "anyrank", "--out", archive]
    start = time.perf_counter()
    pack = subprocess.run(
        [sys.executable, "-m", "anyrank", *map(str, words)], check=True, capture_output=True, text=True
    )
    pack_end = time.perf_counter()
    subprocess.run(["tar", "-xf", archive, "-C", target], check=True)
    unpack_end = time.perf_counter()
    size = f"{archive.stat().st_size / 1e6:.0f} MB"
    files = re.findall(r"\d+ files", pack.stdout)[-1]
    archive.unlink()
    rows = [
        (f"pack --only anyrank, .{suffix}", f"{pack_end - start:.1f} s", "", f"{size}, {files}", True),
        (f"unpack it, .{suffix}", f"{unpack_end - pack_end:.1f} s", "", "tar -xf, once per node", True),
    ]
    return rows, Environment(target / "bin", target / "program" / PROGRAM.name)


def shared_folders() -> tuple[str, ...]:
    """Return the folders that nodes of a cluster would share: environment, project, and Python outside /usr."""
    roots = {sys.prefix, str(PROJECT), *(() if sys.base_prefix == "/usr" else (sys.base_prefix,))}
    return tuple(f"{root}/" for root in roots)


def count_requests(environment: Environment, run: Path, folder: Path) -> tuple[float, float, float]:
    """Count the requests of a rank to the file system.

    Returns the successful opens of files in shared folders, all requests about shared folders, and all requests about
    the run folder.
    """
    log = folder / "trace"
    environment.resume(run, "strace", "-f", "-ff", "-qq", "-e", "trace=%file", "-o", log)
    counts = [0, 0, 0]
    for trace in folder.glob("trace.*"):
        lines = trace.read_text(errors="replace").splitlines()
        trace.unlink()
        if not lines or '"resume"' not in lines[0] or "/mpiexec" in lines[0].partition(",")[0]:
            continue  # not a rank
        for line in lines:
            path = (re.findall(r'"([^"]*)"', line) or [""])[0]
            if path.startswith(shared_folders()):
                counts[0] += re.match(r"open.* = \d+$", line) is not None
                counts[1] += 1
            elif path.startswith(str(run.with_name("copy"))):
                counts[2] += 1
    opens, requests, run_requests = (count / RANKS for count in counts)
    return opens, requests, run_requests


def measure_start(folder: Path, repeat: int) -> list[Row]:
    """Measure the start of a job in this environment and in the unpacked one."""
    run = make_stopped_run(folder)
    rows, unpacked = pack_and_unpack(folder, "tar.gz")
    rows += pack_and_unpack(folder, "tar")[0]
    current = Environment(Path(sys.prefix) / "bin", PROGRAM)
    current_seconds, unpacked_seconds = run_in_turn(repeat, lambda: current.resume(run), lambda: unpacked.resume(run))
    factor, span = ratio(unpacked_seconds, current_seconds)
    remark = f"{statistics.median(unpacked_seconds):.2f} s against {statistics.median(current_seconds):.2f} s, "
    remark += "files in memory"
    rows.append((f"resume on {RANKS} ranks, unpacked / not", f"{factor:.2f} ({span})", "≤ 1.2", remark, factor <= 1.2))
    if not shutil.which("strace"):
        return [*rows, ("requests to a shared file system", "not measured", "", "strace is not installed", True)]
    title, remark = "requests of a rank to the shared file system", "{:.0f} open a file; {:.0f} more to the run folder"
    opens, requests, run_requests = count_requests(current, run, folder)
    rows.append((f"{title}, this environment", f"{requests:.0f}", "", remark.format(opens, run_requests), True))
    limit = requests / 100
    opens, requests, run_requests = count_requests(unpacked, run, folder)
    met = opens == 0 and requests <= limit
    rows.append((f"{title}, unpacked", f"{requests:.0f}", "≤ 1 % of that", remark.format(opens, run_requests), met))
    return rows


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repetitions, as a test; write no results")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as name:
        rows = measure_start(Path(name), 1 if quick else 9)
    write_table("batch", rows, quick)


if __name__ == "__main__":
    main()
