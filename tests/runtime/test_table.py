"""Runs after their end: `anyrank table`, and `anyrank.open` in Python."""

from __future__ import annotations

import csv
import io
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray
from ranks import run_anyrank

import anyrank
from anyrank import Program, State, UsageError, exact, param
from anyrank.storage import format as checkpoint_format
from anyrank.storage.checkpoint_folder import checkpoint_files, path_of


class Wave(Program):
    """A field with a coordinate and a unit."""

    n: int = param(6, "points")
    ranks: int = param(3, "a parameter with the name of a column")
    label: str = param("a, b", "a text with a comma")
    steps: int = param(4, "steps")

    def declare(self, state: State) -> None:
        line = state.grid((self.n, 4), dims=("y", "x"))
        line.field("u", "f4", unit="m/s", description="speed")
        state.field("y", (self.n,), dims=("y",), unit="m")

    def setup(self, state: State) -> None:
        state.u[...] = sum(state.u.indices)
        state.y[...] = state.y.indices[0] * 0.5

    def step(self, state: State) -> None:
        state.u[...] += 1

    def result(self, state: State) -> dict:
        return {"mean": exact.mean(state.u), "ends": {"first": 1, "all": [1, 2]}}


@pytest.fixture
def runs(tmp_path) -> Path:
    """A finished run, a stopped one, a branch, and one of another program."""
    folder = tmp_path / "runs"
    anyrank.run(Wave(), out=folder / "a", checkpoint_every=2)
    anyrank.run(Wave(n=9), out=folder / "b", stop_at=3)
    anyrank.run(Wave(steps=6), out=folder / "c", branch_from=f"{folder / 'a'}@2")
    anyrank.run("pi", out=folder / "d")
    return folder


def test_table_has_one_row_for_each_run(runs, in_process):
    done = in_process("table", *sorted(runs.iterdir()))
    assert done.returncode == 0 and not done.stderr
    rows = [*csv.DictReader(io.StringIO(done.stdout))]
    assert [Path(row["name"]).name for row in rows] == ["a", "b", "c", "d"]
    columns = done.stdout.splitlines()[0].split(",")
    assert columns[:2] == ["name", "program"] and len({*columns}) == len(columns)
    assert columns[-8:] == ["finished", "step", "ranks", "seconds", "rate", "rate_unit", "digest", "lineage"]
    first, stopped, branch, other = rows
    assert (first["n"], first["parameter.ranks"], first["label"], first["ranks"]) == ("6", "3", "a, b", "1")
    assert (first["result.mean"], first["result.ends.all"], first["step"]) == ("8.0", "[1, 2]", "4")
    assert (stopped["finished"], stopped["step"], stopped["result.mean"]) == ("false", "3", "")
    assert branch["lineage"] == f"{runs / 'a'}@2" and first["lineage"] == ""
    assert other["program"] == "pi" and other["n"] == "" and other["points"]
    table = pd.read_csv(io.StringIO(done.stdout))
    assert table["finished"].dtype == bool and table["step"].tolist() == [4, 3, 6, table["step"][3]]
    assert table["digest"][0] == anyrank.open(runs / "a").digest


def test_table_of_a_study_folder_has_its_runs(runs, in_process):
    done = in_process("table", runs, "--format", "json")
    rows = json.loads(done.stdout)
    assert done.returncode == 0 and [row["step"] for row in rows][:3] == [4, 3, 6]
    assert rows[0]["result.ends.all"] == [1, 2] and rows[0]["finished"] is True


def test_table_names_runs_that_cannot_be_read(runs, in_process):
    (runs / "b/summary.json").write_text("{")
    shutil.rmtree(runs / "b/checkpoints")
    (runs / "a/result.json").write_text("{")
    done = in_process("table", runs, runs / "none")
    assert done.returncode == 1 and done.stdout.count("\n") == 3
    assert "b holds no run that has ended, and no valid checkpoint" in done.stderr
    assert "a cannot be read: JSONDecodeError" in done.stderr
    assert "none holds no run. Give run folders, or the folder of a study." in done.stderr
    assert run_anyrank("table", runs / "none").returncode == 1 and in_process("table").returncode == 2


