"""groupby: the aggregates of plain Python, the same bits on any ranks, stopped and resumed."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
from collections import Counter
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from keyed.tables.samples import on_root
from ranks import check_collective, run_anyrank

from anyrank.errors import UsageError
from anyrank.keyed.programs.groupby import GroupBy
from anyrank.memory import resident
from anyrank.state import State
from anyrank.world import World

VISITS = Path(__file__).parents[3] / "examples" / "visits.py"
RANDOM = np.random.default_rng(11)
N = 1500
USERS = [None if n % 97 == 0 else f"u{n % 13}" for n in RANDOM.integers(0, 1000, N).tolist()]
KINDS = RANDOM.integers(-2, 3, N).tolist()
X = (RANDOM.standard_normal(N) * 2.0 ** RANDOM.integers(-60, 60, N)).tolist()
X = [None if n % 7 == 0 else x for n, x in enumerate(X)]
LARGE = RANDOM.integers(2**61, 2**62, N).tolist()
TABLE = {"user": USERS, "kind": KINDS, "x": X, "large": LARGE}
AGGREGATES = "count,count(x),sum(x),mean(x),var(x),min(x),max(x),sum(kind),sum(large),mean(large),min(large)"


def write(path, table=TABLE):
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([table, *zip(*table.values(), strict=True)])
    else:
        pa.parquet.write_table(pa.table(table), path, row_group_size=170)


def expected(by, table=TABLE):
    """A row for each group, None for a null, in the order of keys, null last."""
    groups = {}
    for n, key in enumerate(zip(*(table[name] for name in by), strict=True)):
        groups.setdefault(key, []).append(n)
    rows = []
    for key in sorted(groups, key=lambda key: [(k is None, k) for k in key]):
        x = [Fraction(X[n]) for n in groups[key] if X[n] is not None]
        large = [LARGE[n] for n in groups[key]]
        mean = sum(x, Fraction(0)) / max(1, len(x))
        var = float(sum((v - mean) ** 2 for v in x) / (len(x) - 1)) if len(x) > 1 else None
        facts = (len(groups[key]), len(x), math.fsum(x), float(mean) if x else None, var)
        more = (float(min(x)), float(max(x))) if x else (None, None)
        kinds = sum(KINDS[n] for n in groups[key])
        rows.append((*key, *facts, *more, kinds, sum(large), float(Fraction(sum(large), len(large))), min(large)))
    return rows


def program(path, by, aggregate=AGGREGATES, **options):
    return GroupBy(table=str(path), by=by, aggregate=aggregate, **options)


def run(world, path, by, aggregate=AGGREGATES, **options):
    """The state and result of a complete run; its files are in the table's folder."""
    groupby, state = program(path, by, aggregate, **options), State(world, folder=Path(path).parent)
    groupby.declare(state)
    while not groupby.done(state):
        groupby.step(state)
        state.step += 1
    return state, groupby.result(state)


def read(path):
    with path.open(newline="") as file:
        return [*csv.reader(file)]


def is_written(value, text):
    """Whether a text of CSV is that of a value; a float has a point or an exponent, so that it is read as one."""
    if isinstance(value, float):
        return float(text) == value and not text.lstrip("-").isdigit()
    return text == ("" if value is None else str(value))


@pytest.mark.ranks(2, 3, 7)
def test_groupby_any_file_gives_the_groups_of_plain_python(world, tmp_path):
    for suffix, by, chunk in (
        ("csv", ["user", "kind"], 30_000),
        ("parquet", ["user"], 1 << 30),
    ):
        path = tmp_path / f"table.{suffix}"
        on_root(world, lambda path=path: write(path))
        state, result = run(world, path, ",".join(by), chunk=chunk, top=1000)
        rows = expected(by)
        check_collective(world, result["first"] == [list(row) for row in rows], f"{suffix}, {by}")
        check_collective(world, (result["rows"], result["groups"], result["left_out"]) == (N, len(rows), 0))
        header, *lines = read(tmp_path / "groups.csv")
        check_collective(world, header == [*by, *AGGREGATES.split(",")])
        same = [all(map(is_written, row, line)) for row, line in zip(rows, lines, strict=True)]
        check_collective(world, all(same), f"{suffix}, {by}: groups.csv")
        state.world.barrier()


