"""Frames of runs that are killed at random instants, and resumed on other ranks until they are finished."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import h5py
import pytest
from ranks import anyrank_command, processes_of, run_anyrank, start_process

PROGRAM = Path(__file__).with_name("plate.py")


def kill_until_finished(out: Path, first: tuple, kills: int, seed: int) -> int:
    """Start the run, kill one of its processes at most `kills` times, and let it finish; return the number of kills."""
    choice, words, killed = random.Random(seed), (*first, "--out", out), 0
    while killed < kills:
        with start_process(*anyrank_command(*words, ranks=choice.choice((1, 2, 3, 4)))) as process:
            before, deadline = changed(out), time.monotonic() + 60
            while process.poll() is None and changed(out) == before and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(choice.uniform(0.0, 0.5))
            running = [pid for pid, command in processes_of(process).items() if "anyrank" in command]
            if process.poll() is None and running:
                killed += 1
                with suppress(ProcessLookupError):
                    os.kill(choice.choice(running), signal.SIGKILL)
            process.wait(60)
            assert process.returncode, f"the run finished after {killed} kills: it is too short"
        if (out / "run.toml").exists():
            words = ("resume", out, "--quiet")
    done = run_anyrank(*words, ranks=choice.choice((1, 2, 3, 4, 7)), timeout=600)
    assert done.returncode == 0, done.stderr
    return killed


def changed(out: Path) -> tuple[int, int]:
    """When frames.nc was last written, and which file it is."""
    with suppress(OSError):
        status = (out / "frames.nc").stat()
        return status.st_mtime_ns, status.st_ino
    return 0, 0


@pytest.mark.parametrize(
    ("program", "kills", "steps", "options"),
    [
        ("Plate", 5, 300, ("--frames-every", 3)),
        ("Open", 4, 250, ("--frames-every", 1, "--frames-compression", "zlib")),
        pytest.param("Plate", 50, 2500, ("--frames-every", 2), marks=pytest.mark.slow),
    ],
)
def test_frames_of_a_killed_run_are_those_of_an_unbroken_one(tmp_path, program, kills, steps, options):
    first = ("run", f"{PROGRAM}:{program}", "--frames", "T,v,wave,mean(T, x),u[component=0],mean(T, step)", *options)
    first += ("--n", 40, "--steps", steps, "--quiet")
    first += ("--slowly", 0.01)
    out, one = tmp_path / "run", tmp_path / "one"
    assert run_anyrank(*first, "--out", one, timeout=600).returncode == 0
    assert kill_until_finished(out, (*first, "--checkpoint-every", 16), kills, kills) == kills
    assert (out / "frames.nc").read_bytes() == (one / "frames.nc").read_bytes()
    with h5py.File(out / "frames.nc") as file:
        assert sorted(file["step"][...].tolist()) == sorted({*range(0, steps + 1, options[1]), steps})
    assert not [path.name for path in out.iterdir() if path.name.endswith(".tmp")]
