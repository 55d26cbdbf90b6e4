"""Results have the same bytes however their tasks are divided into blocks and among ranks."""

from __future__ import annotations

import base64
import datetime
import json
import math
import pickle
import random
import sys
import tracemalloc
from collections import Counter
from decimal import Decimal
from hashlib import blake2b
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from mpi4py import MPI
from ranks import check_collective

from anyrank import AnyrankError, World
from anyrank.farm import results
from anyrank.farm.columns import array_of, plain, plain_column
from anyrank.farm.journal import Records
from anyrank.farm.tasks import DIED, DONE, Outcome, Record
from anyrank.farm.tasks import FAILED as FAILURE

TASKS = 40
FORMATS = ("csv", "jsonl", "hdf5", "parquet")


def mixed(task):
    """Mappings with names that only some tasks have, beside other values."""
    if task % 7 == 3:
        return [task, None]
    row = {"n": task, "half": task / 2, "status": f"“{task}”", "x": task % 2 == 0}
    return row | ({"late": "x\ud800"} if task > 30 else {}) | ({"big": 2**70 - task} if task == 37 else {})


#: The values of tasks, and the digest and the hash of CSV and JSON lines, from when the results had one block.
CASES = {
    "numbers": (lambda task: task if task < 35 else task / 4, "85b1abdfcf156cb7", "b1ffadef62258b97"),
    "large": (lambda task: 2**60 if task == 39 else task, "9454e43922312f61", "e704a657e904dc21"),
    "mixed": (mixed, "1aed73588cc14af5", "7d8eb2b882e7adb7"),
    "mappings": (
        lambda task: {"task": task, f"v{task % 3}": None if task % 5 else 1.5},
        "28e9e608c65ce9f3",
        "b34a8de6abbc7a60",
    ),
    "counts": (lambda task: Counter("abca"[: task % 5]), "76913a3242ca9850", "818e082410e6e293"),
    "bool": (lambda task: task % 3 == 0, "531449e567997b87", "05c8d837c3b816d4"),
    "empty": (lambda task: {}, "96296bd59f0d958e", "ea0a46a00e460fd8"),
}


def write_records(folder, world, value, failed, tasks=TASKS) -> Records:
    """Records in any order, of which some are replaced; tasks of `failed` fail."""
    records, order = Records(folder, world), [*range(tasks)]
    random.Random(world.rank).shuffle(order)
    for task in order:
        if task % world.size != world.rank:
            continue
        ends = [(FAILURE, Outcome(error="at first"))] * (task % 4 == 0)
        ends += (
            [(DIED, Outcome(None, f"out {task}", f"why {task}"))] if task in failed else [(DONE, Outcome(value(task)))]
        )
        ends += [(FAILURE, Outcome(error="too late"))] * (task % 6 == 0 and task not in failed)
        for attempt, (status, outcome) in enumerate(ends, 1):
            records.write(Record(task, attempt, status, 1e9 + task, 0.25 * task, outcome.encode()).encode())
    records.close()
    return records


def write_results(folder, records, world, tasks=TASKS, **sizes):
    inputs = SimpleNamespace(rows=tasks, columns=["x", "value"], rows_of=rows_of)
    with pytest.MonkeyPatch.context() as patch:
        for name, size in sizes.items():
            patch.setattr(results, name, size)
        found = results.Results(records, world, inputs, "x")
        folder.mkdir(exist_ok=True)
        found.write(folder, FORMATS)
        return found.totals()


def rows_of(tasks):
    return [{"x": f"t{task}", "value": task * 10 if task < 20 else "ten"} for task in tasks]


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def text_hash(folder):
    texts = [(folder / f"results.{name}").read_bytes() for name in ("csv", "jsonl")]
    return blake2b(b"".join(texts), digest_size=8).hexdigest()