def test_open_reads_parts_of_fields(runs):
    found = anyrank.open(runs / "c")
    assert found.parameters["steps"] == 6 and found.lineage[0]["step"] == 2 and found.result["mean"] == 10.0
    u = found.field("u")
    assert (u.shape, u.dtype, u.dims, u.unit, u.description) == ((6, 4), np.float32, ("y", "x"), "m/s", "speed")
    assert np.array_equal(u[1:3, 2], [9, 10]) and np.array_equal(np.asarray(u), found.fields["u"])
    array = u.to_xarray()
    assert isinstance(array, xarray.DataArray) and array.dims == ("y", "x")
    assert array.attrs == {"units": "m/s", "long_name": "speed"} and array.sel(y=1.5).values.tolist() == [9, 10, 11, 12]
    with pytest.raises(KeyError, match=r"'T' is not a field of .*: its fields are \['u', 'y'\]"):
        found.field("T")


def test_open_without_xarray_names_it(runs, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "xarray", None)
    found = anyrank.open(runs / "a")
    with pytest.raises(UsageError, match="xarray is not installed"):
        found.field("u").to_xarray()


def test_open_frames_is_the_file_of_xarray(runs):
    found = anyrank.open(runs / "a")
    with pytest.raises(UsageError, match=r"a has no frames\. Run the program with --frames"):
        _ = found.frames
    xarray.Dataset({"u": ("x", [1.0, 2.0])}).to_netcdf(runs / "a/frames.nc", engine="h5netcdf")
    with found.frames as frames:
        assert frames["u"].values.tolist() == [1, 2]


def test_open_run_without_a_summary_reads_the_newest_checkpoint(runs):
    """As of a run that was killed, or still runs."""
    shutil.copytree(runs / "a", runs / "live")
    for name in ("summary.json", "result.json"):
        (runs / "live" / name).unlink()
    path_of(runs / "live/checkpoints", 4).write_bytes(b"damaged")
    found = anyrank.open(runs / "live")
    assert not found.finished and found.summary["steps"] == 2 and found.result == {}
    assert found.fields["u"][0, 0] == 2.0 and found.parameters["n"] == 6 and "step 2" in repr(found)


def test_open_run_that_goes_on_after_a_stop_is_that_of_now(runs):
    """The summary is that of the stop; the checkpoints are newer."""
    before = (runs / "b/summary.json").read_text()
    anyrank.run(Wave(n=9), out=runs / "b", checkpoint_every=1)
    (runs / "b/summary.json").write_text(before)
    found = anyrank.open(runs / "b")
    assert found.summary["steps"] == 4 and found.fields["u"][0, 0] == 4.0 and not found.finished


def test_open_takes_the_checkpoint_that_replaced_a_listed_one(runs, monkeypatch):
    """Between the list of the files and the reading, the run writes a newer checkpoint and deletes the listed one."""
    folder, read, turns = runs / "b/checkpoints", checkpoint_format.read_header, iter([4, 5])

    def read_late(path: Path) -> checkpoint_format.Header:
        for step in turns:
            path.rename(path_of(folder, step))
            break
        return read(path)

    monkeypatch.setattr(checkpoint_format, "read_header", read_late)
    found = checkpoint_format.newest_valid(folder)
    assert found is not None and found[0] == path_of(folder, 5)


def test_newest_valid_ends_at_a_link_to_nothing(tmp_path):
    path_of(tmp_path, 3).symlink_to(tmp_path / "removed")
    assert checkpoint_format.newest_valid(tmp_path) is None


def test_open_while_the_run_writes_is_always_valid(tmp_path):
    """A reader beside a run that writes and deletes a checkpoint at every step."""
    thread = threading.Thread(target=lambda: anyrank.run(Wave(steps=150), out=tmp_path / "r", checkpoint_every=1))
    thread.start()
    seen = set()
    while thread.is_alive():
        if checkpoint_files(tmp_path / "r/checkpoints"):
            found = anyrank.open(tmp_path / "r")
            seen.add(found.summary["steps"])
    thread.join()
    assert len(seen) > 1 and anyrank.open(tmp_path / "r").finished
