"""Runs that are killed at random instants, and resumed on other ranks until they are finished."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

from ranks import anyrank_command, processes_of, run_anyrank, start_process

#: The numbers of ranks of the executions of a run.
RANKS = (1, 2, 3, 4)


def kill_and_resume(out: Path, first: tuple, kills: int, seed: int, *more: object, output: str = "series.csv") -> int:
    """Start the run, kill one of its processes `kills` times, each soon after it wrote `output`, and let it finish.

    Returns the number of kills that hit a run with steps.
    """
    random_, words, hit = random.Random(seed), (*first, "--out", out), 0
    while hit < kills:
        count = random_.choice(RANKS)
        with start_process(*anyrank_command(*words, *more, "--quiet", ranks=count)) as process:
            before = version_of(out / output)
            deadline = time.monotonic() + 60
            while process.poll() is None and version_of(out / output) == before and time.monotonic() < deadline:
                time.sleep(0.002)
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
    done = run_anyrank(*words, *more, "--quiet", ranks=random_.choice(RANKS), timeout=600)
    assert done.returncode == 0, done.stderr
    return hit


def version_of(path: Path) -> tuple[int, ...]:
    """What changes when a file is written or replaced; nothing if there is none."""
    with suppress(OSError):
        status = path.stat()
        return status.st_size, status.st_mtime_ns, status.st_ino
    return ()
