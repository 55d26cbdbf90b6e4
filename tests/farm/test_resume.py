"""Farms that were killed or stopped, or in which tasks failed, resume with what is missing."""

from __future__ import annotations

import os
import signal
import time

import pytest
from farm.runs import WORK, digest, farm, rows_of, table
from ranks import anyrank_command, processes_of, run_anyrank, start_process


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


def test_farm_with_failed_tasks_tries_them_again_at_a_resume(tmp_path):
    run, file = tmp_path / "run", tmp_path / "t.csv"
    file.write_text("x,folder\n" + "".join(f"{x},{tmp_path}\n" for x in range(4)))
    farm(f"{WORK}:second_time", "--table", file, out=run, status=1)
    assert {row["status"] for row in rows_of(run / "results.csv")} == {"failed"}
    assert run_anyrank("resume", run, ranks=2).returncode == 0
    assert {row["status"] for row in rows_of(run / "results.csv")} == {"done"}


def test_farm_of_a_table_that_has_changed_is_refused(tmp_path):
    run, file = tmp_path / "run", table(tmp_path, 3)
    farm(f"{WORK}:raise_unpicklable", "--table", file, out=run, status=1)
    table(tmp_path, 4)
    done = run_anyrank("resume", run)
    assert done.returncode == 2 and "are not those that the run began with" in done.stderr


def test_farm_edited_function_is_noticed_at_a_resume(tmp_path):
    """Tasks that are done keep their values; the one that failed has that of the new function."""
    run, file = tmp_path / "run", tmp_path / "edited.py"
    file.write_text("def f(x):\n    return 1 // x\n")
    farm(f"{file}:f", "--table", table(tmp_path, 3), out=run, status=1)
    assert "has changed" not in run_anyrank("resume", run).stderr
    file.write_text("def f(x):\n    return 7 if x == 0 else 8\n")
    done = run_anyrank("resume", run, ranks=2)
    assert done.returncode == 0 and done.stderr.count(f"farm: warning: {file} has changed (SHA-256 ") == 1
    assert "2 tasks that are done keep their values" in done.stderr
    assert "2 tasks that are done keep" in (run / "log" / "rank-0000.log").read_text()
    assert [row["value"] for row in rows_of(run / "results.csv")] == ["7", "1", "0"]


def test_farm_edited_function_without_results_is_no_warning(tmp_path):
    run, file = tmp_path / "run", tmp_path / "edited.py"
    file.write_text("def f(x):\n    return None[x]\n")
    farm(f"{file}:f", "--table", table(tmp_path, 3), out=run, status=1)
    file.write_text("def f(x):\n    return x\n")
    done = run_anyrank("resume", run)
    assert done.returncode == 0 and "has changed" not in done.stderr
