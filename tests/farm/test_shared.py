"""Shared inputs are in memory once a node, read-only in every worker, and the same when a farm is resumed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import farm.work as work
import h5py
import numpy as np
import pytest
from farm.runs import WORK, digest, farm, rows_of, table
from mpi4py import MPI
from ranks import anyrank_command, check_collective, processes_of, run_anyrank, start_process

from anyrank import UsageError
from anyrank.farm.api import map as farm_map
from anyrank.farm.shared import SharedInputs, _attach, parse
from anyrank.world import World


@pytest.fixture
def grid(tmp_path) -> Path:
    np.save(tmp_path / "grid.npy", np.arange(100.0) ** 2)
    return tmp_path / "grid.npy"


@pytest.fixture
def alone():
    world = World(MPI.COMM_SELF)
    yield world
    world.close()


def memory_of_grids() -> list[str]:
    """The shared memory for which this process has a descriptor."""
    files = [str(link.resolve()) for link in Path("/proc/self/fd").iterdir()]
    return [file for file in files if "anyrank-farm-grid" in file]


def values(run: Path) -> list[str]:
    return [row["value"] for row in rows_of(run / "results.csv")]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_shared_is_in_memory_once_a_node_and_read_only(tmp_path, grid, ranks):
    words = (f"{WORK}:look", "--table", table(tmp_path, 60), "--shared", f"grid={grid}")
    farm(*words, out=tmp_path / "run", ranks=ranks)
    rows = rows_of(tmp_path / "run" / "results.csv")
    assert [row["value"] for row in rows] == [str(float(x) ** 2) for x in range(60)]
    assert len({row["worker"] for row in rows}) == ranks
    assert {(row["maps"], row["permissions"], row["writing"]) for row in rows} == {("1", "r--s", "refused")}
    assert len({row["inode"] for row in rows}) == 1


def test_shared_worker_that_died_is_replaced_by_one_with_it(tmp_path, grid):
    words = ("--table", table(tmp_path, 3), "--shared", f"grid={grid}", "--attempts", 2, "--backoff", 0.05)
    (tmp_path / "dies.py").write_text(
        f"import sys\nsys.path.append({str(WORK.parent)!r})\nimport work\n"
        f"def dies(x, grid):\n    return [work.dies_once(x, {str(tmp_path)!r}), grid[x]]\n"
    )
    farm(f"{tmp_path}/dies.py:dies", *words, out=tmp_path / "run", ranks=2)
    assert values(tmp_path / "run") == ["[2, 0.0]", "[2, 1.0]", "[2, 4.0]"]


@pytest.mark.parametrize(
    ("array", "source"),
    [
        (np.arange(6.0).reshape(2, 3), "a.npy"),
        (np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)), "a.npy"),
        (np.array(3 + 4j), "a.npy"),
        (np.zeros((0, 3), np.float32), "a.npy"),
        (np.array([(1, 2.5)], [("n", "i4"), ("x", "f8")]), "a.npy"),
        (np.array(["2026-11-30"], "M8[D]"), "a.npy"),
        (np.arange(6.0).reshape(2, 3), "a.h5:/group/a"),
        (np.zeros((0, 3), np.float32), "a.h5:/group/a"),
        (np.array(7), "a.h5:/group/a"),
        (np.array([True, False]), "a.h5:/group/a"),
        (np.array([(1, 2.5)], [("n", "i4"), ("x", "f8")]), "a.h5:/group/a"),
        (np.arange(6.0).reshape(2, 3)[:, ::2], "a.py:make"),
    ],
    ids=str,
)
def test_shared_array_is_that_of_the_source(tmp_path, array, source, alone):
    if source.endswith(".npy"):
        np.save(tmp_path / "a.npy", array)
    elif source.endswith(":make"):
        (tmp_path / "a.py").write_text("import numpy as np\nmake = lambda: np.arange(6.0).reshape(2, 3)[:, ::2]")
    else:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("group/a", data=array)
    [shared] = SharedInputs(parse([f"a={tmp_path / source}"]), tmp_path, alone).arrays
    found = shared.array()
    assert (found.dtype, found.shape) == (array.dtype, array.shape) and found.tobytes() == array.tobytes()
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        found.flags.writeable = True


def test_shared_memory_cannot_be_written_by_another_descriptor(grid, alone, tmp_path):
    [shared] = SharedInputs(parse([f"grid={grid}"]), tmp_path, alone).arrays
    descriptor = os.open(f"/proc/self/fd/{shared.descriptor}", os.O_RDWR)
    with pytest.raises(PermissionError):
        os.pwrite(descriptor, b"x", 0)
    assert len(memory_of_grids()) == 2
    os.close(descriptor)
    os.close(shared.descriptor)


def test_shared_function_is_called_once_a_node(tmp_path):
    (tmp_path / "setup.py").write_text(
        "import numpy as np\ndef load():\n"
        f"    with open({str(tmp_path / 'calls')!r}, 'a') as file:\n        file.write('called ')\n"
        "    return np.arange(10.0)\n"
    )
    words = (f"{WORK}:look", "--table", table(tmp_path, 10), "--shared", f"grid={tmp_path}/setup.py:load")
    farm(*words, out=tmp_path / "run", ranks=3)
    assert (tmp_path / "calls").read_text() == "called "
    assert values(tmp_path / "run") == [str(float(x)) for x in range(10)]


@pytest.mark.parametrize("function", ["look_slowly", "look_async"])
def test_shared_with_concurrency(tmp_path, grid, function):
    words = ("--table", table(tmp_path, 8), "--shared", f"grid={grid}", "--concurrency", 4)
    farm(f"{WORK}:{function}", *words, out=tmp_path / "run", ranks=2)
    assert values(tmp_path / "run") == [str(float(x) ** 2) for x in range(8)]


def test_shared_does_not_count_as_memory_of_a_task(tmp_path):
    np.save(tmp_path / "big.npy", np.ones(40_000_000))
    words = ("--table", table(tmp_path, 2), "--shared", f"grid={tmp_path}/big.npy", "--task-memory", 250)
    farm(f"{WORK}:add_slowly", *words, out=tmp_path / "run", ranks=2)
    assert values(tmp_path / "run") == ["40000000.0"] * 2


def test_shared_farm_killed_and_resumed_gives_the_same_results(tmp_path, grid):
    words = ("farm", f"{WORK}:look_slowly", "--table", table(tmp_path, 100), "--shared", f"grid={grid}", "--quiet")
    assert run_anyrank(*words, "--out", tmp_path / "whole", ranks=1).returncode == 0
    run = tmp_path / "run"
    with start_process(*anyrank_command(*words, "--out", run, ranks=2)) as process:
        until = time.monotonic() + 60
        while sum(file.stat().st_size for file in run.glob("records/*")) < 500:
            assert time.monotonic() < until
            time.sleep(0.02)
        for rank, command in processes_of(process).items():
            if "anyrank.farm.start" not in command:
                os.kill(rank, signal.SIGKILL)
        process.wait(60)
        while processes_of(process):  # workers end with their ranks, and the memory with the last of them
            assert time.monotonic() < until
            time.sleep(0.02)
    kept = grid.read_bytes()
    np.save(grid, np.arange(100.0))
    done = run_anyrank("resume", run, ranks=2)
    assert done.returncode == 2 and "the run began with float64 (100,)" in done.stderr
    assert done.stderr.count("anyrank:") == 1 and not (run / "results.csv").exists()
    grid.write_bytes(kept)
    assert run_anyrank("resume", run, ranks=3).returncode == 0
    assert (run / "results.csv").read_bytes() == (tmp_path / "whole" / "results.csv").read_bytes()
    assert digest(run) == digest(tmp_path / "whole")


SETUP = """
import sys
import numpy as np
def raises():
    raise ValueError("no model")