@pytest.mark.ranks(3)
def test_groupby_digest_depends_on_neither_ranks_nor_memory(world, tmp_path):
    on_root(world, lambda: write(tmp_path / "table.csv"))
    alone, digests = World(world.comm.Split(world.rank)), set()
    for here, limit in ((world, None), (alone, None), (world, resident() + (64 << 20))):
        state = State(here, memory_limit=limit)
        groupby = program(tmp_path / "table.csv", "user,kind")
        groupby.declare(state)
        groupby.step(state)
        digests.add(state.digest())
    check_collective(world, len(digests) == 1)


@pytest.fixture(scope="module")
def alone():
    world = World()
    yield world
    world.close()


def test_groupby_hdf5_output_has_nulls_besides_integers(alone, tmp_path):
    table = {
        "k": [5, None, 5, 2**60 + 1],
        "day": pa.array([0, 1, 0, None], pa.date32()),
        "ok": [True, None, True, False],
        "a/b": [0.5, -0.0, np.nan, 0.0],
    }
    write(tmp_path / "t.parquet", table)
    run(alone, tmp_path / "t.parquet", "k,day,ok", "min(a/b),sum(ok),max(k)")
    with h5py.File(tmp_path / "groups.h5") as file:
        result = {name: column[...].tolist() for name, column in file.items()}
    assert result["k"] == [5, 2**60 + 1, 0] and result["k_null"] == [False, False, True]
    assert result["day"] == [b"1970-01-01", b"", b"1970-01-02"]
    assert result["ok"] == [True, False, False] and result["ok_null"] == [False, False, True]
    assert result["sum(ok)"] == [2, 0, 0] and result["max(k)"] == [5, 2**60 + 1, 0] and result["max(k)_null"][2]
    assert str(result["min(a.b)"]) == "[nan, 0.0, -0.0]"
    assert read(tmp_path / "groups.csv")[1:] == [
        ["5", "1970-01-01", "true", "nan", "2", "5"],
        [str(2**60 + 1), "", "false", "0.0", "0", str(2**60 + 1)],
        ["", "1970-01-02", "", "-0.0", "0", ""],
    ]


def test_groupby_equal_keys_are_one_group(alone, tmp_path):
    other = np.array([0x7FF8000000000001], np.uint64).view(np.float64)[0]
    write(
        tmp_path / "t.parquet",
        {"k": [0.0, -0.0, np.nan, other, -1.0], "s": np.array([2**63, 2**64 - 1, 0, 1, 2], np.uint64)},
    )
    _, result = run(alone, tmp_path / "t.parquet", "k", "count,sum(s)")
    assert str(result["first"]) == f"[[-1.0, 1, 2], [0.0, 2, {2**63 + 2**64 - 1}], [nan, 2, 1]]"


@pytest.mark.parametrize("dtype", ["m8[D]", "timestamp"])
def test_groupby_times_are_shown_as_text(alone, tmp_path, dtype):
    when = pa.array([0, 10**9, None], pa.timestamp("us") if dtype == "timestamp" else pa.timestamp("s"))
    write(tmp_path / "t.parquet", {"t": when})
    _, result = run(alone, tmp_path / "t.parquet", "t,month(t)", "count")
    second = "1970-01-01T00:16:40.000000" if dtype == "timestamp" else "2001-09-09T01:46:40.000"
    assert result["first"] == [
        ["1970-01-01T00:00:00" + second[19:], 1, 1],
        [second, 9 - 8 * (dtype == "timestamp"), 1],
        [None, None, 1],
    ]


def test_groupby_table_without_rows_has_no_groups(alone, tmp_path):
    (tmp_path / "t.csv").write_text("k,x\n")
    state, result = run(alone, tmp_path / "t.csv", "k", "sum(x),var(x),min(x)")
    assert (result["rows"], result["groups"], result["first"]) == (0, 0, []) and state.step == 1
    assert read(tmp_path / "groups.csv") == [["k", "sum(x)", "var(x)", "min(x)"]]


