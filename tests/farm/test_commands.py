"""Commands, and runs of programs, as tasks."""

from __future__ import annotations

import os
import signal
import time

import pytest
from farm.runs import digest, farm, rows_of, table
from ranks import run_anyrank

from anyrank.farm import calls
from anyrank.farm.calls import SHELL, CommandTimeoutError, run_words


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


def test_farm_commands_get_json_and_miss_columns_by_name(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"x": true, "opt": {"k": [1, null]}}\n{"x": ["ü"]}\n')
    command = ("--command", "printf %s' '%s {x} {opt}", "--table", tmp_path / "t.jsonl")
    farm(*command, out=tmp_path / "run", status=1)
    rows = rows_of(tmp_path / "run" / "results.csv")
    assert rows[0]["value"] == 'true {"k": [1, null]}' and rows[1]["failure"].startswith("the row has no 'opt'")
    assert calls.command_of("echo {x}", {"x": ["ü", False]}) == """echo '["ü", false]'"""
    assert "1: the row has no 'opt'" in run_anyrank("farm", *command, "--dry-run").stdout


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
