"""kill -9 of a rank or of mpiexec, at any instant: the run resumes and ends on the digest of an unbroken one."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from ranks import anyrank_command, processes_of, run_anyrank, started

#: How many kills; CI takes a few, and `ANYRANK_KILLS=100 pytest tests/run/test_kills.py` the hundred.
KILLS = int(os.environ.get("ANYRANK_KILLS", "12"))
EVERY = 60
PROGRAM = Path(__file__).with_name("traced.py")
RUN = ("run", PROGRAM, "--rows", 70, "--columns", 45, "--steps", 4000, "--no-picture", "--checkpoint-every", EVERY)


@pytest.fixture(scope="module")
def digest(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("unbroken")
    done = run_anyrank(*RUN, "--out", folder / "run", env={"ANYRANK_TRACE": str(folder / "trace")})
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "run" / "summary.json").read_text())["digest"]


def victims(process, whom: str) -> list[int]:
    """mpiexec, or the ranks: those that run anyrank, without the one that started mpiexec."""
    found = {pid: words for pid, words in processes_of(process).items() if words and pid != process.pid}
    launchers = [pid for pid, words in found.items() if Path(words[0]).name == "mpiexec"]
    ranks = [pid for pid, words in found.items() if "anyrank" in words and "python" in Path(words[0]).name]
    return launchers if whom == "mpiexec" else ranks


def kill_once(out: Path, trace: Path, chance: random.Random) -> bool:
    """Run or resume on some ranks, kill something at a random time; False where it ended before.

    One in five dies while it starts, the others some time after their first step.
    """
    whom, early = chance.choice(["rank", "mpiexec"]), chance.random() < 0.2
    before = trace.read_text()
    command = anyrank_command(*RUN, "--out", out, ranks=chance.choice([2, 3, 4]))
    with started(*command, env={"ANYRANK_TRACE": str(trace)}) as process:
        while not early and trace.read_text() in (before, "") and process.poll() is None:
            time.sleep(0.001)
        deadline = time.monotonic() + chance.uniform(0.2, 0.9) * (1 if early else 0.6)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.001)
        chosen = victims(process, whom)
        if not chosen:
            process.wait(60)
            return False
        os.kill(chance.choice(chosen), signal.SIGKILL)
        assert process.wait(60) in (0, 1), "0 only where it had just finished"
    return True


def newest_step(out: Path) -> int:
    return max((int(path.stem[5:]) for path in (out / "checkpoints").glob("step-*.h5")), default=0)


def test_kills_at_random_instants_lose_no_more_than_was_not_yet_on_disk_and_no_bit(tmp_path, digest):
    chance, killed, lost, writing = random.Random(2026), 0, [], 0
    for number in range(10 * KILLS):
        out, trace = tmp_path / f"run{number}", tmp_path / f"trace{number}"
        trace.write_text("0")
        while killed < KILLS and not (out / "summary.json").exists():
            if kill_once(out, trace, chance):
                killed += 1
                lost.append(int(trace.read_text() or 0) - newest_step(out))
                writing += any((out / "checkpoints").glob(".step-*.tmp"))
        sealed = newest_step(out)
        done = run_anyrank(*RUN, "--out", out, "--json", env={"ANYRANK_TRACE": str(trace)}, ranks=chance.choice([1, 3]))
        assert done.returncode == 0, done.stderr
        final = json.loads(done.stdout.splitlines()[-1])
        assert final["digest"] == digest
        if "resumed at" in done.stderr:
            assert final["resumed_from"] == sealed, "it goes on from the newest checkpoint that was sealed"
        assert not [path.name for path in (out / "checkpoints").iterdir() if path.name.endswith(".tmp")]
        if killed >= KILLS:
            break
    within = sum(steps <= EVERY for steps in lost)
    print(f"{killed} kills, {writing} while a checkpoint was written")
    print(f"steps lost: at most {max(lost)}, within one interval of {EVERY} in {within} of {killed}")
    assert killed == KILLS and max(lost) <= 2 * EVERY, "an interval, and the one whose checkpoint was being written"
