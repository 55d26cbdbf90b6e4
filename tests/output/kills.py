"""Runs that are killed at random instants, and resumed on other ranks until they are finished."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

from ranks import anyrank_command, processes_of, run_anyrank, start_process


def kill_and_resume(out: Path, first: tuple, kills: int, seed: int, *more: object, ranks: tuple = (1, 2, 3, 4)) -> int:
    """Start the run, kill one of its processes `kills` times, each time during its steps, and let it finish.

    Returns the number of kills that hit a run with steps.
    """
    random_, words, hit = random.Random(seed), (*first, "--out", out), 0
    while hit < kills:
        count = random_.choice(ranks)
        with start_process(*anyrank_command(*words, *more, "--quiet", ranks=count)) as process:
            rows = rows_of(out)
            deadline = time.monotonic() + 60
            while process.poll() is None and rows_of(out) == rows and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(random_.uniform(0.0, 0.6))
            running = [pid for pid, command in processes_of(process).items() if "anyrank" in command]
            if process.poll() is None and running:
                hit += 1
                with suppress(ProcessLookupError):
                    os.kill(random_.choice(running), signal.SIGKILL)
                process.wait(60)
            elif process.returncode == 0:
                raise AssertionError(f"the run finished after {hit} kills: it is too short")
        if (out / "run.toml").exists():
            words = ("resume", out)
    done = run_anyrank(*words, *more, "--quiet", ranks=random_.choice(ranks))
    assert done.returncode == 0, done.stderr
    return hit


def rows_of(out: Path) -> int:
    """The size of the series so far; −1 if there is none."""
    with suppress(OSError):
        return (out / "series.csv").stat().st_size
    return -1
