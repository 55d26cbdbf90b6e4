"""Many small tasks: anyrank's farm beside other tools, on two cores, in one run.

    python benchmarks/peers/farm.py [--tasks 1e6] [--commands 2000] [--rounds 3] [--only anyrank,Dask]

Empty tasks: a function that returns its argument, called for the numbers of a table or a range. The time of anyrank is
that of the whole farm on two ranks without the start of mpiexec: workers start, take tasks, keep each result in a file,
and the results are written as CSV. The others have two workers that have started, and keep results in memory: one task
at a time, and in chunks. Commands: `true`, with anyrank, GNU parallel and xargs. Celery, RQ, HyperQueue, Dask and GNU
parallel are measured if they are installed. The table is added to benchmarks/results/farm-DATE.md.
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
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import measure

import farm_brokers

CHUNK = 1000
TASK = "def same(x):\n    return x\n"
#: mpi4py.futures with two workers and a master; prints seconds.
FUTURES = """
import sys, time
from mpi4py.futures import MPICommExecutor
sys.path.insert(0, sys.argv[3])
from task import same
with MPICommExecutor() as executor:
    if executor is not None:
        list(executor.map(same, range(100)))
        began = time.perf_counter()
        list(executor.map(same, range(int(sys.argv[1])), chunksize=int(sys.argv[2])))
        print(time.perf_counter() - began)
"""
#: A counter by one-sided MPI, written by hand, one task at a time; prints seconds.
COUNTER = """
import sys, time
import numpy as np
from mpi4py import MPI
sys.path.insert(0, sys.argv[2])
from task import same
comm, tasks = MPI.COMM_WORLD, int(sys.argv[1])
window = MPI.Win.Allocate(8, 8, comm=comm)
window.Lock_all()
one, old, results = np.ones(1, np.int64), np.zeros(1, np.int64), []
comm.Barrier()
began = time.perf_counter()
while True:
    window.Fetch_and_op(one, old, 0)
    window.Flush(0)
    if old[0] >= tasks:
        break
    results.append(same(int(old[0])))
comm.Barrier()
if comm.rank == 0:
    print(time.perf_counter() - began)
window.Unlock_all()
window.Free()
"""


def same(x: int) -> int:
    """Return the argument."""
    return x


def seconds_of(*words: object) -> float:
    """Return the number that a command prints last."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def by_anyrank(folder: Path, tasks: int, *words: object) -> float:
    """Return the seconds of a farm."""
    table, out = folder / f"{tasks}.csv", folder / "run"
    if not table.exists():
        table.write_text("x\n" + "\n".join(map(str, range(tasks))) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "anyrank", "farm", *map(str, words), "--table", str(table), "-n", "2"]
    done = subprocess.run(
        [*command, "--out", str(out), "--quiet", "--json"], capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def by_futures(tasks: int, chunk: int) -> float:
    """Return the seconds of `concurrent.futures`."""
    with ProcessPoolExecutor(2) as executor:
        list(executor.map(same, range(100)))
        began = time.perf_counter()
        list(executor.map(same, range(tasks), chunksize=chunk))
        return time.perf_counter() - began


def by_dask(tasks: int) -> float:
    """Return the seconds of Dask distributed."""
    from distributed import Client

    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        client.gather(client.map(same, range(100)))
        began = time.perf_counter()
        client.gather(client.map(same, range(tasks)))
        return time.perf_counter() - began


def by_command(tasks: int, *words: str) -> float:
    """Return the seconds of a command that reads a line for each task."""
    began = time.perf_counter()
    lines = "\n".join(map(str, range(tasks)))
    subprocess.run(words, input=lines, text=True, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def cases(folder: Path, tasks: int, commands: int) -> dict[str, tuple[int, Callable[[], float]]]:
    """Return the number of tasks and the function of each measurement, by name."""
    mpiexec = Path(sys.executable).with_name("mpiexec")
    mpi, few = [mpiexec, "-n", 3, sys.executable, "-c", FUTURES], max(1000, tasks // 20)
    by_hand = [mpiexec, "-n", 2, sys.executable, "-c", COUNTER, tasks, folder]
    found = {
        "anyrank": (tasks, lambda: by_anyrank(folder, tasks, f"{folder}/task.py:same")),
        "concurrent.futures": (few, lambda: by_futures(few, 1)),
        f"concurrent.futures, chunks of {CHUNK}": (tasks, lambda: by_futures(tasks, CHUNK)),
        "mpi4py.futures": (few, lambda: seconds_of(*mpi, few, 1, folder)),
        f"mpi4py.futures, chunks of {CHUNK}": (tasks, lambda: seconds_of(*mpi, tasks, CHUNK, folder)),
        "MPI counter by hand": (tasks, lambda: seconds_of(*by_hand)),
        "anyrank, commands": (commands, lambda: by_anyrank(folder, commands, "--command", "true")),
    }
    try:
        import distributed  # noqa: F401

        found["Dask distributed"] = (few, lambda: by_dask(few))
    except ImportError:
        print("Dask distributed is not installed")
    found |= farm_brokers.cases(folder, tasks, commands)
    if shutil.which("parallel"):
        found["GNU parallel"] = (commands, lambda: by_command(commands, "parallel", "-j2", "true", "{}"))
    found["xargs -P 2"] = (commands, lambda: by_command(commands, "xargs", "-P2", "-n1", "true"))
    return found


def main() -> None:
    """Measure, print and write a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tasks", type=lambda text: int(float(text)), default=1_000_000)
    parser.add_argument("--commands", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="parts of the names of what is measured, separated by commas")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "task.py").write_text(TASK)
        measured = {
            name: case
            for name, case in cases(folder, words.tasks, words.commands).items()
            if any(part in name for part in words.only.split(","))
        }
        rates: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(words.rounds):
            for name, (tasks, seconds) in measured.items():
                rates[name].append(tasks / seconds())
                print(f"{name:40} {rates[name][-1]:12,.0f} tasks/s", flush=True)
    date = measure.now()
    command = " ".join(["benchmarks/peers/farm.py", *sys.argv[1:]])
    lines = [f"`python {command}`, {date:%Y-%m-%d %H:%M} UTC, {measure.machine()}.", ""]
    lines += ["| | tasks/s (median) | smallest | largest |", "|---|---|---|---|"]
    for name, values in rates.items():
        lines.append(f"| {name} | {statistics.median(values):,.0f} | {min(values):,.0f} | {max(values):,.0f} |")
    text = "\n".join(lines)
    print(f"\n{text}")
    with (measure.HERE / "results" / f"farm-{date:%Y-%m-%d}.md").open("a") as file:
        file.write(f"\n## Many small tasks\n\n{text}\n")


if __name__ == "__main__":
    main()
