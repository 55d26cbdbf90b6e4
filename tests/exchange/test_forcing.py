"""Forcing: values of files, interpolated in time, the same on all ranks and after a resume."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray
from ranks import check_collective, run_anyrank

from anyrank import AnyrankError, State, UsageError
from anyrank.exchange import forcing as module
from anyrank.runtime.python import Run

TIMES = np.array([0.0, 1.0, 2.5, 4.0, 8.0])
SHAPE = (6, 7)
WHOLE = np.random.default_rng(4).standard_normal((len(TIMES), *SHAPE))
SUN = np.array([1.0, 0.5, 0.25, 0.125, 2.0])
FILE = Path(__file__).with_name("forced.py")


def write_netcdf(path: Path, times=TIMES, whole=WHOLE, dims=("time", "y", "x")) -> None:
    variables = {"q": (dims, whole[: len(times)]), "sun": ("time", SUN[: len(times)])}
    xarray.Dataset(variables, {"time": times}).to_netcdf(path, engine="h5netcdf")


@pytest.fixture
def folder(world, tmp_path):
    """Files in all formats, written by rank 0."""
    if world.rank == 0:
        write_netcdf(tmp_path / "q.nc")
        np.save(tmp_path / "q.npy", WHOLE)
        with h5py.File(tmp_path / "q.h5", "w") as file:
            file["air/q"], file["clock"] = WHOLE, TIMES
            file["late"], file["two"], file["back"] = TIMES + 1, TIMES[:2], TIMES[::-1]
            file["hole"], file["dark"] = WHOLE, SUN
            file["hole"][2, 5, 6] = np.nan
            file["dark"][1] = np.nan
            file["whole"] = WHOLE.astype("i4")
            file["short"] = WHOLE[:, :, :5]
        write_netcdf(tmp_path / "turned.nc", dims=("time", "x", "y"), whole=np.zeros((5, 6, 6)))
    world.barrier()
    return tmp_path


def expected(time: float, whole=WHOLE) -> np.ndarray:
    """The definition in the docstring of `Forcing.at`."""
    k = max(k for k in range(len(TIMES) - 1) if TIMES[k] <= time)
    w = float((time - TIMES[k]) / (TIMES[k + 1] - TIMES[k]))
    return whole[k] if w == 0 else whole[k + 1] if w == 1 else whole[k] * (1 - w) + whole[k + 1] * w


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize(
    ("file", "name", "times"), [("q.nc", "q", None), ("q.npy", "q", TIMES), ("q.h5", "air/q", "clock")]
)
def test_forcing_is_interpolated_in_any_order_of_times(world, folder, file, name, times):
    state = State(world, "bricks")
    u = state.field("u", SHAPE, dims=("y", "x"))
    state.forcing(folder / file, name, like=u, times=times)
    for time in (0.0, 0.3, 1.0, 1.7, 2.2, 2.5, 6.0, 7.9, 8.0, 0.1, 3.9, 8.0):
        u[...] = state.q.at(time)
        check_collective(world, u.allgather().tobytes() == expected(time).tobytes(), f"{time}")
    assert state.q.kinds() == {} and state.stored().keys() == {"u"} and state.q.times.tolist() == TIMES.tolist()


@pytest.mark.ranks(1, 2)
def test_forcing_of_numbers_and_of_another_type(world, folder):
    state = State(world)
    sun = state.forcing(folder / "q.nc", "sun")
    assert [sun.at(t) for t in (0.0, 0.5, 8.0)] == [1.0, 0.75, 2.0] and isinstance(sun.at(1.0), float)
    u = state.field("u", SHAPE, "f4", dims=("y", "x"))
    found = state.forcing(folder / "q.nc", "q", like=u).at(0.3)
    assert found.dtype == np.float32 and found.tobytes() == expected(0.3, WHOLE.astype("f4"))[u.layout.slices].tobytes()


@pytest.mark.ranks(1, 3)
@pytest.mark.parametrize(
    ("file", "name", "more", "message"),
    [
        ("none.nc", "q", {}, "none.nc cannot be read: No such file"),
        ("q.nc", "p", {}, "has no dataset 'p'"),
        ("q.h5", "air/q", {}, r"forcing q: the times must be finite numbers that increase, one for each of the \(5,\)"),
        ("q.h5", "air/q", {"times": "two"}, "the times must be finite"),
        ("q.h5", "air/q", {"times": "back"}, "the times must be finite"),
        ("q.npy", "q", {"times": [0, 1, 2, 3, np.nan]}, "the times must be finite"),
        ("q.nc", "q", {"like": None}, r"has values of the shape \(6, 7\) at each time. Give like=FIELD"),
        ("q.nc", "sun", {}, r"field u: its shape is \(5, 6, 7\), and that of the array in .*q.nc is \(5,\)"),
        ("q.h5", "short", {"times": "clock"}, r"is \(5, 6, 5\)\. They must be equal"),
        ("q.nc", "q", {"until": 8.5}, "ends at the time 8.0, and the run needs it until 8.5. Give a longer file"),
    ],
)
def test_forcing_that_does_not_fit_is_refused(world, folder, file, name, more, message):
    state = State(world)
    u = state.field("u", SHAPE, dims=("y", "x"))
    with pytest.raises(UsageError, match=message) as refusal:
        state.forcing(folder / file, name, **{"like": u, **more})
    check_collective(world, refusal.value.collective)


@pytest.mark.ranks(1)
def test_forcing_of_axes_in_another_order_or_of_integers(world, folder):
    state = State(world)
    u, k = state.field("u", (6, 6), dims=("y", "x")), state.field("k", SHAPE, "i4")
    with pytest.raises(
        UsageError, match=r"its axes are time, y, x, and those of the array in .* time, x, y\. Transpose"
    ):
        state.forcing(folder / "turned.nc", "q", like=u)
    with pytest.raises(UsageError, match="the type int32 cannot be interpolated"):
        state.forcing(folder / "q.h5", "whole", like=k, times="clock")


@pytest.mark.ranks(1, 3)
def test_forcing_missing_values_and_times_outside_are_errors(world, folder):
    state = State(world)
    u = state.field("u", SHAPE)
    hole, dark = (
        state.forcing(folder / "q.h5", "hole", like=u, times="clock"),
        state.forcing(folder / "q.h5", "dark", times="clock"),
    )
    assert hole.at(0.5) is not None
    for call, message in (
        (lambda: hole.at(1.5), "forcing hole at the time 2.5: .*q.h5 has 1 missing values"),
        (lambda: dark.at(1.0), "forcing dark at the time 1.0: .*q.h5 has 1 missing values"),
        (lambda: hole.at(9.0), "has the times 0.0 to 8.0, and the program asks for 9.0"),
        (lambda: hole.at(-0.1), "asks for -0.1"),
        (lambda: hole.at(np.nan), "asks for nan"),
    ):
        with pytest.raises(AnyrankError, match=message) as error:
            call()
        check_collective(world, error.value.collective)


@pytest.mark.ranks(2, 3)
def test_forcing_that_one_rank_cannot_read_is_one_error(world, folder, monkeypatch):
    state = State(world)
    u = state.field("u", SHAPE)
    with pytest.raises(UsageError, match=r"gone.nc cannot be read: No such file"):
        state.forcing(folder / ("gone.nc" if world.rank == world.size - 1 else "q.nc"), "q", like=u)
    q = state.forcing(folder / "q.nc", "q", like=u)
    q.at(0.0)
    if world.rank == world.size - 1:  # the next values, which a thread reads
        q._reading._thread.join()
        monkeypatch.setattr(q._reading, "_error", OSError(5, "Input/output error"))
    with pytest.raises(UsageError, match=r"q\.nc cannot be read: Input/output error"):
        q.at(1.0)


@pytest.mark.ranks(1)
def test_forcing_reads_ahead_in_a_thread(world, folder, monkeypatch):
    read = []

    class Recorded(module._Reading):
        def __init__(self, index, call):
            read.append(index)
            super().__init__(index, call)

    monkeypatch.setattr(module, "_Reading", Recorded)
    state = State(world)
    q = state.forcing(folder / "q.nc", "q", like=state.field("u", SHAPE))
    for time in np.linspace(0, 8, 33):
        q.at(time)
        assert len(q._blocks) <= 2
    assert read == [1, 2, 3, 4]


@pytest.mark.ranks(1, 2)
def test_forcing_and_read_of_zarr(world, tmp_path):
    zarr = pytest.importorskip("zarr")
    if world.rank == 0:
        store = zarr.open_group(tmp_path / "q.zarr", mode="w")
        store.create_array("q", data=WHOLE, chunks=(1, 4, 4), dimension_names=("time", "y", "x"))
        store.create_array("time", data=TIMES, dimension_names=("time",))
        store.create_array("u", data=WHOLE[0])
    world.barrier()
    state = State(world)
    u = state.field("u", SHAPE, dims=("y", "x"))
    u.read(tmp_path / "q.zarr")
    assert np.array_equal(u.allgather(), WHOLE[0])
    u[...] = state.forcing(tmp_path / "q.zarr", "q", like=u).at(1.7)
    assert np.array_equal(u.allgather(), expected(1.7))
    with pytest.raises(
        UsageError, match=r"has no dataset 'p'\. Use name=… for one of its 3: q, time, u|has no dataset"
    ):
        u.read(tmp_path / "q.zarr", "p")


@pytest.mark.ranks(1, 2)
def test_read_of_zarr_without_the_package_names_it(world, tmp_path, monkeypatch):
    (tmp_path / "zarr.json").write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(UsageError, match=r"is a store of zarr, and zarr is not installed\. Install it"):
        State(world).field("u", SHAPE).read(tmp_path)


def test_forced_run_has_one_digest_on_ranks_and_after_resumes(tmp_path):
    write_netcdf(tmp_path / "heating.nc")
    xarray.Dataset({"T": (("y", "x"), WHOLE[0])}).to_netcdf(tmp_path / "start.nc", engine="h5netcdf")
    words = ("run", FILE, "--out")
    digests = set()
    for ranks in (1, 2, 3):
        done = run_anyrank(*words, f"r{ranks}", ranks=ranks, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        digests.add(Run(tmp_path / f"r{ranks}").digest)
    assert run_anyrank(*words, "s", "--stop-at", 3, ranks=2, cwd=tmp_path).returncode == 75
    assert run_anyrank("resume", "s", "--stop-at", 5, ranks=3, cwd=tmp_path).returncode == 75
    assert run_anyrank("resume", "s", cwd=tmp_path).returncode == 0
    digests.add(Run(tmp_path / "s").digest)
    T = WHOLE[0].copy()
    for step in range(8):
        sun = float(expected(0.75 * step, SUN))
        T += 0.75 * expected(0.75 * step) * sun
    assert len(digests) == 1 and Run(tmp_path / "s").fields["T"].tobytes() == T.tobytes()
    done = run_anyrank(*words, "long", "--steps", 11, ranks=2, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("ends at the time 8.0, and the run needs it until 8.25") == 1
    assert not (tmp_path / "long").exists()
    done = run_anyrank(*words, "late", "--steps", 13, "--no-check-end", ranks=2, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("and the program asks for 8.25") == 1
    write_netcdf(tmp_path / "heating.nc", whole=WHOLE + 1)
    assert run_anyrank(*words, "t", "--stop-at", 3, cwd=tmp_path).returncode == 75
    write_netcdf(tmp_path / "heating.nc")
    done = run_anyrank("resume", "t", cwd=tmp_path)
    assert done.returncode == 2 and "heating.nc has changed since the run began" in done.stderr
