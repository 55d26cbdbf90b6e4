"""groupby: the order of the groups, and their files; the same bytes on any ranks."""

from __future__ import annotations

import csv
import hashlib
import math
from decimal import Decimal

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from keyed.tables.samples import on_root
from mpi4py import MPI
from ranks import check_collective, run_anyrank

from anyrank.errors import AnyrankError, UsageError
from anyrank.keyed import Text, write_csv, write_parquet
from anyrank.keyed.order import head, ordered
from anyrank.keyed.programs.groupby import GroupBy
from anyrank.state import State
from anyrank.world import World


def run(world, path, folder=None, **options):
    groupby, state = GroupBy(table=str(path), **options), State(world, folder=folder)
    groupby.declare(state)
    while not groupby.done(state):
        groupby.step(state)
        state.step += 1
    return groupby.result(state)


@pytest.fixture(scope="module")
def alone():
    world = World()
    yield world
    world.close()


def table(rows=500):
    draw = np.random.default_rng(3)
    words = [None if n == 0 else "w" * (n % 3) + f"ord{n % 11}" for n in draw.integers(0, 60, rows).tolist()]
    x = [math.nan if n == 0 else None if n < 9 else n / 8 for n in draw.integers(0, 40, rows).tolist()]
    wide = [None if n % 5 == 0 else Decimal(n * 10**22) for n in draw.integers(-99, 99, rows).tolist()]
    return {
        "word": words,
        "x": x,
        "n": draw.integers(-3, 3, rows).tolist(),
        "w": pa.array(wide, pa.decimal128(38, 0)),
        "f": [math.nan if n == 4 else None if n == 5 else n / 2 for n in draw.integers(0, 6, rows).tolist()],
    }


def place(value, descending):
    """A value sorts by this: NaN and then null are last in either order."""
    if value is None or value != value:
        return (1 + (value is None), 0)
    if isinstance(value, str):
        codes = [*value.encode(), -1]
        return (0, [-c for c in codes] if descending else codes)
    return (0, -value if descending else value)


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize(
    ("by", "order"),
    [
        ("word", "-sum(n)"),
        ("word,f", "max(x)"),
        ("word,f", "-max(x)"),
        ("word,f", "-word,count"),
        ("word,f", " -f , -quantile(x, .5)"),
        ("word", "-sum(w),max(w)"),
        ("w,word", "-w"),
        ("f", "-f"),
    ],
)
def test_groupby_order_is_that_of_python(world, tmp_path, by, order):
    on_root(world, lambda: pa.parquet.write_table(pa.table(table()), tmp_path / "t.parquet", 50))
    options = {"aggregate": "count,sum(n),max(x),sum(w),max(w),quantile(x, .5)", "top": 10**6, "by": by}
    plain, result = (run(world, tmp_path / "t.parquet", order=o, **options) for o in ("", order))
    columns = plain["columns"]
    number = {"w", "sum(w)", "max(w)"}
    rows = plain["first"]
    names = [name.strip() for name in order.replace(", .5", "; .5").split(",")]
    for name in reversed(names):
        label = name.lstrip("-").replace(";", ",")
        k = columns.index(label)

        def value(row, k=k, name=name, label=label):
            x = int(row[k]) if label in number and row[k] is not None else row[k]
            return place(x, name.startswith("-"))

        rows = sorted(rows, key=value)  # a stable sort: ties are in the order of the keys
    check_collective(world, repr(result["first"]) == repr(rows), f"{result['first'][:3]}, {rows[:3]}")


@pytest.mark.ranks(1, 2, 3)
def test_ordered_text_sorts_in_descending_order(world):
    words = [f"{'x' * (n % 4)}{n % 7}" for n in range(300)]
    mine = ordered(world, {"word": Text.of(words[world.rank :: world.size])}, ["-word"])
    result = head(world, mine, 1000)["word"]
    check_collective(world, result == sorted(words, reverse=True), str(result[:9]))


@pytest.mark.ranks(1, 2, 3)
def test_groupby_parquet_has_nulls_types_and_one_set_of_bytes(world, tmp_path, monkeypatch):
    monkeypatch.setattr("anyrank.keyed.write.GROUP_ROWS", 7)
    day = pa.array([n % 3 if n % 4 else None for n in range(500)], pa.date32())
    on_root(world, lambda: pa.parquet.write_table(pa.table(table() | {"day": day}), tmp_path / "t.parquet", 50))
    options = {"by": "word,day", "aggregate": "count,sum(w),max(x),nunique(f)", "formats": ["parquet", "csv"]}
    single = World(MPI.COMM_SELF)
    digests, folders = [], [(world, tmp_path / "all"), (single, tmp_path / f"alone{world.rank}")]
    on_root(world, (tmp_path / "all").mkdir)
    folders[1][1].mkdir()
    for here, folder in folders:
        run(here, tmp_path / "t.parquet", folder, **options)
        digests.append([hashlib.sha256((folder / f"groups.{s}").read_bytes()).digest() for s in ("csv", "parquet")])
        check_collective(world, not (folder / "groups.h5").exists(), "no HDF5")
    check_collective(world, digests[0] == digests[1], "bytes")
    file = pa.parquet.ParquetFile(tmp_path / "all" / "groups.parquet")
    result = file.read().to_pydict()
    types = [str(field.type) for field in file.schema_arrow]
    right = ["large_string", "date32[day]", "int64", "decimal128(38, 0)", "double", "int64"]
    check_collective(world, types == right and file.metadata.num_row_groups > 9, str(types))
    with (folder / "groups.csv").open(newline="") as text:
        rows = [*csv.DictReader(text)]
    for name, column in result.items():
        cells = ["" if x is None else "nan" if x != x else str(x) for x in column]
        check_collective(world, cells == [row[name] for row in rows], name)
    single.close()


