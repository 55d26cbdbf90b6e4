"""Functions of all benchmarks: start runs, measure in turn, compute ratios, and write tables."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from anyrank.provenance import here

HERE = Path(__file__).parent
#: A row of a table: title, value, goal, remark, and whether the goal is met.
Row = tuple[str, str, str, str, bool]


def run_anyrank(*arguments: object, ranks: int, folder: Path) -> dict:
    """Run a program and return its summary; the folder of the previous run is removed.

    Raises RuntimeError with the error output if the run fails.
    """
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    words = [sys.executable, "-m", "anyrank", "run", *map(str, arguments), "-n", str(ranks)]
    done = subprocess.run([*words, "--out", str(out), "--json", "--quiet"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[2:])} exited with {done.returncode}: {done.stderr[-1500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run_in_turn(repeat: int, *actions: Callable[[], float]) -> list[list[float]]:
    """Call all actions once in each of `repeat` rounds; return a list of values for each action."""
    rounds = [[action() for action in actions] for _ in range(repeat)]
    return [list(values) for values in zip(*rounds, strict=True)]


def ratio(above: list[float], below: list[float]) -> tuple[float, str]:
    """Return the median of the ratios of paired values, and their smallest and largest value as text."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return statistics.median(ratios), f"{min(ratios):.3g} to {max(ratios):.3g}"


def machine() -> str:
    """Describe this machine: processor, cores, GPU, system, Python."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    name = models[0].split(":")[1].strip() if models else platform.machine()
    gpu = here().get("gpu", "")
    card = f", {gpu} (CUDA {here()['cuda']})" if gpu else ""
    return f"{name}, {os.cpu_count()} cores{card}, {platform.platform()}, Python {platform.python_version()}"


def table(name: str, rows: list[Row], where: str = "") -> str:
    """Return Markdown with the command, the date, the machine (this one unless `where` names another) and the rows."""
    lines = [f"`python benchmarks/{name}.py`, {now():%Y-%m-%d %H:%M} UTC, on {where or machine()}.", ""]
    lines += ["| what | measured: median (span) | goal | | met |", "|---|---|---|---|---|"]
    cells = ([*(text.replace("|", "/") for text in row[:4]), "yes" if row[4] else "NO"] for row in rows)
    return "\n".join([*lines, *(f"| {' | '.join(line)} |" for line in cells)]) + "\n"


def now() -> datetime:
    return datetime.now(timezone.utc)


def write_table(name: str, rows: list[Row], quick: bool) -> None:
    """Print the table; unless `quick`, also write it to benchmarks/results/."""
    text = table(name, rows)
    print(text)
    if not quick:
        (HERE / "results" / f"{name.replace('/', '-')}-{now():%Y-%m-%d}.md").write_text(text)
