"""Agreement of ranks: random tables in any format, on any rank, give one digest and the answer of plain Python."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from keyed.tables.samples import on_root
from mpi4py import MPI
from ranks import check_collective

from anyrank import State
from anyrank.keyed.programs.groupby import GroupBy
from anyrank.world import World

CASES = 6
#: Values that one rank may see and another not: nulls, extremes, zeros of both signs, empty text.
INTEGERS = [None, None, 0, 1, -1, 7, 2**63 - 1, -(2**63)]
FLOATS = [None, 0.0, -0.0, 0.1, 1e300, -1e300, 1e-300, 5e-324]
WORDS = [None, "", "a", "b", "é", "a,b", 'q"q', "line\nend", "x" * 300]


def table_of(random, suffix):
    """A random table: a key of text, an integer and a float; the null rows are together or spread."""
    rows = random.choice((0, 1, 2, 5, 60))
    word = [random.choice(WORDS[random.randrange(3) :]) for _ in range(rows)]
    integer = [random.choice(INTEGERS[random.randrange(4) :]) for _ in range(rows)]
    number = [random.choice(FLOATS[random.randrange(3) :]) for _ in range(rows)]
    if random.random() < 0.3:  # all nulls at the end, so that only the last rank has them
        integer.sort(key=lambda value: value is None)
    if suffix == "h5":  # HDF5 has no nulls
        word, integer, number = ([v for v in c if v is not None] for c in (word, integer, number))
        rows = min(map(len, (word, integer, number)))
        word, integer, number = word[:rows], integer[:rows], number[:rows]
    return word, integer, number


def write(path, table, random):
    word, integer, number = table
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["k"] = np.array(word, object) if word else np.array([], "S1")
            file["i"], file["f"] = np.array(integer, np.int64), np.array(number, np.float64)
        return
    columns = {
        "k": pa.array(word, pa.string()),
        "i": pa.array(integer, pa.int64()),
        "f": pa.array(number, pa.float64()),
    }
    if path.suffix == ".csv":
        pa.csv.write_csv(pa.table(columns), path)
    else:
        pa.parquet.write_table(pa.table(columns), path, row_group_size=random.choice((1, 3, 100)))


def answer(tables, empty_is_null):
    """Count, sums, minimum and maximum by key, computed exactly and rounded once."""
    groups = {}
    for table in tables:
        for word, integer, number in zip(*table, strict=True):
            key = None if word == "" and empty_is_null else word
            groups.setdefault(key, []).append((integer, number))
    result = {}
    for key, rows in groups.items():
        integers, numbers = ([row[k] for row in rows if row[k] is not None] for k in (0, 1))
        exact = sum(map(Fraction, numbers), Fraction(0))
        result[key] = (
            len(rows),
            sum(integers),
            float(exact) if abs(exact) < Fraction(2) ** 1024 else math.copysign(math.inf, exact),
            min(integers, default=None),
            max(integers, default=None),
        )
    return result


def run(world, folder):
    """The digest and the groups of a group by, in one or two steps."""
    program = GroupBy(
        table=str(folder),
        by="k",
        aggregate="count,sum(i),sum(f),min(i),max(i)",
        types="k=text,i=int64,f=float64" if any(folder.glob("*.csv")) else "",
        chunk=1 << 9,
    )
    state = State(world)
    program.declare(state)
    state.allocate()
    while state.step < program.steps:
        program.step(state)
        state.step += 1
    digest = state.digest()
    program.top = 1000
    return digest, program.result(state)["first"]


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("first", [0, *(pytest.param(100 * k, marks=pytest.mark.slow) for k in range(1, 6))])
def test_agreement_random_tables_give_the_answer_of_python(world, tmp_path, first):
    alone = World(MPI.COMM_SELF)
    for case in range(first, first + CASES):
        random = Random(case)
        suffix = random.choice(("csv", "parquet", "h5"))
        folder = tmp_path / f"{case}"
        tables = [table_of(random, suffix) for _ in range(random.choice((1, 2, 4)))]

        def make(folder=folder, tables=tables, suffix=suffix, random=random):
            folder.mkdir()
            for k, table in enumerate(tables):
                write(folder / f"{k}.{suffix}", table, random)

        on_root(world, make)
        digest, groups = run(world, folder)
        check_collective(world, (digest, groups) == run(alone, folder), f"case {case}: the digest of one rank differs")
        got = {row[0]: tuple(row[1:]) for row in groups}
        check_collective(world, got == answer(tables, suffix == "csv"), f"case {case} ({suffix}): {got}")
