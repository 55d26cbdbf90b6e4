"""Bad input of farms is one error before any work."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from farm.runs import WORK, farm, rows_of, table
from ranks import run_anyrank

from anyrank import UsageError
from anyrank.farm import calls, inputs


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


def test_farm_function_that_does_not_import_is_one_error(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    done = farm(f"{tmp_path}/broken.py:f", "--table", table(tmp_path, 3), out=tmp_path / "run", ranks=2, status=2)
    assert "does not import" in done and "nothing_of_this_name" in done


def test_ids_with_equal_hashes_are_compared(monkeypatch):
    monkeypatch.setattr(inputs, "hash", len, raising=False)
    inputs.check_ids(lambda: iter(["a", "b", "cc"]), "x")
    with pytest.raises(UsageError, match="'b' is in rows 1 and 3"):
        inputs.check_ids(lambda: iter(["a", "b", "cc", "b", "a"]), "x")


def test_farm_takes_a_corrected_table_in_the_same_folder(tmp_path):
    file, words = tmp_path / "t.csv", (f"{WORK}:square", "--id", "x", "--table", tmp_path / "t.csv")
    file.write_text("x\n1\n1\n")
    assert "rows 0 and 1" in farm(*words, out=tmp_path / "run", ranks=2, status=2)
    file.write_text("x\n1\n2\n3\n")
    farm(*words, out=tmp_path / "run", ranks=2)
    assert [row["value"] for row in rows_of(tmp_path / "run" / "results.csv")] == ["1", "4", "9"]


def test_farm_function_given_twice_is_refused(tmp_path):
    words = (f"{WORK}:square", "--function", f"{WORK}:wait", "--table", table(tmp_path, 1))
    assert "exclude each other" in farm(*words, out=tmp_path / "run", status=2)


def test_submit_farm_checks_the_table_before(tmp_path):
    """The words are those of `anyrank farm`."""
    file = tmp_path / "t.csv"
    file.write_text("x\n1\n1\n")
    words = ("submit", "farm", f"{WORK}:square", "--table", file, "--out", tmp_path / "run", "--on", "slurm")
    done = run_anyrank(*words, "--dry-run")
    assert done.returncode == 0 and "#SBATCH" in done.stdout, done.stderr
    done = run_anyrank(*words, "--id", "x")
    assert done.returncode == 2 and "rows 0 and 1" in done.stderr and not (tmp_path / "run").exists()
