"""Tasks that raise, exit, crash, hang or fill the memory; attempts and limits."""

from __future__ import annotations

import time

import numpy as np
import pytest
from farm.runs import WORK, farm, rows_of, table

from anyrank.farm.feeder import MOST, Feeder
from anyrank.farm.journal import Records
from anyrank.farm.plan import Plan, Policy
from anyrank.farm.programs.farm import Farm
from anyrank.farm.tickets import Tickets
from anyrank.farm.worker import Item, Job
from anyrank.world import World


def test_farm_reports_every_bad_task_and_does_the_others(tmp_path):
    limits = ("--task-timeout", "4s", "--task-memory", 150)
    done = farm(f"{WORK}:misbehave", "--table", table(tmp_path, 60), *limits, out=tmp_path / "run", ranks=2, status=1)
    assert "7 of 60 tasks have failed" in done and "anyrank resume" in done
    rows = {int(row["task"]): row for row in rows_of(tmp_path / "run" / "results.csv")}
    expected = {
        1: ("failed", "ValueError: one"),
        2: ("failed", "cannot be stored"),
        3: ("died", "exit status 2"),
        4: ("timed out", "--task-timeout 4"),
        6: ("died", "SIGKILL"),
        7: ("out of memory", "--task-memory"),
        8: ("failed", "SystemExit: eight"),
    }
    assert {task: row["status"] for task, row in rows.items() if row["status"] != "done"} == {
        task: status for task, (status, _) in expected.items()
    }
    assert all(text in rows[task]["failure"] for task, (_, text) in expected.items())
    about = {int(row["task"]): row for row in rows_of(tmp_path / "run" / "tasks.csv")}
    assert about[3]["attempts"] == "2" and about[1]["output"] == "hello 1\n" and "work.py" in about[1]["traceback"]


def test_farm_blames_only_the_task_that_killed_its_worker(tmp_path):
    farm(f"{WORK}:short_or_deadly", "--table", table(tmp_path, 1000), out=tmp_path / "run", ranks=2, status=1)
    rows = rows_of(tmp_path / "run" / "results.csv")
    assert {int(row["task"]) % 100 for row in rows if row["status"] == "died"} == {99}
    assert sum(row["status"] == "done" for row in rows) == 990


@pytest.mark.parametrize("function", ["second_time", "dies_once"])
def test_farm_attempts_try_a_task_again(tmp_path, function):
    file = tmp_path / "t.csv"
    file.write_text("x,folder\n" + "".join(f"{x},{tmp_path}\n" for x in range(3)))
    words = ("--attempts", 2, "--backoff", 0.05)
    farm(f"{WORK}:{function}", "--table", file, *words, out=tmp_path / "run", ranks=2)
    assert [row["value"] for row in rows_of(tmp_path / "run" / "results.csv")] == ["2", "2", "2"]


@pytest.mark.parametrize("function", ["wait", "wait_async"])
def test_farm_concurrency_overlaps_tasks_that_wait(tmp_path, function):
    words = ("--concurrency", 20, "--task-timeout", 2)
    status = 1 if function == "wait_async" else 0
    farm(f"{WORK}:{function}", "--table", table(tmp_path, 40), *words, out=tmp_path / "run", ranks=2, status=status)
    about = rows_of(tmp_path / "run" / "tasks.csv")
    starts = sorted(row["started"] for row in about)
    assert sum(start[:19] == starts[0][:19] for start in starts) > 1  # several in one second on each rank
    late = {"3"} if status else set()
    assert {row["task"] for row in about if row["status"] == "timed out"} == late


@pytest.mark.parametrize("words", [(), ("--task-timeout", 50)])
def test_farm_async_function_may_raise_timeout_error(tmp_path, words):
    words = (f"{WORK}:raise_timeout", "--table", table(tmp_path, 2), "--concurrency", 2, *words)
    farm(*words, out=tmp_path / "run", status=1)
    rows = rows_of(tmp_path / "run" / "results.csv")
    assert {(row["status"], row["failure"]) for row in rows} == {("failed", "TimeoutError: no answer")}


def test_farm_death_of_a_worker_blames_no_innocent_task(tmp_path):
    words = ("--table", table(tmp_path, 10), "--concurrency", 10, "--task-memory", 250)
    farm(f"{WORK}:exit_among_others", *words, out=tmp_path / "run", status=1)
    rows = rows_of(tmp_path / "run" / "results.csv")
    assert [row["task"] for row in rows if row["status"] == "done"] == [*"01246789"]
    assert rows[3]["status"] == "died" and rows[5]["status"] == "out of memory"
    about = rows_of(tmp_path / "run" / "tasks.csv")
    assert [row["attempts"] for row in about] == ["2" if row["task"] == "3" else "1" for row in about]


