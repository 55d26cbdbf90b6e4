"""A farm that is killed again and again at random instants gives each result once, and loses none."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from ranks import anyrank_command, processes_of, run_anyrank, start_process

from anyrank.farm.tasks import DONE, decode

WORK = Path(__file__).with_name("work.py")
#: How often the farm is killed; ANYRANK_KILLS=200 takes a quarter of an hour.
KILLS = int(os.environ.get("ANYRANK_KILLS", "6"))
#: The most seconds of a run that nothing kills: a task takes 0.03 s.
LONGEST = 120 + 10 * KILLS


def kill_later(words: tuple[object, ...], ranks: int, seconds: float) -> bool:
    """Start a command, and kill it with all its ranks after some seconds; returns whether it was still running."""
    with start_process(*anyrank_command(*words, ranks=ranks)) as process:
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < seconds:
            time.sleep(0.01)
        running = process.poll() is None
        victims = [*processes_of(process).items()]
        random.shuffle(victims)
        for number, command in victims:  # one after the other: some ranks live longer than others
            if "anyrank.farm.start" not in command:
                try:
                    os.kill(number, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        process.wait(30)
    return running


@pytest.mark.slow
def test_farm_killed_at_random_keeps_every_result_once(tmp_path):
    tasks = 50 * KILLS
    (tmp_path / "t.csv").write_text("x\n" + "".join(f"{row}\n" for row in range(tasks)))
    words = ("farm", f"{WORK}:draw", "--table", tmp_path / "t.csv", "--quiet")
    assert run_anyrank(*words, "--out", tmp_path / "whole", ranks=2, timeout=LONGEST).returncode == 0
    chance = random.Random(17)
    killed, run = 0, tmp_path / "run"
    while killed < KILLS and not (run / "results.csv").exists():
        ranks = chance.choice((1, 2, 3))
        killed += kill_later((*words, "--out", run), ranks, chance.uniform(0.5, 4.0))
    assert killed >= min(KILLS, 3)
    assert run_anyrank(*words, "--out", run, ranks=3, timeout=LONGEST).returncode == 0
    assert (run / "results.csv").read_bytes() == (tmp_path / "whole" / "results.csv").read_bytes()
    records = [r for file in run.glob("records/*") for r, _ in decode(file.read_bytes()) if r.status == DONE]
    assert sorted(record.task for record in records) == [*range(tasks)]
