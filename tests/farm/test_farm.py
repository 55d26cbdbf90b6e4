"""Farms give the same results on any number of ranks, whatever the tasks do, whether stopped and resumed or not."""

from __future__ import annotations

import json

import pyarrow.parquet
import pytest
from farm.runs import WORK, digest, farm, rows_of, table
from ranks import run_anyrank

from anyrank import farm as api


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


def test_farm_large_results_are_kept(tmp_path):
    farm(f"{WORK}:large", "--table", table(tmp_path, 5), "--formats", "jsonl", out=tmp_path / "run", ranks=2)
    lines = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert [len(line["value"]) for line in lines] == [x * 10_000_000 for x in range(5)]


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


def test_farm_reads_json_lines_and_parquet(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"x": 3}\n\n{"x": 4, "power": 3}\n')
    farm(f"{WORK}:square", "--table", tmp_path / "t.jsonl", out=tmp_path / "a", ranks=2)
    assert [row["value"] for row in rows_of(tmp_path / "a" / "results.csv")] == ["9", "64"]
    pyarrow.parquet.write_table(pyarrow.table({"x": [5, 6], "note": ["a", None]}), tmp_path / "t.parquet")
    farm(f"{WORK}:square", "--table", tmp_path / "t.parquet", out=tmp_path / "b", ranks=3)
    assert [row["value"] for row in rows_of(tmp_path / "b" / "results.csv")] == ["25", "36"]


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


def test_farm_module_lists_names_and_map_takes_formats(tmp_path):
    assert {"map", "Executor", "task"} <= {*dir(api)}
    assert api.map(abs, [-1], out=tmp_path / "run", formats=["csv"]) == [1]
    assert rows_of(tmp_path / "run" / "results.csv")[0]["value"] == "1"
