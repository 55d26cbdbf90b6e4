"""Folders NAME=VALUE as columns, columns that only some files have, and numbers that are times."""

from __future__ import annotations

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from keyed.tables.samples import on_root, rows_of, type_names
from ranks import check_collective

from anyrank.errors import UsageError
from anyrank.keyed.tables import TableFiles
from anyrank.keyed.tables.columns import ColumnSpec, parse_key
from anyrank.keyed.types import parse_type
from anyrank.world import World


@pytest.fixture(scope="module")
def alone():
    world = World()
    yield world
    world.close()


def write(folder, name, **columns):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            for column, values in columns.items():
                file[column] = values
    elif path.suffix == ".npy":
        table = np.zeros(len(next(iter(columns.values()))), [(n, np.asarray(v).dtype) for n, v in columns.items()])
        for column, values in columns.items():
            table[column] = values
        np.save(path, table)
    else:
        pa.parquet.write_table(pa.table(columns), path)


def read(alone, folder, *columns, **options):
    specs = [parse_key(column) if isinstance(column, str) else column for column in columns]
    files = TableFiles(str(folder), specs, alone, **options)
    return files, rows_of(files, max(1, files.size))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "h5", "npy"])
def test_folders_with_values_are_columns(alone, tmp_path, suffix):
    write(tmp_path, f"t/year=2024/m%3d1=03/a.{suffix}", x=[1, 2])
    write(tmp_path, f"t/year=2023/m%3D1=1%2f2/a.{suffix}", x=[3])
    write(tmp_path, f"t/year=__HIVE_DEFAULT_PARTITION__/m%3d1=/b.{suffix}", x=[4])
    files, result = read(alone, tmp_path / "t", "year", "m=1", "x")
    assert type_names(files) == {"year": "int64", "m=1": "text", "x": "int64"}
    rows = sorted(zip(*result.values(), strict=True), key=str)
    assert rows == [(2023, "1/2", 3), (2024, "03", 1), (2024, "03", 2), (None, None, 4)]
    _, result = read(alone, tmp_path / "t", "year")  # the rows are those of the first column
    assert sorted(result["year"], key=str) == [2023, 2024, 2024, None]
    files, _ = read(alone, tmp_path / "t", ColumnSpec("year"), types={"year": parse_type("text")})
    assert type_names(files) == {"year": "text"}
    with pytest.raises(UsageError, match="the name of a folder has '2023', which is not date"):
        read(alone, tmp_path / "t", "year", types={"year": parse_type("date")})


@pytest.mark.ranks(1, 2, 3)
def test_folders_give_all_ranks_the_same_types(world, tmp_path):
    def make():
        for k in range(3):
            write(tmp_path, f"k={k}/a.csv", x=[k, k])
        write(tmp_path, "k=3/b.parquet", x=[3], y=["only here"])

    on_root(world, make)
    files = TableFiles(str(tmp_path), [ColumnSpec(n) for n in "kxy"], world, union=True)
    check_collective(world, type_names(files) == {"k": "int64", "x": "int64", "y": "text"})
    check_collective(world, files.nullable("y") and not files.nullable("k"))
    parts = world.comm.allgather(list(zip(*rows_of(files, 7).values(), strict=True)))
    rows = sorted((row for part in parts for row in part), key=str)
    check_collective(world, rows == [(k, k, None) for k in (0, 0, 1, 1, 2, 2)] + [(3, 3, "only here")])


def test_folders_above_another_folder_are_no_columns(alone, tmp_path):
    write(tmp_path, "user=me/data/k=1/a.csv", x=[1])
    with pytest.raises(UsageError, match=r"has no column 'user'. They are x, k"):
        read(alone, tmp_path, "user")
    before = read(alone, tmp_path, "k")[0].fingerprint
    (tmp_path / "user=me/data/k=1").rename(tmp_path / "user=me/data/k=2")
    assert read(alone, tmp_path, "k")[0].fingerprint != before


def test_folders_named_as_a_column_are_refused(alone, tmp_path):
    write(tmp_path, "x=1/a.csv", x=[1], y=[2])
    assert read(alone, tmp_path, "y")[1] == {"y": [2]}
    with pytest.raises(UsageError, match=r"'x' is a column and the name of a folder. Rename one of them"):
        read(alone, tmp_path, "x")


def test_columns_missing_in_a_file_need_union(alone, tmp_path):
    write(tmp_path, "a.csv", x=[1], y=[2])
    write(tmp_path, "b.csv", y=[3])
    write(tmp_path, "c.h5", y=[4])
    with pytest.raises(UsageError, match=r"b.csv has no column 'x'. Other files have it: use --union by-name"):
        read(alone, tmp_path, "x", "y")
    files, result = read(alone, tmp_path, "x", "y", union=True)
    assert result == {"x": [1, None, None], "y": [2, 3, 4]} and type_names(files)["x"] == "int64"
    assert read(alone, tmp_path, "x", union=True)[1] == {"x": [1, None, None]}
    with pytest.raises(UsageError, match=r"has no column 'z'. They are x, y"):
        read(alone, tmp_path, "z", union=True)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "h5", "npy"])
def test_numbers_are_times_of_the_stated_unit(alone, tmp_path, suffix):
    write(tmp_path, f"t.{suffix}", t=[1_609_459_200_123, -1], f=[1_609_459_200.75, -0.25])
    types = {"t": parse_type("timestamp[ms]"), "f": parse_type("timestamp[s]")}
    files, result = read(alone, tmp_path, "t", "date(t)", "f", types=types)
    assert type_names(files) == {"t": "timestamp[ms]", "date(t)": "date", "f": "timestamp[s]"}
    assert result == {"t": [1_609_459_200_123, -1], "date(t)": [18628, -1], "f": [1_609_459_200, -1]}
    with pytest.raises(UsageError, match=r"t 1609459200123 is not a time.*use --types 't=timestamp\[ms\]'"):
        read(alone, tmp_path, "date(t)")
    with pytest.raises(UsageError, match="--types no: no CSV file has this column, and no file has numbers"):
        read(alone, tmp_path, "t", types={"no": types["t"]})


def test_numbers_and_dates_mixed_in_csv_are_times(alone, tmp_path):
    write(tmp_path, "t.csv", t=["2021-01-01", "+5", "", "7.", "x", "99999999999999999999", "-2.0"], n=range(7))
    files, result = read(alone, tmp_path, "t", "n", types={"t": parse_type("timestamp[s]")}, on_bad="skip")
    assert result == {"t": [1_609_459_200, 5, None, 7, -2], "n": [0, 1, 2, 3, 6]} and files.bad.count == 2


def test_times_beyond_the_year_9999_are_refused(alone, tmp_path):
    write(tmp_path, "t.parquet", t=pa.array([0, 2**62], pa.timestamp("ms")), d=pa.array([0, 2**30], pa.date32()))
    for key in ("year(t)", "year(d)"):
        with pytest.raises(UsageError, match=r"row 1 .* is not a time. It must be in the years 1 to 9999"):
            read(alone, tmp_path, key)
