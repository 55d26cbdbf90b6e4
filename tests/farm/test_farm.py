"""Farms give the same results on any number of ranks, whatever the tasks do, whether stopped and resumed or not."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from farm.runs import WORK, digest, farm, rows_of, table
from ranks import anyrank_command, processes_of, run_anyrank, start_process

from anyrank import UsageError
from anyrank import farm as api
from anyrank.farm import calls, inputs
from anyrank.farm.calls import SHELL, CommandTimeoutError, run_words
from anyrank.farm.feeder import MOST, Feeder
from anyrank.farm.journal import Records
from anyrank.farm.plan import Plan, Policy
from anyrank.farm.tickets import Tickets
from anyrank.farm.worker import Item, Job
from anyrank.world import World


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    farm(f"{WORK}:draw", "--table", table(folder, 300), out=folder / "run")
    return folder / "run"


def test_farm_results_are_in_order_with_columns_of_values(tmp_path):
    farm(f"{WORK}:describe", "--table", table(tmp_path, 5), "--formats", "csv,jsonl,hdf5,parquet", out=tmp_path / "run")
    rows = rows_of(tmp_path / "run" / "results.csv")
    assert [row["task"] for row in rows] == [*"01234"] and {row["status"] for row in rows} == {"done"}
    assert (rows[3]["n"], rows[3]["half"], rows[3]["who"], rows[1]["big"]) == ("3", "1.5", "3/1", str(2**70))
    lines = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert lines[1]["big"] == 2**70 and lines[4]["half"] == 2.0
    assert pyarrow.parquet.read_table(tmp_path / "run" / "results.parquet")["half"].to_pylist() == [0, 0.5, 1, 1.5, 2]
    assert (tmp_path / "run" / "results.h5").exists()


@pytest.mark.parametrize("ranks", [2, 3])
def test_farm_on_other_ranks_gives_the_same_results(tmp_path, drawn, ranks):
    farm(f"{WORK}:draw", "--table", table(tmp_path, 300), out=tmp_path / "run", ranks=ranks)
    assert (tmp_path / "run" / "results.csv").read_bytes() == (drawn / "results.csv").read_bytes()
    assert digest(tmp_path / "run") == digest(drawn)
    assert {row["rank"] for row in rows_of(tmp_path / "run" / "tasks.csv")} == {str(rank) for rank in range(ranks)}


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_farm_resumes_with_what_is_missing(tmp_path, drawn, how):
    run = tmp_path / "run"
    words = ("farm", f"{WORK}:draw", "--table", table(tmp_path, 300), "--out", run, "--quiet")
    with start_process(*anyrank_command(*words, ranks=2)) as process:
        until = time.monotonic() + 60
        while sum(file.stat().st_size for file in run.glob("records/*")) < 1000:
            assert time.monotonic() < until
            time.sleep(0.02)
        if how == "kill":
            for rank, command in processes_of(process).items():
                if "anyrank.farm.start" not in command:
                    os.kill(rank, signal.SIGKILL)
        else:
            (run / "stop").touch()
        process.wait(60)
    assert not (run / "results.csv").exists() and (how == "kill" or process.returncode == 75)
    assert run_anyrank("resume", run, ranks=3).returncode == 0
    assert (run / "results.csv").read_bytes() == (drawn / "results.csv").read_bytes() and digest(run) == digest(drawn)
    tasks = rows_of(run / "tasks.csv")
    assert {row["execution"] for row in tasks} == {"1", "2"} and len(tasks) == 300


def test_farm_reports_every_bad_task_and_does_the_others(tmp_path):
    limits = ("--task-timeout", 4, "--task-memory", 150)
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


def test_farm_large_results_are_kept(tmp_path):
    farm(f"{WORK}:large", "--table", table(tmp_path, 5), "--formats", "jsonl", out=tmp_path / "run", ranks=2)
    lines = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert [len(line["value"]) for line in lines] == [x * 10_000_000 for x in range(5)]


def test_farm_with_failed_tasks_tries_them_again_at_a_resume(tmp_path):
    run, file = tmp_path / "run", tmp_path / "t.csv"
    file.write_text("x,folder\n" + "".join(f"{x},{tmp_path}\n" for x in range(4)))
    farm(f"{WORK}:second_time", "--table", file, out=run, status=1)
    assert {row["status"] for row in rows_of(run / "results.csv")} == {"failed"}
    assert run_anyrank("resume", run, ranks=2).returncode == 0
    assert {row["status"] for row in rows_of(run / "results.csv")} == {"done"}


@pytest.mark.parametrize("function", ["second_time", "dies_once"])
def test_farm_attempts_try_a_task_again(tmp_path, function):
    file = tmp_path / "t.csv"
    file.write_text("x,folder\n" + "".join(f"{x},{tmp_path}\n" for x in range(3)))
    words = ("--attempts", 2, "--backoff", 0.05)
    farm(f"{WORK}:{function}", "--table", file, *words, out=tmp_path / "run", ranks=2)
    assert [row["value"] for row in rows_of(tmp_path / "run" / "results.csv")] == ["2", "2", "2"]


def test_farm_after_orders_tasks_and_skips_dependents(tmp_path):
    file = tmp_path / "graph.csv"
    file.write_text(
        "id,needs,folder\n"
        + "".join(
            f"{name},{needs},{tmp_path}\n"
            for name, needs in (
                ("d", "b c"),
                ("b", "a"),
                ("c", "a"),
                ("a", ""),
                ("e", "bad d"),
                ("f", "e"),
                ("bad", ""),
            )
        )
    )
    words = ("--id", "id", "--after", "needs")
    done = farm(f"{WORK}:write_order", "--table", file, *words, out=tmp_path / "run", ranks=2, status=1)
    order = (tmp_path / "order").read_text().split()
    assert sorted(order) == ["a", "b", "bad", "c", "d"] and order.index("a") < order.index("b") < order.index("d")
    assert order.index("c") < order.index("d") and "3 of 7 tasks have failed" in done
    rows = {row["id"]: row for row in rows_of(tmp_path / "run" / "results.csv")}
    assert rows["e"]["failure"] == "needs bad, which failed" and rows["f"]["failure"] == "needs e, which was skipped"


def test_farm_commands_get_values_variables_and_limits(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("x\na b\n'; echo no\n$HOME\n")
    run = tmp_path / "run"
    farm("--command", "printf '%s|' {x} $ANYRANK_TASK $SLURM_ARRAY_TASK_ID", "--table", file, out=run, ranks=2)
    values = [row["value"] for row in rows_of(run / "results.csv")]
    assert values == ["a b|0|0|", "'; echo no|1|1|", "$HOME|2|2|"]
    done = farm(
        *("--command", "sh -c 'sleep 600 & sleep 600'", "--table", table(tmp_path, 1), "--task-timeout", 1),
        out=tmp_path / "late",
        status=1,
    )
    assert "timed out" in done
    done = farm(
        "--command", "sh -c 'echo why >&2; exit 3'", "--table", table(tmp_path, 1), out=tmp_path / "x", status=1
    )
    assert "status 3" in done and "why" in done


@pytest.mark.parametrize("left", ["sleep 60 &", "setsid sleep 60 & echo $! >&2;", "yes >&2 &"])
def test_run_words_ends_with_the_command_not_with_what_it_left(left):
    start = time.monotonic()
    output, errors = run_words([*SHELL, f"{left} seq 9999; echo last"], os.environ, None)
    assert time.monotonic() - start < 30 and output.split() == [*map(str, range(1, 10000)), "last"]
    if left.startswith("setsid"):
        os.kill(int(errors), signal.SIGKILL)


def test_run_words_waits_for_a_command_without_output():
    assert run_words([*SHELL, "exec >&- 2>&-; sleep 0.2"], os.environ, None) == ("", "")
    assert run_words([*SHELL, "printf 'a\\r\\n\\377'; sleep 0.1; printf b"], os.environ, 50.0)[0] == "a\n\\xffb"
    for command in ("exec >&- 2>&-; sleep 60", "yes"):
        with pytest.raises(CommandTimeoutError):
            run_words([*SHELL, command], os.environ, 0.1)


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


def test_farm_commands_get_json_and_miss_columns_by_name(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"x": true, "opt": {"k": [1, null]}}\n{"x": ["ü"]}\n')
    command = ("--command", "printf %s' '%s {x} {opt}", "--table", tmp_path / "t.jsonl")
    farm(*command, out=tmp_path / "run", status=1)
    rows = rows_of(tmp_path / "run" / "results.csv")
    assert rows[0]["value"] == 'true {"k": [1, null]}' and rows[1]["failure"].startswith("the row has no 'opt'")
    assert calls.command_of("echo {x}", {"x": ["ü", False]}) == """echo '["ü", false]'"""
    assert "1: the row has no 'opt'" in run_anyrank("farm", *command, "--dry-run").stdout


@pytest.mark.parametrize(
    ("function", "refused"),
    [
        (lambda x, /: 1, True),
        (lambda *x: 1, True),
        (lambda x=1, /: 1, True),
        (lambda x, /, y: 1, True),
        (abs, True),
        (lambda: 1, False),
        (lambda x=1, /, y=2: 1, False),
        (lambda y, *x: 1, False),
        (lambda *x, **names: 1, False),
    ],
)
def test_check_names_refuses_what_columns_cannot_give(function, refused):
    with pytest.raises(UsageError, match="by position only") if refused else nullcontext():
        calls.check_columns(function, ["y"])
    calls.check_columns(function, [])


def test_farm_cost_starts_long_tasks_first(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("x,hours\n1,0.5\n2,3\n3,1\n4,2\n")
    farm(f"{WORK}:square", "--table", file, "--cost", "hours", out=tmp_path / "run")
    about = sorted(rows_of(tmp_path / "run" / "tasks.csv"), key=lambda row: row["started"])
    assert [row["task"] for row in about] == ["1", "3", "2", "0"]


def test_farm_calls_prepare_once_in_each_worker(tmp_path):
    words = ("--prepare", f"{WORK}:prepare", "--table", table(tmp_path, 20))
    farm(f"{WORK}:prepared", *words, out=tmp_path / "run", ranks=2)
    assert {row["value"] for row in rows_of(tmp_path / "run" / "results.csv")} == {"1"}


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


def test_farm_reads_json_lines_and_parquet(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"x": 3}\n\n{"x": 4, "power": 3}\n')
    farm(f"{WORK}:square", "--table", tmp_path / "t.jsonl", out=tmp_path / "a", ranks=2)
    assert [row["value"] for row in rows_of(tmp_path / "a" / "results.csv")] == ["9", "64"]
    pyarrow.parquet.write_table(pyarrow.table({"x": [5, 6], "note": ["a", None]}), tmp_path / "t.parquet")
    farm(f"{WORK}:square", "--table", tmp_path / "t.parquet", out=tmp_path / "b", ranks=3)
    assert [row["value"] for row in rows_of(tmp_path / "b" / "results.csv")] == ["25", "36"]


PROGRAM = """
from anyrank import Program, exact, param

