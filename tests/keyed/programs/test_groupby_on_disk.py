"""groupby and wordcount with more groups than memory: the same digest and files as in memory, also when resumed."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from keyed.tables.samples import on_root
from mpi4py import MPI
from ranks import check_collective, run_anyrank

from anyrank.errors import AnyrankError, UsageError
from anyrank.keyed.programs.groupby import GroupBy
from anyrank.keyed.programs.wordcount import WordCount
from anyrank.keyed.spill import table_budgets
from anyrank.state import State
from anyrank.world import World

ROWS, GROUPS = 20_000, 6_000
AGGREGATES = "count,sum(x),mean(x),min(x),max(x),std(x),sum(n),mean(d)"
FILES = ("groups.csv", "groups.h5", "groups.parquet")
CASES = {
    "number": {"by": "k", "aggregate": AGGREGATES},
    "text": {"by": "t", "aggregate": AGGREGATES, "order": "-sum(x)", "top": 7},
    "several": {"by": "t,j,day", "aggregate": "count,max(x),sum(d)", "order": "day,-t", "top": 3000},
    "values": {"by": "k", "aggregate": "count,nunique(t),median(x),quantile(n, 0.9),median(d)", "order": "-median(x)"},
}


def table():
    random = np.random.default_rng(3)
    k = random.integers(0, GROUPS, ROWS)
    x = random.standard_normal(ROWS) * 2.0 ** random.integers(-40, 40, ROWS)
    return pa.table(
        {
            "k": pa.array(k, mask=k % 97 == 0),
            "t": pa.array([None if n % 89 == 0 else f"text-{n % 7919}" + "é" * (n % 40) for n in k.tolist()]),
            "j": (k % 1999).astype(float),
            "day": pa.array((k % 3).astype(np.int32), pa.date32()),
            "x": pa.array(x, mask=random.random(ROWS) < 0.1),
            "n": random.integers(-(2**62), 2**62, ROWS),
            "d": pa.array([Decimal(n) / 100 for n in random.integers(0, 10**6, ROWS).tolist()], pa.decimal128(30, 2)),
        }
    )


def run(world, path, kind=GroupBy, **options):
    """The state, the result and the program of a complete run; its files are in the table's folder."""
    program, state = kind(**options), State(world, folder=path.parent)
    program.check()
    program.declare(state)
    while not program.done(state):
        program.step(state)
        state.step += 1
    return state, program.result(state)


def contents(path, names):
    return [(path.parent / name).read_bytes() for name in names]


def limit_memory(monkeypatch, budget=10 << 20):
    monkeypatch.setattr(State, "budget", lambda _: budget)
    for program in ("groupby", "wordcount"):
        limited = f"anyrank.keyed.programs.{program}.table_budgets"
        monkeypatch.setattr(limited, lambda budget, _: table_budgets(budget, True))


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize("case", CASES)
def test_groupby_on_disk_has_the_files_of_one_in_memory(world, tmp_path, monkeypatch, case):
    path, options = tmp_path / "t.parquet", {**CASES[case], "formats": ["csv", "hdf5", "parquet"], "chunk": 1 << 20}
    monkeypatch.setattr("anyrank.keyed.write.GROUP_ROWS", 1000)
    on_root(world, lambda: pa.parquet.write_table(table(), path, row_group_size=3000))
    right = []
    if world.rank == 0:
        state, result = run(World(MPI.COMM_SELF), path, table=str(path), **options)
        right = [state.digest(), result, *contents(path, FILES)]
        for name in FILES:
            (tmp_path / name).unlink()
    limit_memory(monkeypatch)
    state, result = run(world, path, table=str(path), **options)
    check_collective(world, state.groups.on_disk or case == "values")
    check_collective(world, case != "values" or state.members["distinct1"].on_disk)
    found = [state.digest(), result, *contents(path, FILES)]
    check_collective(world, world.rank > 0 or found == right)
    check_collective(world, sorted(p.name for p in tmp_path.iterdir()) == sorted([*FILES, "t.parquet"]), "scratch")
    world.barrier()


@pytest.mark.ranks(1, 2, 3)
def test_wordcount_on_disk_has_the_files_of_one_in_memory(world, tmp_path, monkeypatch):
    path = tmp_path / "t.txt"
    on_root(world, lambda: path.write_bytes(b" ".join(b"word-%d" % (n * n % 30_011) for n in range(60_000))))
    right = []
    if world.rank == 0:
        state, result = run(World(MPI.COMM_SELF), path, WordCount, files=str(path))
        right = [state.digest(), result, *contents(path, ["words.csv", "words.h5"])]
    world.barrier()
    limit_memory(monkeypatch, 8 << 20)
    state, result = run(world, path, WordCount, files=str(path), chunk=1 << 17)
    check_collective(world, state.words.on_disk)
    found = [state.digest(), result, *contents(path, ["words.csv", "words.h5"])]
    check_collective(world, world.rank > 0 or found == right)
    world.barrier()