SOME = (0, 5, 17, 39)
#: The tasks that fail, beside those of CASES with SOME.
OTHERS = [("mappings", range(20)), ("empty", range(TASKS)), ("mixed", ()), ("numbers", range(TASKS))]


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize(("case", "failed"), [*((case, SOME) for case in CASES), *OTHERS])
def test_results_in_blocks_have_the_same_bytes(world, tmp_path, case, failed):
    records = write_records(tmp_path / "records", world, CASES[case][0], failed)
    world.barrier()
    totals = write_results(tmp_path / "blocks", records, world, BLOCK_TASKS=5)
    check_whole(world, tmp_path, totals)


@pytest.mark.ranks(2)
def test_results_of_large_records_are_read_one_by_one(world, tmp_path):
    records = write_records(tmp_path / "records", world, mixed, SOME)
    world.barrier()
    totals = write_results(tmp_path / "blocks", records, world, BLOCK_BYTES=1)
    check_whole(world, tmp_path, totals)


def check_whole(world, folder, totals):
    """Check that files and totals are those of one rank with one block. Collective."""
    same = True
    if world.rank == 0:
        alone = World(MPI.COMM_SELF)
        same = totals == write_results(folder / "whole", Records(folder / "records", alone), alone)
        whole = contents(folder / "whole")
        same = same and len(whole) == 5 and whole == contents(folder / "blocks")
    check_collective(world, same)


@pytest.mark.parametrize("case", CASES)
def test_results_keep_their_texts_and_digests(tmp_path, case):
    value, digest, texts = CASES[case]
    world = World(MPI.COMM_SELF)
    records = write_records(tmp_path / "records", world, value, SOME)
    totals = write_results(tmp_path / "results", records, world)
    assert (f"{totals.digest:016x}", text_hash(tmp_path / "results")) == (digest, texts)
    assert totals.by_status[DONE] == 36 and totals.first_errors == [f"task t{k} died: why {k}" for k in SOME[:3]]


def test_results_in_blocks_need_the_memory_of_a_block(tmp_path):
    world, peaks = World(MPI.COMM_SELF), []
    records = write_records(tmp_path / "records", world, lambda task: {"a": task, "b": "x" * 100}, (), 10_000)
    write_results(tmp_path / "once", records, world, 10_000)  # imports
    for size in (200, 10_000):
        tracemalloc.start()
        write_results(tmp_path / "results", records, world, 10_000, BLOCK_TASKS=size)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert 3 * peaks[0] < peaks[1]


def test_results_of_a_value_that_cannot_be_read_say_so(tmp_path):
    world = World(MPI.COMM_SELF)
    records = write_records(tmp_path / "records", world, lambda task: task, ())
    Records(tmp_path / "records", world).write(Record(1, 9, DONE, 0.0, 0.0, b"no pickle").encode())
    write_results(tmp_path / "results", records, world)
    lines = (tmp_path / "results" / "results.csv").read_text().splitlines()
    assert '1,t1,t1,10,done,"cannot be read back: UnpicklingError' in lines[2] and lines[3] == "2,t2,t2,20,done,2"


@pytest.mark.ranks(1, 2)
def test_results_of_a_task_without_record_are_refused(world, tmp_path):
    records = Records(tmp_path / "records", world)
    if world.rank == 0:
        records.write(Record(0, 1, DONE, 0.0, 0.0, Outcome(1).encode()).encode())
    records.close()
    world.barrier()
    with pytest.raises(AnyrankError, match="task 1 has no record"):
        write_results(tmp_path, records, world)


def test_results_of_values_that_json_refuses_say_so():
    cyclic = [1]
    cyclic.append(cyclic)
    column = plain_column([cyclic, datetime.date, np.longdouble(1), 5, RaisesAtPickle()])
    assert column[0].startswith("cannot be written: RecursionError")
    assert column[1].startswith("cannot be written: TypeError")
    assert column[2].keys() == {"pickle"} and column[3] == 5 and column[4] == "cannot be written: SystemExit: no"


class RaisesAtPickle:
    def __reduce__(self):
        raise SystemExit("no")


class RaisesAtLoad:
    def __reduce__(self):
        return sys.exit, ("not here",)


#: Values of which each ended the farm when its results were written.
ODD = [10**5000, -(10**5000), {"\ud800": 1}, {"a/b": 1, "a_b": 2, "": 3, ".": 4, "x\0": 5}, RaisesAtLoad(), 7]