@pytest.mark.ranks(1, 2)
def test_write_parquet_text_is_binary_if_a_rank_has_other_bytes(world, tmp_path):
    texts = {"a": Text.of(["å"] * 3), "b": Text.of([b"\xff" if world.rank == world.size - 1 else b"x"])}
    for name, kind in (("a", "large_string"), ("b", "large_binary")):
        path = write_parquet(world, tmp_path / f"{name}.parquet", {name: texts[name]})
        result = pa.parquet.read_table(path)
        check_collective(world, str(result.schema.field(name).type) == kind, name)
        everyone = [text for part in world.comm.allgather(texts[name].tolist()) for text in part]
        values = [x.encode() if isinstance(x, str) else x for x in result[name].to_pylist()]
        check_collective(world, values == everyone, name)
    empty = write_parquet(world, tmp_path / "empty.parquet", {"x": np.empty(0)})
    check_collective(world, pa.parquet.read_table(empty).num_rows == 0, "empty")


@pytest.mark.ranks(1, 2)
def test_write_parquet_that_fails_leaves_the_file_there_was(world, tmp_path, monkeypatch):
    path = tmp_path / "x.parquet"
    on_root(world, lambda: path.write_text("before"))

    class Full(pa.parquet.ParquetWriter):
        def write_table(self, *arguments):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pa.parquet, "ParquetWriter", Full)
    with pytest.raises(AnyrankError, match=r"x.parquet was not written: .*No space left"):
        write_parquet(world, path, {"x": np.arange(3)})
    world.barrier()  # rank 0 has removed the temporary file
    check_collective(world, path.read_text() == "before" and len([*tmp_path.iterdir()]) == 1, "nothing else")
    with pytest.raises(AnyrankError, match="was not written"):
        write_parquet(world, tmp_path / "missing" / "x.parquet", {"x": np.arange(3)})


@pytest.mark.parametrize("module", ["duckdb", "polars"])
def test_groupby_parquet_is_read_by_others(alone, tmp_path, module):
    other = pytest.importorskip(module)
    pa.parquet.write_table(pa.table(table()), tmp_path / "t.parquet")
    result = run(alone, tmp_path / "t.parquet", tmp_path, by="word", formats=["parquet"], top=1000)
    path = str(tmp_path / "groups.parquet")
    rows = other.sql(f"from '{path}'").fetchall() if module == "duckdb" else other.read_parquet(path).rows()
    assert [[*row] for row in rows] == result["first"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "-sum(n)"}, r"--order '-sum\(n\)' must be a key or an aggregate of this run: word, count"),
        ({"order": "x"}, "must be a key or an aggregate"),
        ({"formats": ["arrow"]}, "formats"),
    ],
)
def test_groupby_invalid_order_or_format_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        GroupBy(table="t.csv", by="word", **options)


def test_groupby_formats_and_order_are_flags(tmp_path):
    (tmp_path / "t.csv").write_text("k,x\na,1\nb,5\nc,5\n")
    words = ("run", "groupby", "--table", tmp_path / "t.csv", "--by", "k", "--aggregate", "max(x)", "--quiet")
    words = (*words, "--order=-max(x)", "--formats", "hdf5,parquet", "--top", 2, "--out", tmp_path / "out")
    done = run_anyrank(*words, ranks=2)
    assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "out" / "groups.h5") as file:
        assert file["k"][:].tolist() == [b"b", b"c", b"a"]
    assert pa.parquet.read_table(tmp_path / "out" / "groups.parquet")["k"].to_pylist() == ["b", "c", "a"]
    assert not (tmp_path / "out" / "groups.csv").exists()


def test_groupby_csv_quotes_empty_text_and_not_null(alone, tmp_path):
    pa.parquet.write_table(pa.table({"k": ["", None, "a", ""], "x": [1, 2, None, 4]}), tmp_path / "t.parquet")
    program, state = (
        GroupBy(table=str(tmp_path / "t.parquet"), by="k", aggregate="max(x)"),
        State(alone, folder=tmp_path),
    )
    program.declare(state)
    program.step(state)
    program.result(state)
    assert (tmp_path / "groups.csv").read_text() == 'k,max(x)\n"",4\na,\n,2\n'
    names = pa.array(["", None, "b"])
    assert write_csv(alone, tmp_path / "one.csv", {"k": names.cast(pa.large_binary())}).read_text() == 'k\n""\n""\nb\n'
