"""series.csv and series.h5: what a row may hold, how the files are read, cut back and written."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time

import h5py
import numpy as np
import pandas
import pytest

from anyrank.output.row import Row
from anyrank.output.schedule import Schedule
from anyrank.output.series import Series, SeriesFile, read_columns, read_rows, write_hdf5

VALUES = {"n": 3, "x": 0.1, "deep": True}


def test_row_values_of_all_kinds_have_three_types():
    row = Row.of(
        5,
        {
            "i": np.int32(-3),
            "u": np.uint64(7),
            "f": np.float32(0.1),
            "zero": np.array(2.5),
            "b": np.bool_(False),
            "v": [1, 2.5],
            "w": np.array([True]),
            "none": math.nan,
            "big": -math.inf,
        },
    )
    assert row.header == "step,i,u,f,zero,b,v[0],v[1],w[0],none,big\n"
    assert row.line == "5,-3,7,0.10000000149011612,2.5,false,1.0,2.5,true,nan,-inf\n"
    assert [*row.kinds.values()] == ["int"] * 2 + ["float"] * 2 + ["bool"] + ["float"] * 2 + ["bool"] + ["float"] * 2
    again = Row.parse(row.line.rstrip("\n"), [*row.values])
    assert again.line == row.line and again.kinds == row.kinds


@pytest.mark.parametrize("value", [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1e16, 1 / 3, 123456789.0, 1e-7])
def test_row_float_is_read_back_with_the_same_bits(value):
    row = Row.parse(Row.of(0, {"x": value}).line.rstrip("\n"), ["x"])
    assert np.float64(row.values["x"]).tobytes() == np.float64(value).tobytes()


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        ([1, 2], "observe returned [1, 2], but must return numbers by name"),
        (None, "observe returned None, but must return numbers by name"),
        ({"x": "hot"}, "observe returned x = 'hot', but a value must be a bool, an int or float"),
        ({"x": 1j}, "observe returned x = 1j, but a value must be"),
        ({"x": np.longdouble(1)}, "but a value must be"),
        ({"x": None}, "observe returned x = None"),
        ({"x": [[1, 2], [3]]}, "observe returned x = [[1, 2], [3]]"),
        ({"x": np.zeros((2, 2))}, "observe returned x = array"),
        ({"x": np.zeros(1001)}, "x with 1001 values, but a row has at most 1000"),
        ({"x": 2**63}, "x = 9223372036854775808, which needs more than 64 bits"),
        ({"x": 10**30}, "observe returned x = 1000000"),
        ({3: 1}, "observe returned the name 3, but a name must be text"),
        ({"a,b": 1}, "observe returned the name 'a,b'"),
        ({"a/b": 1}, "observe returned the name 'a/b'"),
        ({"": 1}, "observe returned the name ''"),
        ({"step": 1}, "observe returned two columns 'step'"),
        ({"v": [1], "v[0]": 2}, "observe returned two columns 'v[0]'"),
    ],
    ids=str,
)
def test_row_of_bad_values_names_value_rule_and_fix(observed, message):
    with pytest.raises(ValueError) as refused:
        Row.of(0, observed)
    assert message in str(refused.value) and str(refused.value).endswith(".")


def write(path, *steps, end=""):
    """Write rows of these steps; `end` is what follows them."""
    path.unlink(missing_ok=True)
    file = SeriesFile(path)
    for step in steps:
        file.append(Row.of(step, {**VALUES, "x": step / 10}))
    file.close()
    with path.open("a") as text:
        text.write(end)
    return file


def steps_of(path):
    return [row.step for row in read_rows(path, path.read_bytes())]


def test_series_file_appends_each_row_in_one_write(tmp_path, monkeypatch):
    calls, real = [], os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda *words: calls.append(bytes(words[1])) or real(*words))
    write(tmp_path / "s.csv", 0, 2)
    assert calls == [b"step,n,x,deep\n0,3,0.0,true\n", b"2,3,0.2,true\n"]
    assert (tmp_path / "s.csv").read_bytes() == b"".join(calls)


@pytest.mark.parametrize("end", ["", "4,3,0.", "4", "\0\0\0\0", "4,3,0.4,true\n5,3,0", "4,x\n", "\0\n"])
def test_series_file_is_cut_back_to_the_step(tmp_path, end):
    path = tmp_path / "s.csv"
    file = write(path, 0, 1, 2, 3, end=end)
    recovered = file.recover(2, Schedule(1))
    assert (recovered.last, recovered.missing) == (2, ()) and recovered.kinds == Row.of(0, VALUES).kinds
    assert path.read_text() == "step,n,x,deep\n0,3,0.0,true\n1,3,0.1,true\n2,3,0.2,true\n"
    file.append(Row.of(3, VALUES))
    assert steps_of(path) == [0, 1, 2, 3]


def test_series_file_of_a_larger_interval_is_thinned(tmp_path):
    path = tmp_path / "s.csv"
    file = write(path, *range(0, 21, 2), 21)
    assert file.recover(21, Schedule(4)).missing == ()
    assert steps_of(path) == [0, 4, 8, 12, 16, 20]


def test_series_file_row_of_the_step_itself_may_be_missing(tmp_path):
    recovered = write(tmp_path / "s.csv", 0, 1).recover(2, Schedule(1))
    assert (recovered.last, recovered.missing) == (1, ())


@pytest.mark.parametrize(("steps", "missing"), [((), (0, 2)), ((0,), (2,)), ((2, 4), (0,)), ((0, 3, 4), (2,))])
def test_series_file_missing_rows_are_told(tmp_path, steps, missing):
    assert write(tmp_path / "s.csv", *steps).recover(4, Schedule(2)).missing == missing


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1,3,0.1", "1,3", "line 3: '1,3,true' is not a row of 'step,n,x,deep'"),
        ("1,3,0.1", "1,3,0.10", "line 3: '0.10' is not written as the series writes numbers: 0.1"),
        ("1,3,0.1", "1,3,cold", "line 3: could not convert string to float: 'cold'"),
        ("1,3,0.1", "1,3.0,0.1", "line 3: '1,3.0,0.1,true' has values of other types"),
        ("1,3,0.1", "0,3,0.1", "line 3: '0,3,0.1,true' has step 0 after 0"),
        ("1,3,0.1", "-1,3,0.1", "line 3: '-1,3,0.1,true' is not a row"),
        ("step,n", "n,step", "line 1: 'n,step,x,deep' must begin with the column step"),
    ],
)
def test_series_file_that_was_edited_is_refused_unchanged(tmp_path, old, new, message):
    path = tmp_path / "s.csv"
    file = write(path, 0, 1, 2, 3)
    path.write_text(edited := path.read_text().replace(old, new))
    with pytest.raises(ValueError) as refused:
        file.recover(2, Schedule(1))
    assert message in str(refused.value) and path.read_text() == edited


def test_series_hdf5_is_deterministic_and_read_by_others(tmp_path):
    path, target = tmp_path / "series.csv", tmp_path / "series.h5"
    write(path, 0, 2, 4)
    write_hdf5(target, read_columns(path), "heat")
    first = target.read_bytes()
    time.sleep(1.1)  # HDF5 stores times in seconds
    write_hdf5(target, read_columns(path), "heat")
    assert target.read_bytes() == first
    with h5py.File(target) as file:
        assert {name: file[name].dtype for name in file} == {"step": "i8", "n": "i8", "x": "f8", "deep": "?"}
        assert file["x"][()].tolist() == [0.0, 0.2, 0.4] and file["x"].dims[0][0].name == "/step"
        assert (file.attrs["format"], file.attrs["program"]) == ("anyrank series", "heat")
        frame = pandas.DataFrame({name: file[name][()] for name in file}).set_index("step")
    assert frame["n"].tolist() == [3, 3, 3] and frame.index.tolist() == [0, 2, 4]
    if shutil.which("h5dump"):
        dumped = subprocess.run(["h5dump", "-d", "x", target], capture_output=True, text=True, check=True).stdout
        assert "(0): 0, 0.2, 0.4" in dumped


def test_series_of_a_file_is_a_mapping_and_a_frame(tmp_path):
    path = tmp_path / "series.csv"
    write(path, 0, 2, end="3,3,0")
    series = Series(path)
    assert [*series] == ["step", "n", "x", "deep"] and len(series) == 4
    assert series["step"].tolist() == [0, 2] and series["deep"].dtype == bool
    pandas.testing.assert_frame_equal(series.frame(), pandas.read_csv(path, nrows=2))
    with pytest.raises(KeyError, match=r"'y' is no column of .* its columns are"):
        series["y"]
    assert len(Series(tmp_path / "none.csv")) == 0 and "no columns" in repr(Series(tmp_path / "none.csv"))


def test_series_csv_of_nan_is_read_by_pandas(tmp_path):
    file = SeriesFile(tmp_path / "s.csv")
    file.append(Row.of(0, {"x": math.nan, "y": math.inf, "z": -math.inf}))
    frame = pandas.read_csv(tmp_path / "s.csv")
    assert math.isnan(frame["x"][0]) and frame["y"][0] == math.inf and frame["z"][0] == -math.inf