class Decay(Program):
    n: int = param(4, "cells", ge=1)
    steps: int = param(3, "steps", ge=0)
    def declare(self, state):
        state.field("u", (self.n,))
    def setup(self, state):
        state.u[...] = 1.0
    def step(self, state):
        state.u[...] = state.u[...] / 2
    def result(self, state):
        return {"mean": exact.mean(state.u), "ranks": state.world.size}
"""


def test_farm_of_programs_packs_runs_into_one_job(tmp_path):
    (tmp_path / "decay.py").write_text(PROGRAM)
    (tmp_path / "sweep.csv").write_text("name,n,steps\na,8,1\nb,9,2\nc,10,0\n")
    words = (
        "--program",
        tmp_path / "decay.py",
        "--ranks-per-task",
        2,
        "--table",
        tmp_path / "sweep.csv",
        "--id",
        "name",
    )
    farm(*words, out=tmp_path / "run", ranks=2)
    rows = rows_of(tmp_path / "run" / "results.csv")
    assert [(row["id"], row["mean"], row["ranks"]) for row in rows] == [
        *(("a", "0.5", "2"), ("b", "0.25", "2"), ("c", "1.0", "2"))
    ]
    assert digest(tmp_path / "run" / "runs" / "b") == rows[1]["digest"]
    assert [(row["id"], row["rank"]) for row in rows_of(tmp_path / "run" / "tasks.csv")] == [(x, "0") for x in "abc"]


@pytest.mark.parametrize(
    ("table", "words", "message"),
    [
        ("name,m\na,8\n", (), "'m' of the table is not a parameter of decay"),
        ("name,n\na,0\n", (), "row 0 (from 0) of the table"),
        ("name,n\na/b,1\n", (), "cannot be the name of a run folder"),
        ("name,n\na,1\n", ("--ranks-per-task", 3), "no node has so many ranks"),
    ],
)
def test_farm_of_programs_refuses_bad_rows(tmp_path, table, words, message):
    (tmp_path / "decay.py").write_text(PROGRAM)
    (tmp_path / "t.csv").write_text(table)
    given = ("--program", tmp_path / "decay.py", "--table", tmp_path / "t.csv", "--id", "name", *words)
    done = farm(*given, out=tmp_path / "run", ranks=2, status=2)
    assert message in done and done.count("anyrank:") == 1


BAD = {
    "no function": ((f"{WORK}:missing",), "has no function 'missing'"),
    "not callable": ((f"{WORK}:NOT_A_FUNCTION",), "cannot be called"),
    "no name": ((WORK,), "is not a function"),
    "both": ((f"{WORK}:square", "--command", "true"), "give one of"),
    "neither": ((), "give one of"),
    "missing parameter": ((f"{WORK}:second_time",), "'folder', which is not a column"),
    "unknown column": (("--command", "echo {y}"), "{y} is not a column"),
    "no command": (("--command", "no-such-command-here {x}"), "is not found"),
    "open quote": (("--command", "echo '{x}"), "cannot be parsed"),
    "id": ((f"{WORK}:square", "--id", "name"), "--id name is not a column"),
    "same ids": ((f"{WORK}:square", "--id", "same"), "rows 0 and 1"),
    "after without id": ((f"{WORK}:square", "--after", "x"), "needs --id"),
    "no name for a parameter": ((f"{WORK}:by_position",), "takes 'x' by position only"),
    "no names": ((f"{WORK}:all_by_position",), "all_by_position(*numbers) takes 'numbers' by position only"),
    "no id": (
        (f"{WORK}:square", "--id", "gap", "--after", "text"),
        "--id gap: row 1 of the table (from 0) has no 'gap'",
    ),
    "cycle": ((f"{WORK}:square", "--id", "x", "--after", "cycle"), "which is a cycle"),
    "unknown need": ((f"{WORK}:square", "--id", "x", "--after", "same"), "which is no task and"),
    "cost": ((f"{WORK}:square", "--cost", "text"), "'a' in row 0"),
    "attempts": ((f"{WORK}:square", "--attempts", "0"), "--attempts 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_farm_bad_input_is_one_error(tmp_path, name):
    words, message = BAD[name]
    file = tmp_path / "t.csv"
    file.write_text("x,same,cycle,text,gap\n1,9,2,a,a\n2,9,3,b,\n3,7,1,c,c\n")
    ranks = 2 if name in ("same ids", "no id", "no names", "cycle", "unknown column") else 1
    done = farm(*words, "--table", file, out=tmp_path / "run", ranks=ranks, status=2)
    assert message in done and done.count("anyrank:") == 1, done


def test_farm_of_a_table_that_has_changed_is_refused(tmp_path):
    run, file = tmp_path / "run", table(tmp_path, 3)
    farm(f"{WORK}:raise_unpicklable", "--table", file, out=run, status=1)
    table(tmp_path, 4)
    done = run_anyrank("resume", run)
    assert done.returncode == 2 and "are not those that the run began with" in done.stderr


def test_farm_function_that_does_not_import_is_one_error(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    done = farm(f"{tmp_path}/broken.py:f", "--table", table(tmp_path, 3), out=tmp_path / "run", ranks=2, status=2)
    assert "does not import" in done and "nothing_of_this_name" in done


def test_farm_of_an_empty_table_finishes(tmp_path):
    farm(f"{WORK}:square", "--table", table(tmp_path, 0), out=tmp_path / "run", ranks=2)
    assert rows_of(tmp_path / "run" / "results.csv") == []


def test_farm_dry_run_shows_tasks_and_runs_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "t.csv"
    file.write_text("name,x,needs\n" + "".join(f"t{x},{x},\n" for x in range(12)))
    result = run_anyrank("farm", f"{WORK}:square", "--table", file, "--id", "name", "--dry-run", ranks=3)
    lines = result.stdout.splitlines()
    assert result.returncode == 0 and lines[0] == "12 tasks" and lines[1:3] == ["t0: square(x=0)", "t1: square(x=1)"]
    assert lines[-1] == "… 2 more" and [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    words = ("--command", "touch {name} 'a b'; true", "--table", file, "--dry-run")
    assert run_anyrank("farm", *words).stdout.splitlines()[1] == "0: touch t0 'a b'; true"
    words = ("--program", "pi", "--table", file, "--dry-run")
    assert "not a parameter of pi" in run_anyrank("farm", *words).stderr
    file.write_text("points\n1000\n")
    assert run_anyrank("farm", *words).stdout.splitlines()[1] == "0: anyrank run pi --set points=1000"
    cycle = ("--id", "points", "--after", "points", "--table", file, "--dry-run")
    assert "which is a cycle" in run_anyrank("farm", "--command", "true", *cycle).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_ids_with_equal_hashes_are_compared(monkeypatch):
    monkeypatch.setattr(inputs, "hash", len, raising=False)
    inputs.check_ids(lambda: iter(["a", "b", "cc"]), "x")
    with pytest.raises(UsageError, match="'b' is in rows 1 and 3"):
        inputs.check_ids(lambda: iter(["a", "b", "cc", "b", "a"]), "x")


def test_farm_module_lists_names_and_map_takes_formats(tmp_path):
    assert {"map", "Executor", "task"} <= {*dir(api)}
    assert api.map(abs, [-1], out=tmp_path / "run", formats=["csv"]) == [1]
    assert rows_of(tmp_path / "run" / "results.csv")[0]["value"] == "1"
