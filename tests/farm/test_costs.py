"""Long tasks start first, also if their length is known from an earlier farm only."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from farm.runs import WORK, farm, rows_of, table
from ranks import run_anyrank

from anyrank import UsageError
from anyrank.farm.costs import read_times

HEADER = "task,id,status,attempts,seconds,output\n"


@pytest.fixture
def earlier(tmp_path):
    """The folder of a farm: b took long, c was skipped, and a task has printed much."""
    folder = tmp_path / "earlier"
    folder.mkdir()
    rows = f'0,a,done,1,1.5,"{"x" * 200_000}\n,\0"\n1,b,timed out,1,60,\n2,c,skipped,0,0.0,\n3,d,failed,1,0.5,\n'
    (folder / "tasks.csv").write_text(HEADER + rows)
    return folder


@pytest.mark.parametrize("ids", [["d", "new", "b", "c"], []])
def test_costs_of_an_earlier_farm_by_id_or_row(tmp_path, earlier, ids):
    mean = (60 + 0.5) / 2 if ids else (1.5 + 60 + 0.5) / 3
    expected = [0.5, mean, 60, mean] if ids else [1.5, 60, mean, 0.5]
    assert read_times(str(earlier), ids, 4, tmp_path).tolist() == expected
    shutil.rmtree(earlier)  # is not needed at a resume
    assert read_times(str(earlier), ids, 4, tmp_path).tolist() == expected


def test_costs_without_a_known_task_are_equal(tmp_path, earlier):
    assert np.ptp(read_times(str(earlier), ["x", "y"], 2, tmp_path)) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("", "'id' is not in list"),
        ("task,status,seconds\n0,done,1\n", "needs the columns id, status, seconds"),
        (HEADER + "0,a,done,1,long,\n", "could not convert"),
        (HEADER + "0,a\n", "out of range"),
        (HEADER + "0,\xe9,done,1,1,\n", "codec can't decode"),
    ],
)
def test_costs_of_a_folder_without_times_are_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "tasks.csv").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match="Give the run folder of a farm that has ended") as error:
        read_times(str(tmp_path), ["a"], 1, tmp_path)
    assert message in str(error.value) and not (tmp_path / "costs").exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_farm_cost_from_starts_long_tasks_first(tmp_path, earlier, ranks):
    (tmp_path / "t.csv").write_text("x,name,folder\n" + "".join(f"{k},{n},{tmp_path}\n" for k, n in enumerate("abcd")))
    words = ("--table", tmp_path / "t.csv", "--id", "name", "--cost-from", earlier)
    run = tmp_path / "run"
    farm(f"{WORK}:second_time", *words, out=run, ranks=ranks, status=1)
    about = sorted(rows_of(run / "tasks.csv"), key=lambda row: row["started"])
    assert {row["id"] for row in about} == {*"abcd"}
    if ranks == 1:
        assert [row["id"] for row in about] == [*"bcad"]
    shutil.rmtree(earlier)
    assert run_anyrank("resume", run, ranks=2).returncode == 0


def test_farm_cost_from_reads_what_a_farm_has_written(tmp_path):
    words = ("--table", table(tmp_path, 4), "--id", "x")
    farm(f"{WORK}:square", *words, out=tmp_path / "first", ranks=2)
    farm(f"{WORK}:square", *words, "--cost-from", tmp_path / "first", out=tmp_path / "second", ranks=2)
    seconds = [float(row["seconds"]) for row in rows_of(tmp_path / "first" / "tasks.csv")]
    assert np.fromfile(tmp_path / "second" / "inputs" / "costs").tolist() == seconds


def test_farm_cost_from_bad_input_is_one_error(tmp_path):
    words = ("farm", f"{WORK}:square", "--table", table(tmp_path, 3), "--out", tmp_path / "run", "--quiet")
    done = run_anyrank(*words, "--cost-from", tmp_path / "missing", ranks=2)
    assert done.returncode == 2 and "missing: tasks.csv cannot be read" in done.stderr
    assert done.stderr.count("anyrank:") == 1
    done = run_anyrank(*words, "--cost-from", tmp_path / "missing", "--cost", "x")
    assert done.returncode == 2 and "exclude each other" in done.stderr and done.stderr.count("anyrank:") == 1
