"""Tasks that need others: names of tasks and groups, their values, and what is refused."""

from __future__ import annotations

import pytest
from farm.runs import WORK, farm, rows_of
from ranks import run_anyrank

from anyrank.errors import UsageError
from anyrank.farm.graph import read_needs

GRAPH = "id,team,needs\nall,,left d\na,left,\nbb,left,a\nccc,right,\nd,,right bb\n"


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_graph_tasks_get_values_also_after_a_resume(tmp_path, ranks):
    file = tmp_path / "graph.csv"
    lines = GRAPH.splitlines()
    file.write_text("\n".join([f"{lines[0]},folder", *(f"{line},{tmp_path}" for line in lines[1:])]) + "\n")
    words = ("--id", "id", "--after", "needs", "--group", "team")
    printed = farm(f"{WORK}:add_needed", "--table", file, *words, out=tmp_path / "run", ranks=ranks, status=1)
    assert "2 of 5 tasks have failed" in printed
    assert run_anyrank("resume", tmp_path / "run", ranks=4 - ranks).returncode == 0
    values = {row["id"]: int(row["value"]) for row in rows_of(tmp_path / "run" / "results.csv")}
    assert values == {"a": 1, "bb": 3, "ccc": 3, "d": 7, "all": 3 + 1 + 3 + 7}


def test_graph_names_are_tasks_and_groups():
    assert read_needs(["a", "b", "c"], ["g", None, "g"], [None, ["g"], "a"], "n") == [(1, 0), (1, 2), (2, 0)]


@pytest.mark.parametrize(
    ("groups", "after", "error"),
    [
        ([], ["", "x"], "b needs 'x', which is no task and no group"),
        (["b", ""], ["", ""], "'b' is also the identifier of a task"),
        (["g", "g"], ["", "g"], "b needs b, which is a cycle"),
        ([], ["b", "a"], "a needs b needs a, which is a cycle"),
    ],
)
def test_graph_wrong_names_are_refused(groups, after, error):
    with pytest.raises(UsageError, match=error):
        read_needs(["a", "b"], groups, after, "n")


def test_graph_tasks_do_not_wait_for_a_rank_that_is_busy(tmp_path):
    file = tmp_path / "t.csv"
    rows = [("id", "kind", "needs"), *((f"s{k}", "short", "") for k in range(40)), ("long", "long", "")]
    rows += [("deadly", "deadly", ""), *((f"c{k}", "short", f"c{k - 1}" if k else "") for k in range(12))]
    file.write_text("".join(",".join(row) + "\n" for row in rows))
    farm(
        f"{WORK}:of_kind",
        "--table",
        file,
        "--id",
        "id",
        "--after",
        "needs",
        "--backoff",
        0.1,
        out=tmp_path / "run",
        ranks=2,
    )
    ends = {row["id"]: float(row["value"]) for row in rows_of(tmp_path / "run" / "results.csv")}
    assert len(ends) == 54 and max(ends, key=ends.__getitem__) == "long"