@pytest.mark.ranks(1, 2)
def test_groupby_values_of_one_group_must_fit(world, tmp_path, monkeypatch):
    columns = {"k": np.zeros(200_000, np.int64), "x": np.arange(200_000.0)}
    on_root(world, lambda: pa.parquet.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=50_000))
    limit_memory(monkeypatch, 16 << 20)
    with pytest.raises(AnyrankError, match=r"table distinct0: the distinct values of a group take over \d+ bytes"):
        run(world, tmp_path / "t.parquet", table=str(tmp_path / "t.parquet"), by="k", aggregate="median(x)")
    few = {"by": "k", "aggregate": "median(y),nunique(y)", "let": ["y = x // 1000"]}
    result = run(world, tmp_path / "t.parquet", table=str(tmp_path / "t.parquet"), **few)[1]
    check_collective(world, result["first"] == [[0, 99.5, 200]], "few values fit")


@pytest.mark.ranks(1, 3)
def test_groupby_on_disk_error_of_one_rank_ends_all(world, tmp_path, monkeypatch):
    """The sum of one group has too many digits; one rank computes it."""
    d = pa.array([Decimal(10**37 * 9 if n < 13 else n) for n in range(ROWS)], pa.decimal128(38, 0))
    columns = {"k": pa.array(np.maximum(np.arange(ROWS) - 13, 0)), "d": d}
    on_root(world, lambda: pa.parquet.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=3000))
    limit_memory(monkeypatch)
    with pytest.raises(UsageError, match=r"sum\(d\): a sum has more than 38 digits"):
        run(world, tmp_path / "t.parquet", table=str(tmp_path / "t.parquet"), by="k", aggregate="sum(d)")


def anyrank(*words, status=0, ranks=None):
    done = run_anyrank(*words, "--json", "--quiet", ranks=ranks, timeout=400)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def limit_of(*words):
    """The memory limit, in MB, that leaves 100 MB to a rank, 28 MB of them for groups."""
    done = run_anyrank(*words, "--memory-limit", "1MB", ranks=2)
    assert done.returncode == 2
    return int(re.search(r"Use --memory-limit (\d+)MB or more", done.stderr)[1]) + 84


def check_limited_runs(words, folder, files, wanted):
    """Compare runs with and without a limit, of which one is stopped and resumed on other ranks."""
    most, small = limit_of(*words, "--out", folder / "refused"), folder / "scratch"
    small.mkdir()
    whole = anyrank(*words, "--out", folder / "whole", ranks=2)
    assert whole["memory"]["arrays"] * 2 > wanted
    limited = ("--memory-limit", f"{most}MB", "--scratch", small)
    summary = anyrank(*words, *limited, "--out", folder / "limited", ranks=2)
    assert summary["memory"]["peak"] <= most * 10**6 and summary["memory"]["arrays"] < wanted // 10
    anyrank(*words, *limited, "--out", folder / "stopped", "--stop-at", 2, ranks=3, status=75)
    anyrank("resume", folder / "stopped", "--stop-at", 3, ranks=1, status=75)
    assert [*small.iterdir()] == []
    last = anyrank("resume", folder / "stopped", ranks=2)
    assert last["digest"] == summary["digest"] == whole["digest"] and [*small.iterdir()] == []
    for name in files:
        kinds = {(folder / out / name).read_bytes() for out in ("whole", "limited", "stopped")}
        assert len(kinds) == 1, name


@pytest.mark.slow
def test_groupby_on_disk_keeps_the_memory_limit(tmp_path):
    rows = 2_500_000
    random = np.random.default_rng(5)
    columns = {"k": random.integers(0, 1 << 40, rows), "x": random.standard_normal(rows)}
    pa.parquet.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=1 << 17)
    words = (
        "run",
        "groupby",
        "--table",
        tmp_path / "t.parquet",
        "--by",
        "k",
        "--aggregate",
        "count,sum(x),mean(x),min(x),max(x),std(x)",
    )
    words = (*words, "--formats", "csv,hdf5,parquet", "--chunk", 10 << 20)
    check_limited_runs(words, tmp_path, FILES, 260 << 20)


@pytest.mark.slow
def test_wordcount_on_disk_keeps_the_memory_limit(tmp_path):
    numbers = (np.arange(5_000_000) * 7_919 % 4_000_037).tolist()
    (tmp_path / "t.txt").write_bytes(b" ".join(b"word%d" % n for n in numbers))
    words = ("run", "wordcount", "--files", tmp_path / "t.txt", "--chunk", 12 << 20)
    check_limited_runs(words, tmp_path, ["words.csv", "words.h5"], 260 << 20)


def test_table_budgets_leave_room_for_libraries_with_a_limit():
    assert table_budgets(400 << 20, limited=False) == (400 << 20, 800 << 20)
    assert table_budgets(400 << 20, limited=True) == (300 << 20, 300 << 20)
    assert table_budgets(100 << 20, limited=True) == (28 << 20, 28 << 20)
