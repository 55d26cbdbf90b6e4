"""What the benchmarks share: runs, turns, ratios, and the table that is kept."""

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
#: What was measured, the value, the goal, a remark, and whether the goal is met.
Row = tuple[str, str, str, str, bool]


def anyrank(*arguments: object, ranks: int, folder: Path) -> dict:
    """Return the summary of one run of anyrank; raise RuntimeError with its message if it fails.

    The folder of the run before is removed.
    """
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    words = [sys.executable, "-m", "anyrank", "run", *map(str, arguments), "-n", str(ranks)]
    done = subprocess.run([*words, "--out", str(out), "--json", "--quiet"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[2:])} left with {done.returncode}: {done.stderr[-1500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def interleaved(repeat: int, *actions: Callable[[], float]) -> list[list[float]]:
    """Return the values of every action over `repeat` rounds, in which the actions take turns."""
    values: list[list[float]] = [[] for _ in actions]
    for _ in range(repeat):
        for kept, action in zip(values, actions, strict=True):
            kept.append(action())
    return values


def ratio(above: list[float], below: list[float]) -> tuple[float, str]:
    """Return the median of the ratios pair by pair, and their span."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return statistics.median(ratios), f"{min(ratios):.3g} to {max(ratios):.3g}"


def machine() -> str:
    """Return the machine in words."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    name = models[0].split(":")[1].strip() if models else platform.machine()
    gpu = here().get("gpu", "")
    card = f", {gpu} (CUDA {here()['cuda']})" if gpu else ""
    return f"{name}, {os.cpu_count()} cores{card}, {platform.platform()}, Python {platform.python_version()}"


def table(name: str, rows: list[Row], where: str = "") -> str:
    """Return Markdown: the command, the date, the machine (this one, unless `where` says another) and the rows."""
    lines = [f"`python benchmarks/{name}.py`, {now():%Y-%m-%d %H:%M} UTC, on {where or machine()}.", ""]
    lines += ["| what | measured: median (span) | goal | | met |", "|---|---|---|---|---|"]
    cells = ([*(text.replace("|", "/") for text in row[:4]), "yes" if row[4] else "NO"] for row in rows)
    return "\n".join([*lines, *(f"| {' | '.join(line)} |" for line in cells)]) + "\n"


def now() -> datetime:
    return datetime.now(timezone.utc)


def keep(name: str, rows: list[Row], quick: bool) -> None:
    """Print the table; unless quick, write it with the machine, the date and the command."""
    text = table(name, rows)
    print(text)
    if not quick:
        (HERE / "results" / f"{name.replace('/', '-')}-{now():%Y-%m-%d}.md").write_text(text)
