"""Callbacks: the calls, their order, and the program's own callbacks."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import run_anyrank

PROGRAM = Path(__file__).with_name("watched.py")


def recorded_calls(folder, rank=0):
    return (folder / f"rank-{rank}").read_text().splitlines()


@pytest.mark.parametrize("ranks", [1, 2])
def test_callback_of_a_run_sees_every_step_and_checkpoint(tmp_path, ranks):
    words = ("run", PROGRAM, "--folder", tmp_path, "--checkpoint-every", "2", "--out", tmp_path / "run", "--quiet")
    done = run_anyrank(*words, ranks=ranks)
    assert done.returncode == 0, done.stderr
    each = 8 // ranks
    steps = [line for k in range(3) for line in (f"before {k} {k * each}", f"after {k + 1} {(k + 1) * each}")]
    for rank in range(ranks):
        result = recorded_calls(tmp_path, rank)
        assert result[0] == "start 0" and result[-2:] == ["end 3", "close"]
        assert [line for line in result if line.split()[0] in ("before", "after")] == steps
        assert [line for line in result if line.startswith("checkpoint")] == ["checkpoint 2 good", "checkpoint 3 good"]


def test_callback_of_a_resumed_run_starts_at_its_step(tmp_path):
    words = ("run", PROGRAM, "--folder", tmp_path, "--stop-at", "2", "--out", tmp_path / "run", "--quiet")
    assert run_anyrank(*words).returncode == 75
    before = len(recorded_calls(tmp_path))
    assert "saving 2" in recorded_calls(tmp_path) and "done 2" not in recorded_calls(tmp_path)
    assert recorded_calls(tmp_path)[-2:] == ["end 2", "close"]
    assert run_anyrank("resume", tmp_path / "run", "--quiet").returncode == 0
    assert recorded_calls(tmp_path)[before:] == [
        "start 2",
        "before 2 16",
        "after 3 24",
        "done 3",
        "saving 3",
        "checkpoint 3 good",
        "end 3",
        "close",
    ]


def test_callback_sees_a_checkpoint_that_fails(tmp_path):
    words = ("run", PROGRAM, "--folder", tmp_path, "--checkpoint-every", "1", "--out", tmp_path / "run", "--quiet")
    done = run_anyrank(*words, "--chaos", "disk-full step=1 for=1")
    assert done.returncode == 0, done.stderr
    result = [line for line in recorded_calls(tmp_path) if line.startswith("checkpoint")]
    assert result == ["checkpoint 1 failed", "checkpoint 2 good", "checkpoint 3 good"]


def test_callback_is_closed_after_an_error(tmp_path):
    words = ("run", PROGRAM, "--folder", tmp_path, "--fails-at", "1", "--out", tmp_path / "run", "--quiet")
    done = run_anyrank(*words)
    assert done.returncode == 1 and "as asked" in done.stderr
    assert recorded_calls(tmp_path) == ["start 0", "before 0 0", "after 1 8", "before 1 8", "close"]