def exits():
    sys.exit("no model")
def number():
    return 3
def masked():
    return np.ma.masked_equal([1, 2], 2)
"""
BAD = {
    "no file": ("grid=missing.npy", "grid=/", "No such file"),
    "damaged file": ("grid=short.npy", "cannot be read"),
    "no dataset": ("grid=data.h5:/missing", "cannot be read", "missing"),
    "group": ("grid=data.h5:/group", "is a group"),
    "texts": ("grid=data.h5:/texts", "the dtype is object"),
    "objects": ("grid=objects.npy", "cannot be read", "objects"),
    "no function": ("grid=setup.py:missing", "has no function 'missing'"),
    "raises": ("grid=setup.py:raises", "the function raised", "ValueError: no model"),
    "exits": ("grid=setup.py:exits", "the function raised", "SystemExit: no model"),
    "number": ("grid=setup.py:number", "returned int, not a NumPy array"),
    "masked": ("grid=setup.py:masked", "returned MaskedArray"),
    "twice": ("grid=good.npy,grid=good.npy", "--shared grid is given twice"),
    "no source": ("grid=good.txt", "write NAME=FILE.npy"),
    "no name": ("good.npy", "write NAME=FILE.npy"),
    "no parameter": ("grip=good.npy", "--shared grip is not a parameter of look", "grid, x"),
    "column": ("grid=good.npy,x=good.npy", "--shared x is a column"),
}


@pytest.fixture
def sources(tmp_path):
    """A folder with the files that BAD names."""
    (tmp_path / "setup.py").write_text(SETUP)
    np.save(tmp_path / "good.npy", np.arange(3.0))
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    (tmp_path / "short.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:-9])
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_group("group")
        file["texts"] = ["a", "bc"]
    return tmp_path


@pytest.mark.parametrize("name", [*BAD][:-2])
def test_shared_source_that_cannot_be_used_is_refused(sources, name, alone, monkeypatch):
    monkeypatch.chdir(sources)
    shared, *messages = BAD[name]
    with pytest.raises(UsageError) as error:
        SharedInputs(parse(shared.split(",")), sources, alone)
    assert all(message in str(error.value) for message in messages), error.value
    assert not memory_of_grids()


@pytest.mark.parametrize("name", ["no file", "raises", "no name", "no parameter", "column"])
def test_shared_bad_input_is_one_error(sources, tmp_path, name):
    shared, *messages = BAD[name]
    words = ("farm", f"{WORK}:look", "--table", table(tmp_path, 3), "--shared", shared, "--out", tmp_path / "run")
    done = run_anyrank(*words, "--quiet", ranks=2, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("anyrank:") == 1, done.stderr
    assert all(message in done.stderr for message in messages), done.stderr
    assert not [*(tmp_path / "run").glob("records/records-*")]


@pytest.mark.parametrize("words", [("--command", "echo {x}"), ("--program", "pi")])
def test_shared_is_for_functions_only(tmp_path, grid, words, in_process):
    words = ("farm", *words, "--table", table(tmp_path, 3), "--shared", f"grid={grid}", "--out", tmp_path / "run")
    done = in_process(*words)
    assert done.returncode == 2 and f"--shared grid={grid} is for parameters of a function only" in done.stderr


@pytest.mark.ranks(1, 2, 3)
def test_shared_is_written_by_one_rank_of_a_node(world, tmp_path, monkeypatch):
    if world.rank == 0:
        np.save(tmp_path / "a.npy", np.arange(5))
    world.barrier()
    inputs = SharedInputs(parse([f"a={tmp_path}/a.npy"]), tmp_path, world)
    [shared] = inputs.arrays
    assert os.fstat(shared.descriptor).st_ino == shared.inode
    check_collective(world, len(set(world.comm.allgather(shared.inode))) == 1)
    inputs.close()
    inputs.close()
    check_collective(world, inputs.arrays == ())


@pytest.mark.ranks(2)
def test_shared_that_differs_between_nodes_is_refused(world, tmp_path, monkeypatch):
    node = world.comm.Split(world.rank)  # each rank is a node of its own
    monkeypatch.setitem(world.__dict__, "_node", node)
    (tmp_path / f"a{world.rank}.py").write_text(f"import numpy as np\ndef f():\n    return np.arange({5 + world.rank})")
    with pytest.raises(UsageError, match=r"int64 \(6,\).* but the run began with int64 \(5,\)"):
        SharedInputs({"a": f"{tmp_path}/a{world.rank}.py:f"}, tmp_path, world)
    (tmp_path / "shared.json").unlink(missing_ok=True)
    world.barrier()
    [shared] = SharedInputs({"a": f"{tmp_path}/a0.py:f"}, tmp_path, world).arrays
    check_collective(world, len(set(world.comm.allgather(shared.inode))) == 2)
    monkeypatch.undo()
    node.Free()


def test_shared_memory_of_another_process_is_one_error(tmp_path, grid, alone):
    inputs = SharedInputs(parse([f"grid={grid}"]), tmp_path, alone)
    [shared] = inputs.arrays
    for wrong in (shared._replace(process=2**30), shared._replace(inode=1)):
        with pytest.raises(UsageError, match="must see each other's processes"):
            _attach(wrong)
    inputs.close()


@pytest.mark.parametrize("ranks", [1, 2])
def test_map_gives_shared_arrays_to_parameters(tmp_path, ranks):
    grid = np.arange(10.0)
    options = {"ranks": ranks, "shared": {"grid": grid}, "out": tmp_path / "run"}
    assert [row["value"] for row in farm_map(work.look, range(10), **options)] == grid.tolist()
    assert not memory_of_grids()
    assert [row["value"] for row in farm_map(work.look, range(10), **options)] == grid.tolist()
    with pytest.raises(UsageError, match="'grid' is a parameter for the inputs"):
        farm_map(work.look, range(10), range(10), ranks=ranks, shared={"grid": grid})
    with pytest.raises(UsageError, match="--shared grip is not a parameter of look"):
        farm_map(work.look, range(10), shared={"grip": grid})
    options["shared"] = {"grid": grid + 1}
    with pytest.raises(UsageError, match="the array 'grid' is not the one that the run began with"):
        farm_map(work.look, range(10), **options)
