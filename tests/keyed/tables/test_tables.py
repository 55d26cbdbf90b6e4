"""Tables: every row of every file is read once, on one rank, for any split; unreadable input is refused first."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from keyed.tables.samples import LOG, WRITERS, on_root, rows_of, type_names, write_csv
from ranks import check_collective

from anyrank.errors import AnyrankError, UsageError
from anyrank.keyed.tables import TableFiles
from anyrank.keyed.tables.columns import ColumnSpec, parse_key
from anyrank.world import World

COLUMNS = [
    ColumnSpec("user"),
    parse_key("date(time)"),
    parse_key("hour(time)"),
    ColumnSpec("price", role="number"),
    ColumnSpec("items", role="number"),
]


@pytest.fixture(scope="module")
def alone():
    world = World()
    yield world
    world.close()


def expected(rows=LOG):
    days = [int(time.timestamp()) // 86400 for time in rows["time"]]
    hours = [time.hour for time in rows["time"]]
    return sorted(zip(rows["user"], days, hours, rows["price"], rows["items"], strict=True))


@pytest.mark.ranks(1, 2, 4, 7)
def test_tables_every_row_of_every_file_type_is_read_once(world, tmp_path):
    for suffix, write in WRITERS.items():
        path = tmp_path / f"log.{suffix}"
        on_root(world, lambda path=path, write=write: write(path))
        files = TableFiles(str(path), COLUMNS, world)
        assert type_names(files) == {
            "user": "text",
            "date(time)": "date",
            "hour(time)": "int64",
            "price": "float64",
            "items": "int64",
        }
        for file in files.files:
            file.block = 2000
        assert [files.nullable(label) for label in files.types] == [suffix == "csv"] * 5
        for chunk in (files.size, 7001):
            mine = rows_of(files, chunk)
            parts = world.comm.allgather(list(zip(*mine.values(), strict=True)))
            check_collective(world, sorted(row for part in parts for row in part) == expected(), f"{suffix}, {chunk}")
            check_collective(world, chunk < files.size or all(parts), f"{suffix}: a rank has no rows")


@pytest.mark.ranks(2)
def test_tables_files_of_several_types_are_one_table(world, tmp_path):
    folder = tmp_path / "log"
    on_root(world, lambda: [folder.mkdir(), *(write(folder / f"log.{suffix}") for suffix, write in WRITERS.items())])
    columns_read = [ColumnSpec("user"), ColumnSpec("price", role="number"), ColumnSpec("items")]
    files = TableFiles(str(folder), columns_read, world)
    parts = world.comm.allgather(rows_of(files, 8000))
    for name in ("user", "price", "items"):
        check_collective(world, sorted(v for part in parts for v in part[name]) == sorted(4 * LOG[name]))
    with pytest.raises(UsageError, match=r"log.csv has no column 'prise'. Did you mean 'price'\?") as refusal_of:
        TableFiles(str(folder), [ColumnSpec("prise")], world)
    assert refusal_of.value.collective
    with pytest.raises(
        UsageError,
        match=r"'time' is int64 in .*log.h5 and timestamp.us, tz=UTC. in .*log.parquet; a column must have one type",
    ):
        TableFiles([str(folder / "log.h5"), str(folder / "log.parquet")], [ColumnSpec("time")], world)


def refusal_of(alone, path, *columns_read, **options):
    with pytest.raises(UsageError) as error:
        files = TableFiles(str(path), columns_read, alone, **options)
        rows_of(files, files.size or 1)
    return str(error.value)


def test_tables_bad_files_and_columns_are_refused_by_name(alone, tmp_path):
    write_csv(tmp_path / "log.csv")
    log = tmp_path / "log.csv"
    assert "no such" in refusal_of(alone, tmp_path / "other.csv", ColumnSpec("user")).lower()
    assert "has no column 'x'. They are user, price, items, time." in refusal_of(alone, log, ColumnSpec("x"))
    assert "column 'user' is text and must be numbers to be added" in refusal_of(
        alone, log, ColumnSpec("user", role="number")
    )
    pa.parquet.write_table(pa.table({"ok": [True]}), tmp_path / "ok.parquet")
    refused = refusal_of(alone, tmp_path / "ok.parquet", parse_key("date(ok)"))
    assert "date(ok): column 'ok' is bool, not a time." in refused
    (tmp_path / "log.xlsx").write_text("x")
    assert "a table file cannot have the suffix '.xlsx'. Use .csv, .h5, .hdf5, .npy" in refusal_of(
        alone, tmp_path / "log.xlsx", ColumnSpec("x")
    )
    for suffix in ("parquet", "h5", "npy"):
        (tmp_path / f"bad.{suffix}").write_bytes(b"not this")
        assert f"bad.{suffix} cannot be read as a table" in refusal_of(
            alone, tmp_path / f"bad.{suffix}", ColumnSpec("x")
        )
    np.save(tmp_path / "plain.npy", np.arange(3))
    assert "is not a table: it needs one axis and fields" in refusal_of(alone, tmp_path / "plain.npy", ColumnSpec("x"))


def test_tables_file_damaged_later_is_an_error_with_its_name(alone, tmp_path):
    path = tmp_path / "log.parquet"
    WRITERS["parquet"](path)
    files = TableFiles(str(path), [ColumnSpec("user")], alone)
    data = bytearray(path.read_bytes())
    data[10:2000] = bytes(1990)
    path.write_bytes(data)
    with pytest.raises(AnyrankError, match=r"log.parquet cannot be read: "):
        rows_of(files, files.size)


def test_tables_every_type_of_arrow_is_read_with_nulls(alone, tmp_path):
    day = np.array(["2024-02-29", None], "M8[D]")
    columns = {
        "i8": pa.array([-1, None], pa.int8()),
        "u32": pa.array([2**32 - 1, None], pa.uint32()),
        "u64": pa.array([2**64 - 1, None], pa.uint64()),
        "f4": pa.array([0.1, None], pa.float32()),
        "flag": pa.array([True, None]),
        "word": pa.array(["é", None]).dictionary_encode(),
        "bytes": pa.array([b"\xff", None]),
        "cents": pa.array([None, None]).cast(pa.decimal128(9, 2)),
        "day": pa.array(day, pa.date32()),
        "when": pa.array([1, None], pa.timestamp("us", "Europe/Berlin")),
        "nothing": pa.array([None, None]),
    }
    pa.parquet.write_table(pa.table(columns), tmp_path / "all.parquet")
    columns_read = [
        *map(ColumnSpec, columns),
        ColumnSpec("nothing", role="number"),
        *map(parse_key, ("year(day)", "month(day)", "date(when)")),
    ]
    files = TableFiles(str(tmp_path / "all.parquet"), columns_read, alone)
    result = rows_of(files, files.size)
    assert all(map(files.nullable, files.types))
    assert [row[1] for row in result.values()] == [None] * len(result)
    first = {label: row[0] for label, row in result.items()}
    assert first["f4"] == np.float32(0.1) and first["day"] == 19782 and first["when"] == 1
    assert [first[n] for n in ("i8", "u32", "u64", "flag", "word", "bytes")] == [
        -1,
        2**32 - 1,
        2**64 - 1,
        True,
        "é",
        "\\xff",
    ]
    assert (first["year(day)"], first["month(day)"], first["date(when)"], first["nothing"]) == (2024, 2, 0, None)
    kinds = [type_names(files)[name] for name in ("i8", "u32", "u64", "f4", "flag", "word", "cents", "day", "when")]
    assert kinds == [
        "int64",
        "int64",
        "uint64",
        "float64",
        "bool",
        "text",
        "decimal(18, 2)",
        "date",
        "timestamp[us, tz=UTC]",
    ]
    pa.parquet.write_table(pa.table({"list": pa.array([[1], [2]])}), tmp_path / "list.parquet")
    assert "column 'list' is list<" in refusal_of(alone, tmp_path / "list.parquet", ColumnSpec("list"))


def test_tables_types_of_numpy_are_read(alone, tmp_path):
    table = np.zeros(
        3,
        [("name", "U4"), ("when", "M8[s]"), ("day", "M8[D]"), ("n", ">i2"), ("x", "f4"), ("ok", "?"), ("xy", "f8", 2)],
    )
    table["name"], table["when"] = ["ä", "", "long"], ["2024-01-01T00:00:01", "NaT", "1969-12-31T23:59:59"]
    table["day"], table["n"], table["x"] = ["1970-01-02", "1970-01-01", "NaT"], [1, -2, 3], [0.5, np.nan, np.inf]
    np.save(tmp_path / "table.npy", table)
    columns_read = [*map(ColumnSpec, ("name", "when", "day", "n", "x", "ok")), parse_key("weekday(when)")]
    files = TableFiles(str(tmp_path / "table.npy"), columns_read, alone)
    result = rows_of(files, files.size)
    assert result["name"] == ["ä", "", "long"] and result["day"] == [1, 0, None] and result["n"] == [1, -2, 3]
    assert result["when"] == [1704067201, None, -1] and result["weekday(when)"] == [0, None, 2]
    assert result["ok"] == [False] * 3 and result["x"][0] == 0.5
    assert "column 'xy' is ('<f8', (2,)), which cannot be read" in refusal_of(
        alone, tmp_path / "table.npy", ColumnSpec("xy")
    )


def test_tables_hdf5_groups_text_and_lengths_are_read(alone, tmp_path):
    import h5py

    with h5py.File(tmp_path / "log.h5", "w") as file:
        file["log/user"] = ["anna", "b", "ä"]
        file["log/x"] = np.arange(3.0)
        file["log/y"] = np.arange(4.0)
        file["grid"] = np.zeros((2, 2))
    files = TableFiles(str(tmp_path / "log.h5"), [ColumnSpec("log/user"), ColumnSpec("log/x", role="number")], alone)
    assert rows_of(files, files.size) == {"log/user": ["anna", "b", "ä"], "log/x": [0.0, 1.0, 2.0]}
    assert "columns must have the same length, but have {'log/x': 3, 'log/y': 4}" in refusal_of(
        alone, tmp_path / "log.h5", ColumnSpec("log/x"), ColumnSpec("log/y")
    )
    assert "has no column 'grid'" in refusal_of(alone, tmp_path / "log.h5", ColumnSpec("grid"))


def test_tables_seconds_beyond_the_year_9999_are_refused(alone, tmp_path):
    for dtype, times in ((np.int64, [0, 1_700_000_000_000, -5]), (np.uint64, [0, 2**63 + 1, 5])):
        np.save(tmp_path / "log.npy", np.array([(t,) for t in times], [("t", dtype)]))
        output = refusal_of(alone, tmp_path / "log.npy", parse_key("hour(t)"))
        assert f"log.npy: row 1 (from 0): t {times[1]} is not a time" in output
        files = TableFiles(str(tmp_path / "log.npy"), [parse_key("hour(t)"), ColumnSpec("t")], alone, "skip")
        assert rows_of(files, files.size) == {"hour(t)": [0, 23 if times[2] < 0 else 0], "t": [times[0], times[2]]}
        assert files.bad.count == 1 and "row 1 " in files.bad.first


def test_tables_changed_files_are_refused(alone, tmp_path):
    write_csv(tmp_path / "log.csv")
    files = TableFiles(str(tmp_path / "log.csv"), [ColumnSpec("user")], alone)
    files.check(files.fingerprint)
    with pytest.raises(UsageError, match="the files are not those that the run began with"):
        files.check(files.fingerprint + 1)