@pytest.mark.ranks(1, 2)
def test_results_of_odd_values_and_names_are_written(world, tmp_path):
    records = write_records(tmp_path / "records", world, lambda task: ODD[task % len(ODD)], ())
    world.barrier()
    totals = write_results(tmp_path / "blocks", records, world, BLOCK_TASKS=5)
    check_whole(world, tmp_path, totals)
    rows = [json.loads(line) for line in (tmp_path / "blocks" / "results.jsonl").read_text().splitlines()]
    assert pickle.loads(base64.b64decode(rows[1]["value"]["pickle"])) == -(10**5000) and rows[5]["value"] == 7
    assert rows[2]["\\ud800"] == 1 and rows[4]["value"] == "cannot be read back: SystemExit: not here"
    with h5py.File(tmp_path / "blocks" / "results.h5") as file:
        assert {*file} >= {"a_b", "a_b_", "_", "__", "x_"} and file["a_b"][3] == 2 and file["a_b_"][3] == 1


def test_results_of_numpy_numbers_are_numbers():
    column = plain_column([np.float64(0.5), np.int32(2), np.float32(0.25), np.bool_(True)])
    assert [type(value) for value in column] == [float, int, float, bool] and column == [0.5, 2, 0.25, True]
    assert str(array_of(plain_column([np.float64(0.5), np.nan]), {"float"}).type) == "double"


def test_results_of_sets_are_sorted_lists():
    class Text(str):
        """A text whose place in a set is that of its length, as another seed of the hashes may have it."""

        __slots__ = ()
        __hash__ = lambda self: len(self)  # noqa: E731

    orders = [{Text("b"), Text("aa")}, {(1, "x"), (1, 2), (10,), (2,)}, {frozenset({3, 1}), 2.5, None, "x", 1}]
    expected = [["aa", "b"], [[1, 2], [1, "x"], [2], [10]], [1, 2.5, "x", [1, 3], None]]
    assert plain_column(orders) == expected
    assert plain({math.nan, 1.0, 2.0, math.inf}) == [1.0, 2.0, "inf", "nan"]
    assert plain_column([{math.nan, 2.0, 1.0}])[0][:2] == [1.0, 2.0]


@pytest.mark.ranks(1, 3)
def test_results_keep_all_columns_of_equal_names(world, tmp_path):
    columns = ["id", "input_id", "x", "result_x"]
    inputs = SimpleNamespace(rows=3, columns=columns, rows_of=lambda tasks: [dict.fromkeys(columns, 1)] * len(tasks))
    value = {"x": 2, "result_x": 3, "id": 4, "result_id": 5, "y": 6}
    records = write_records(tmp_path / "records", world, lambda task: value, (), 3)
    world.barrier()
    results.Results(records, world, inputs).write(tmp_path, ("csv",))
    names, row = [line.split(",") for line in (tmp_path / "results.csv").read_text().splitlines()[:2]]
    expected = ["task", "id", "input_id", "input_input_id", "x", "result_x", "status", "result_result_x"]
    expected += ["result_result_result_x", "result_id", "result_result_id", "y"]
    assert names == expected and row == [*"0011", "1", "1", "done", *"23456"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1 + 2j, "1+2j"),
        (np.complex64(1 - 0.5j), "1-0.5j"),
        (complex(np.nan, np.inf), "nan+infj"),
        (np.array([1j, 2]), ["1j", "2+0j"]),
        (Decimal("1.10"), "1.10"),
        (np.datetime64("2026-12-01T02:03:04.5"), "2026-12-01T02:03:04.500"),
        (np.array(["2026-12-01", "NaT"], "M8[D]"), ["2026-12-01", "NaT"]),
    ],
)
def test_plain_complex_decimals_and_dates_are_texts(value, expected):
    assert plain(value) == expected and plain({"a": [value]}) == {"a": [expected]}
    assert type(plain(value)) in (str, list)
    if isinstance(value, complex) and value == value:
        assert complex(expected) == value