@pytest.mark.parametrize("words", [(), ("--task-timeout", 50)])
def test_farm_async_function_may_raise_system_exit(tmp_path, words):
    words = (f"{WORK}:raise_exits", "--table", table(tmp_path, 8), "--concurrency", 4, *words)
    farm(*words, out=tmp_path / "run", status=1)
    rows = rows_of(tmp_path / "run" / "results.csv")
    assert [row["status"] for row in rows] == ["done", "failed", "failed", "died", *["done"] * 4]
    assert rows[1]["failure"].startswith("SystemExit") and rows[2]["failure"].startswith("KeyboardInterrupt")


@pytest.mark.parametrize("concurrency", [1, 3])
def test_farm_errors_whose_text_raises_are_failures(tmp_path, concurrency):
    words = ("--table", table(tmp_path, 4), "--concurrency", concurrency)
    farm(f"{WORK}:return_or_raise_text", *words, out=tmp_path / "run", status=1)
    rows = rows_of(tmp_path / "run" / "results.csv")
    assert [row["status"] for row in rows] == ["done", "failed", "failed", "done"]
    assert all("its text raises" in row["failure"] for row in rows[1:3])


def test_farm_max_failures_ends_the_farm(tmp_path):
    words = ("--table", table(tmp_path, 500), "--max-failures", 3)
    done = farm(f"{WORK}:raise_unpicklable", *words, out=tmp_path / "run", ranks=2, status=1)
    assert "mpool" not in done  # what MPI says of a window that was not freed
    assert "more than --max-failures 3" in done and not (tmp_path / "run" / "results.csv").exists()


def test_farm_max_failures_counts_no_skipped_tasks(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("id,after\nbad,\na,bad\nb,bad\nc,bad\nslow,\nlast,slow\n")
    words = (f"{WORK}:fail_at_begin", "--table", file, "--id", "id", "--after", "after", "--max-failures")
    farm(*words, 1, out=tmp_path / "run", ranks=2, status=1)
    assert rows_of(tmp_path / "run" / "results.csv")[5]["status"] == "done"
    done = farm(*words, 0, out=tmp_path / "ended", ranks=2, status=1)
    assert "1 tasks have failed" in done and "task bad: ValueError: no input" in done
    assert not (tmp_path / "ended" / "results.csv").exists()


def test_farm_of_failed_tasks_names_no_others_and_the_limit(tmp_path):
    words = ("--table", table(tmp_path, 1), "--task-memory", 100)
    done = farm(f"{WORK}:take_memory", *words, out=tmp_path / "run", status=1)
    assert "1 of 1 tasks have failed; all results are in" in done and "--task-memory is 100 MB" in done


def test_feeder_takes_expired_tasks_in_large_chunks(tmp_path):
    policy, world = Policy(expires=1.0), World()
    tickets, asked = Tickets(world, 1), []
    plan = Plan(np.ones(2 * MOST, bool), None, [])

    def items(tasks):
        asked.append(len(tasks))
        return [Item(task, attempt, str(task), {}) for task, attempt in tasks]

    records = Records(tmp_path, world)
    feeder = Feeder(plan, items, records, tickets, Job(log="", path=[]), policy, True)
    feeder.work(time.monotonic() + 60)
    feeder.close()
    tickets.close()
    world.close()
    assert (feeder.ended, feeder.failed, asked) == (2 * MOST, 0, [MOST, MOST])


def test_farm_expired_tasks_do_not_start(tmp_path):
    words = ("--table", table(tmp_path, 30), "--expires", 1)
    farm(f"{WORK}:wait", *words, out=tmp_path / "run", status=1)
    statuses = [row["status"] for row in rows_of(tmp_path / "run" / "results.csv")]
    assert set(statuses) <= {"done", "expired"} and statuses[-1] == "expired"


def test_farm_times_are_durations(tmp_path):
    options = {"task_timeout": "10min", "expires": "1:30:00", "backoff": "0.5s", "follow": 0}
    program = Farm(command="true", table="t.csv", **options)
    assert [getattr(program, name) for name in options] == [600.0, 5400.0, 0.5, 0.0]
    assert Farm(command="true", table="t.csv", task_timeout=60).task_timeout == 60.0


@pytest.mark.parametrize("text", ["soon", "10 parsecs", "1e400", "nan", "-3s", "-1"])
def test_farm_times_that_are_no_durations_are_refused(tmp_path, text):
    done = farm("--command", "true", "--table", table(tmp_path, 1), f"--task-timeout={text}", out="x", status=2)
    assert f"--task-timeout {text}" in done and done.count("anyrank:") == 1, done
