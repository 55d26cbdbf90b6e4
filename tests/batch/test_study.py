"""Study files: their meaning, and what is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyrank.batch.study import read_study
from anyrank.errors import UsageError
from anyrank.runtime.options import Options

SWEEP = """
program = "pi"
at_a_time = 10
[parameters]
batch = 1e5
[grid]
seed = [1, 2, 3]
points = [1e6, 10_000_000]
[options]
checkpoint_every = 200
keep = 3
[job]
on = "slurm"
"""
DIAMOND = """
out = "runs/diamond"
[job]
nodes = 1
[runs.report]
needs = ["B", "C", "B"]
command = ["python", "my report.py", "$HOME"]
[runs.B]
needs = ["A"]
program = "pi"
parameters = { points = 1000 }
options = { body = "numba", picture = false }
job = { nodes = 2 }
[runs.C]
needs = ["A"]
program = "pi"
[runs.A]
program = "programs/heat.py:Heat"
"""
HEAT = "from anyrank import Program, param\nclass Heat(Program):\n    n: int = param(8, 'side', ge=3)\n"
HEAT += "class Other(Program):\n    live: bool = param(True, 'a flag')\n    word: str = param('x', 'a word')\n"


def study(folder: Path, text: str, **files: str):
    for name, content in {"study.toml": text, "programs/heat.py": HEAT, **files}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    return read_study(folder / "study.toml")


def test_study_grid_has_all_combinations_last_name_fastest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parsed = study(tmp_path, SWEEP)
    assert (parsed.kind, parsed.at_a_time, parsed.job) == ("sweep", 10, {"on": "slurm"})
    assert parsed.out == tmp_path / "runs" / "study"
    whole = [(1, 10**6), (1, 10**7), (2, 10**6), (2, 10**7), (3, 10**6), (3, 10**7)]
    assert [member.parameters for member in parsed.members] == [
        {"points": points, "seed": seed, "batch": 100_000} for seed, points in whole
    ]
    assert all(type(value) is int for member in parsed.members for value in member.parameters.values())
    assert [member.folder for member in parsed.members] == [parsed.out / f"000{i}" for i in range(6)]
    assert {member.source for member in parsed.members} == {"pi"}
    assert Options(**parsed.members[5].options) == Options(checkpoint_every="200", keep=3)
    assert parsed.ordered() == parsed.members


TABLES = {
    "entries": ("[[table]]\npoints = 1e6\nseed = 7\n[[table]]\nseed = 8\npoints = 20\n", ""),
    "a file": ('table = "t.csv"\n', "points, seed\n1e6,7\n\n20,8\n"),
    "a file with a mark": ('table = "t.csv"\n', "\ufeffpoints,seed\r\n1e6,7\r\n20,8\r\n"),
}


@pytest.mark.parametrize("case", TABLES)
def test_study_table_has_one_point_per_row(tmp_path, case):
    text, csv = TABLES[case]
    members = study(tmp_path, 'program = "pi"\n' + text, **{"t.csv": csv}).members
    assert [(member.parameters["points"], member.parameters["seed"]) for member in members] == [(10**6, 7), (20, 8)]


def test_study_csv_words_and_truth_values_are_read_as_flags(tmp_path):
    text = 'program = "programs/heat.py:Other"\ntable = "t.csv"\n'
    members = study(tmp_path, text, **{"t.csv": 'live,word\nfalse,"a, b"\ntrue,3\n'}).members
    assert [member.parameters for member in members] == [{"live": False, "word": "a, b"}, {"live": True, "word": "3"}]
    assert {member.source for member in members} == {f"{tmp_path.resolve()}/programs/heat.py:Other"}


def test_study_of_ten_thousand_points_has_longer_names(tmp_path):
    members = study(tmp_path, f'program = "pi"\n[grid]\nseed = {list(range(10_001))}\n').members
    assert (members[0].name, members[10_000].name) == ("00000", "10000")


def test_study_points_are_selected_by_number(tmp_path):
    parsed = study(tmp_path, SWEEP)
    assert [member.name for member in parsed.select("5,0-2,1")] == ["0000", "0001", "0002", "0005"]
    for points, why in {
        "6": "the points of",
        "0-99": "are 0-5",
        "3-2": "are 0-5",
        "x": "such as 3,7-9",
        "": "such as",
    }.items():
        with pytest.raises(UsageError, match=why):
            parsed.select(points)
    with pytest.raises(UsageError, match="of a sweep"):
        study(tmp_path, DIAMOND).select("0")


def test_study_dag_is_sorted_by_needs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parsed = study(tmp_path, DIAMOND)
    assert (parsed.kind, parsed.out, parsed.job) == ("dag", tmp_path / "runs/diamond", {"nodes": 1})
    report, b, c, a = parsed.members
    assert [member.name for member in parsed.members] == ["report", "B", "C", "A"]
    assert [member.name for member in parsed.ordered()] == ["A", "B", "C", "report"]
    assert report.needs == ("B", "C") and report.command == ("python", "my report.py", "$HOME")
    assert report.source is None and not report.parameters and not report.options
    assert b.parameters["points"] == 1000 and b.parameters["seed"] == 1 and b.folder == parsed.out / "B"
    assert b.options == {"body": "numba", "picture": False} and b.job == {"nodes": 2} and c.job == {}
    assert a.source == f"{tmp_path.resolve()}/programs/heat.py:Heat" and a.parameters == {"n": 8}


def sweep(more: str = "", program: str = '"pi"') -> str:
    return f"program = {program}\n{more}\n"


RUN = '[runs.A]\nprogram = "pi"\n'
ROW = "[[table]]\nseed = 1\n"
GRID = "[grid]\nseed = [1]\n"
BAD_STUDIES = {
    "no TOML": ("program = ", "cannot be read", "Give a TOML file"),
    "neither": (sweep(), "it has none of grid, table and runs", "Use exactly one of them"),
    "a sweep and a DAG": (sweep(GRID + RUN), "it has grid and runs of"),
    "a grid and a table": (sweep('table = "t.csv"\n' + GRID), "it has grid and table of"),
    "an unknown key": (sweep('outt = "x"\n' + GRID), "outt = 'x'", "Did you mean out?"),
    "a DAG with points together": ("at_a_time = 3\n" + RUN, "at_a_time = 3 is not known here"),
    "a parameter that the program lacks": (sweep(GRID + "[parameters]\npints = 1"), "pints = 1", "--points"),
    "a grid's that it lacks": (sweep("[grid]\nrows = [1]"), "point 0000 (rows = 1)", "is not a parameter of pi"),
    "out of range": (sweep("[grid]\nseed = [1]\npoints = [1, 0]"), "point 0001 (seed = 1, points = 0)", "at least 1"),
    "not whole": (sweep("[grid]\nseed = [1.5]"), "point 0000 (seed = 1.5)", "must be a whole number"),
    "no list": (sweep("[grid]\nseed = 3"), "grid.seed = 3 must be a list", "[a, b]"),
    "no names": (sweep("[grid]"), "it has no points"),
    "no values": (sweep("[grid]\nseed = [1]\npoints = []"), "it has no points"),
    "no rows": (sweep('table = "t.csv"'), "it has no points"),
    "no table": (sweep('table = "none.csv"'), "none.csv cannot be read"),
    "a ragged table": (sweep(ROW + "points = 2\n" + ROW), "point 1 must have one value for each of seed, points"),
    "a value too few": (sweep('table = "few.csv"'), "point 1 must have one value for each of seed, points"),
    "a value too many": (sweep('table = "many.csv"'), "point 0 must have one value for each of seed, points"),
    "a name twice": (sweep('table = "twice.csv"'), "has a duplicate name in seed, seed"),
    "no text": (sweep('table = "programs"'), "programs cannot be read"),
    "the same point twice": (sweep("[grid]\npoints = [10, 1e1]"), "point 0001 (points = 10.0)", "same as point 0000"),
    "an unknown option": (sweep(GRID + "[options]\nkep = 3"), "options: kep = 3", "Did you mean keep?"),
    "an option that the job gives": (sweep(GRID + "[options]\nwalltime = '1h'"), "options: walltime = '1h'"),
    "an option out of range": (sweep(GRID + "[options]\nkeep = 0"), "options: keep = 0 must be at least 1"),
    "an option of another type": (sweep(GRID + "[options]\nkeep = 'x'"), "options: keep = 'x' must be a whole number"),
    "an unknown program": (sweep(GRID, "'pie'"), "'pie' is not a program", "Did you mean pi?"),
    "no program file": (sweep(GRID, "'none.py'"), "none.py' does not exist"),
    "needs of nobody": (RUN + "needs = ['B']", "runs.A: it needs 'B'", "Use one of: A."),
    "a cycle": (
        RUN + "needs = ['C']\n[runs.B]\nprogram='pi'\nneeds=['A']\n[runs.C]\nprogram='pi'\nneeds=['B']",
        "in a cycle: ",
    ),
    "a run that needs itself": (RUN + "needs = ['A']", "A needs A"),
    "a name that is a path": (
        "[runs.'../A']\nprogram = 'pi'",
        "runs.../A: this name is not valid for a run's folder",
        "letters",
    ),
    "a name that the study uses": ("[runs.job]\nprogram = 'pi'", "runs.job: this name is not valid for a run's folder"),
    "a name with a newline": ('[runs."A\\n"]\nprogram = "pi"', "is not valid for a run's folder"),
    "a program and a command": (RUN + "command = ['true']", "runs.A: it must have either a program", "or a command"),
    "neither program nor command": ("[runs.A]\nneeds = []", "runs.A: it must have either a program", "or a command"),
    "a command with parameters": (
        "[runs.A]\ncommand = ['true']\nparameters = { n = 1 }",
        "a command without them",
    ),
    "a command in one word": ("[runs.A]\ncommand = 'true'", "runs.A: command = 'true' must be a list"),
    "an unknown key of a run": (RUN + "need = ['B']", "runs.A: need = ['B']", "Did you mean needs?"),
    "a parameter of a run": (RUN + "parameters = { points = 0 }", "runs.A: pi: --points 0 must be at least 1"),
    "no runs": ("runs = {}", "runs = {} is wrong"),
}
CSV = {
    "t.csv": "seed,points\n",
    "few.csv": "seed,points\n1,2\n3\n",
    "many.csv": "seed,points\n1,2,3\n",
    "twice.csv": "seed,seed\n1,2\n",
}


@pytest.mark.parametrize("case", BAD_STUDIES)
def test_study_bad_file_is_refused(tmp_path, case):
    text, *expected = BAD_STUDIES[case]
    with pytest.raises(UsageError) as caught:
        study(tmp_path, text, **CSV)
    assert str(caught.value).startswith(f"study {tmp_path}/study.toml")
    for words in expected:
        assert str(caught.value).count(words) == 1, caught.value


def test_study_cycle_is_named_in_the_order_of_the_needs(tmp_path):
    around = ("A needs C needs B needs A", "C needs B needs A needs C", "B needs A needs C needs B")
    with pytest.raises(UsageError) as caught:
        study(tmp_path, BAD_STUDIES["a cycle"][0])
    assert any(f"in a cycle: {cycle}." in str(caught.value) for cycle in around)


def test_study_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"none\.toml cannot be read"):
        read_study(tmp_path / "none.toml")
