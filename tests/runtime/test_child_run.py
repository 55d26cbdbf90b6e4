"""Runs in processes of their own: the description of their ends."""

from __future__ import annotations

from pathlib import Path

from anyrank.runtime.child_run import ChildRun, read_json, run_child

CRASH = Path(__file__).with_name("crash.py")


def child(tmp_path, *words: object, ranks: int = 1, timeout: float = 60) -> ChildRun:
    run = ["run", CRASH, "--out", tmp_path / "run", "--steps", 5, *words, "-n", ranks]
    return run_child([*map(str, run)], ranks, tmp_path / "run", tmp_path / "log", timeout)


def test_child_run_that_finishes_has_its_summary(tmp_path):
    ended = child(tmp_path, "--how", "no", ranks=2)
    assert ended.finished and not ended.stopped and ended.summary["ranks"] == 2 and ended.summary["steps"] == 5


def test_child_run_stopped_is_not_finished(tmp_path):
    ended = child(tmp_path, "--how", "no", "--stop-at", 2)
    assert ended.stopped and not ended.finished and ended.summary["steps"] == 2


def test_child_run_beyond_its_timeout_has_no_status(tmp_path):
    ended = child(tmp_path, "--how", "no", "--pause", 5, timeout=3)
    assert ended.status is None and not ended.finished and not ended.stopped


def test_child_run_messages_omit_mpiexecs_and_the_middle(tmp_path):
    log = tmp_path / "log"
    log.write_text("anyrank: one\n         two\n====\n\n" + "\n".join(map(str, range(10))) + "\nAbort(1) on node 0\n")
    words = ChildRun(1, {}, log).messages(6)
    assert words == ["anyrank: one", "two", "0", f"… 6 more lines are in {log}", "7", "8", "9"]
    assert ChildRun(1, {}, log).messages(50)[2:] == [*map(str, range(10))]


def test_child_run_with_status_0_needs_a_finished_summary(tmp_path):
    assert not ChildRun(0, {}, tmp_path).finished
    assert not ChildRun(0, {"finished": False}, tmp_path).finished


def test_read_json_damaged_or_missing_file_is_empty(tmp_path):
    (tmp_path / "bad").write_text('{"a": ')
    assert read_json(tmp_path / "bad") == read_json(tmp_path / "none") == {}
