"""Processes that a program starts: they inherit nothing of the rank's, and end with it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ranks import run_anyrank

from anyrank.runtime.children import descendants, never_inherit

POOLED = Path(__file__).with_name("pooled.py")


def remaining(folder: Path) -> list[int]:
    """The processes left behind that still exist."""
    numbers = [int(text) for file in folder.glob("left-*") for text in file.read_text().split()]
    assert numbers, "none was started"
    return [number for number in numbers if Path(f"/proc/{number}").exists() and state_of(number) != "Z"]


def state_of(process: int) -> str:
    """The state letter of a process; Z is a zombie."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def wait_until_gone(folder: Path) -> None:
    give_up = time.monotonic() + 10
    while result := remaining(folder):
        assert time.monotonic() < give_up, f"left behind: {result}"
        time.sleep(0.05)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("how", ["pool", "process", "subprocess", "signals", "exit", "fail", "return"])
def test_children_of_each_step_end_and_the_run_continues(how, ranks, tmp_path):
    run = ("run", f"{POOLED}:Pooled", "--how", how, "--steps", 12, "--out", tmp_path / "run", "--hang-timeout", "20s")
    done = run_anyrank(*run, ranks=ranks, timeout=60)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["finished"] and summary["steps"] == 12
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == {"total": 120}
    events = (tmp_path / "run" / "events.jsonl").read_text()
    assert '"failed"' not in events, "a child is not the rank"


@pytest.mark.parametrize("ranks", [1, 2])
def test_children_of_a_failed_run_are_ended(ranks, tmp_path):
    run = ("run", f"{POOLED}:Pooled", "--steps", 2, "--end", "error", "--out", tmp_path / "run")
    done = run_anyrank(*run, ranks=ranks, timeout=60)
    assert done.returncode == 1 and "it ends early" in done.stderr
    wait_until_gone(tmp_path / "run")


@pytest.mark.parametrize("ranks", [1, 2])
def test_children_left_behind_do_not_delay_a_finished_run(ranks, tmp_path):
    run = ("run", f"{POOLED}:Pooled", "--steps", 2, "--end", "leave", "--out", tmp_path / "run")
    assert run_anyrank(*run, ranks=ranks, timeout=60).returncode == 0
    wait_until_gone(tmp_path / "run")


def test_children_of_multiprocessing_have_their_own_group():
    """A program that `subprocess` starts may begin a session, which a group leader cannot do."""
    forget = never_inherit(lambda: None)
    try:
        with multiprocessing.get_context("fork").Pool(1) as pool:
            child, group = pool.apply(os.getpid), pool.apply(os.getpgrp)
        assert child == group != os.getpid()
        done = subprocess.run(["true"], preexec_fn=lambda: None, start_new_session=True, check=False)
        assert done.returncode == 0
    finally:
        forget()


def test_children_of_a_hung_run_are_ended(tmp_path):
    run = ("run", f"{POOLED}:Pooled", "--steps", 2, "--end", "hang", "--out", tmp_path / "run", "--hang-timeout", "1s")
    assert run_anyrank(*run, timeout=60).returncode == 1
    wait_until_gone(tmp_path / "run")


def test_children_forked_by_a_killed_rank_are_ended(tmp_path):
    run = ("run", f"{POOLED}:Pooled", "--steps", 2, "--end", "kill", "--out", tmp_path / "run")
    assert run_anyrank(*run, timeout=60).returncode != 0
    forked, _ = map(int, (tmp_path / "run" / "left-0").read_text().split())
    give_up = time.monotonic() + 10
    while forked in remaining(tmp_path / "run"):
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_never_inherit_runs_once_in_a_child():
    calls: list[int] = []
    forget = never_inherit(lambda: calls.append(os.getpid()))
    try:
        assert status_of(lambda: calls == [os.getpid()]) == 0
        assert calls == []
    finally:
        forget()
    assert status_of(lambda: not calls) == 0


def test_child_signal_right_after_the_fork_ends_it():
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    forget = never_inherit(lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    try:
        for _ in range(200):
            child = os.fork()
            if child == 0:
                time.sleep(20)
                os._exit(0)
            os.kill(child, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    finally:
        forget()
        signal.signal(signal.SIGTERM, before)


def test_descendants_are_children_and_their_children():
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        if grandchild:
            os.write(writing, str(grandchild).encode())
        time.sleep(60)
        os._exit(0)
    grandchild = int(os.read(reading, 20))
    try:
        result = descendants(os.getpid())
        assert child in result and grandchild in result
        assert descendants(child) == [grandchild]
    finally:
        for process in (grandchild, child):
            os.kill(process, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def status_of(condition) -> int:
    """The exit code of a forked child: 0 if the condition holds in it."""
    child = os.fork()
    if child == 0:
        os._exit(0 if condition() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