def test_groupby_stopped_run_resumes_on_other_ranks(tmp_path):
    write(tmp_path / "table.csv")
    words = (
        "--table",
        tmp_path / "table.csv",
        "--by",
        "user,kind",
        "--aggregate",
        AGGREGATES,
        "--chunk",
        30_000,
        "--json",
        "--quiet",
    )
    whole = run_anyrank("run", "groupby", *words, "--out", tmp_path / "whole", ranks=1)
    stopped = run_anyrank("run", "groupby", *words, "--out", tmp_path / "stopped", "--stop-at", 2, ranks=2)
    assert (whole.returncode, stopped.returncode) == (0, 75), whole.stderr + stopped.stderr
    resumed = run_anyrank("resume", tmp_path / "stopped", "--json", "--quiet", ranks=3)
    assert resumed.returncode == 0, resumed.stderr
    first, other = (json.loads(done.stdout.splitlines()[-1]) for done in (whole, resumed))
    assert first["digest"] == other["digest"] and other["steps"] > 2
    for name in ("groups.csv", "groups.h5", "result.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()


def test_groupby_resume_with_other_files_or_columns_is_refused(alone, tmp_path):
    write(tmp_path / "table.csv")
    for name, output in (("input", "the files are not those"), ("kinds", "the columns are not those")):
        groupby, state = program(tmp_path / "table.csv", "user"), State(alone)
        groupby.declare(state)
        setattr(state, name, 1)
        with pytest.raises(UsageError, match=output):
            groupby.step(state)


def test_groupby_bad_rows_end_the_run_or_are_counted(alone, tmp_path):
    lines = [f"u{n % 3},2024-01-{1 + n % 30:02d},{n}" for n in range(300)]
    lines[200] = "u0,2024-02-30,1"
    lines[250] = "u0,2024-02-30"
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user,time,x", *lines]))
    words = ("run", "groupby", "--table", path, "--by", "date(time)", "--aggregate", "count,sum(x)", "--quiet")
    refused = run_anyrank(*words, "--out", tmp_path / "a", ranks=2)
    assert refused.returncode == 2, refused.stderr
    assert f"{path}: line 252 has 2 fields, not 3: 'u0,2024-02-30'. Correct the file, or use --on-bad skip" in " ".join(
        refused.stderr.split()
    )
    _, result = run(alone, path, "date(time)", "count,sum(x)", on_bad="skip")
    assert (result["rows"], result["left_out"], result["groups"]) == (298, 2, 30)
    count = Counter(1 + n % 30 for n in range(300) if n not in (200, 250))
    assert [row[1] for row in result["first"]] == [count[day] for day in range(1, 11)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "user,dya(time)"}, "--by 'dya\\(time\\)' is not a key"),
        ({"aggregate": "mode(x)"}, r"--aggregate 'mode\(x\)' is not an aggregate. Use count, or one of count, sum"),
        ({"aggregate": "sum"}, "--aggregate 'sum' is not an aggregate"),
        ({"by": "count"}, "count is a key and an aggregate"),
        ({"types": "x=number"}, "type 'number' must be one of float64, int64"),
        ({"by": "usr"}, "has no column 'usr'. Did you mean 'user'"),
        ({"aggregate": "mean(user)"}, "column 'user' is text and must be numbers to be added"),
    ],
)
def test_groupby_bad_keys_and_aggregates_are_refused(alone, tmp_path, options, message):
    write(tmp_path / "table.csv")
    with pytest.raises(UsageError, match=message):
        program(tmp_path / "table.csv", **{"by": "user", **options}).declare(State(alone))


def test_groupby_example_visits_answers_both_questions(tmp_path):
    spec = importlib.util.spec_from_file_location("visits", VISITS)
    visits = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(visits)
    visits.VISITS = 5000
    assert visits.main(tmp_path) == 0
    _, *rows = read(tmp_path / "log.csv")
    users, days = Counter(row[0] for row in rows), Counter(row[1][:10] for row in rows)
    assert len(users) == 20 and len(days) == 30 and datetime.fromisoformat(max(days)) < datetime(2025, 3, 31)
    for name, counts in (("users", users), ("days", days)):
        _, *groups = read(tmp_path / name / "groups.csv")
        assert [(key, int(n)) for key, n, _ in groups] == sorted(counts.items())
        stays = [float(row[2]) for row in rows if groups[0][0] in (row[0], row[1][:10])]
        assert groups[0][2] == str(float(sum(map(Fraction, stays)) / len(stays)))
