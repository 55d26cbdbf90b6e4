"""groupby with nulls, no rows, long text or extremes in only one part of the table: the same answer on any ranks."""

from __future__ import annotations

import csv
import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from keyed.tables.samples import on_root
from mpi4py import MPI
from ranks import check_collective

from anyrank.keyed.programs.groupby import GroupBy
from anyrank.state import State
from anyrank.world import World

PARTS, ROWS = 6, 40
AGGREGATES = "count,count(x),sum(x),mean(x),min(x),max(x),var(y),min(n),max(n),mean(n),sum(small)"
TYPES = {"k": pa.int64(), "t": pa.string(), "x": pa.float64(), "y": pa.float64(), "n": pa.int64(), "small": pa.int64()}
FLOATS = [math.inf, -math.inf, math.nan, -0.0, 5e-324, 1.7e308, 1.7e308, -1.7e308]
WHOLE = [2**63 - 1, -(2**63), 2**53 + 1, 0]


def one_part(draw, rows, keys, odd):
    """Columns of some rows; an `odd` part has nulls, extremes and long text."""
    part = {
        "k": draw.integers(0, keys, rows).tolist(),
        "t": [f"w{n % 3}" for n in range(rows)],
        "x": (draw.standard_normal(rows) * 2.0 ** draw.integers(-60, 60, rows)).tolist(),
        "y": draw.standard_normal(rows).tolist(),
        "n": draw.integers(-9, 9, rows).tolist(),
        "small": draw.integers(-9, 9, rows).tolist(),
    }
    if odd:
        part["t"] = [text + "-long" * 60 * (n % 5 == 0) for n, text in enumerate(part["t"])]
        for name, values in (("x", FLOATS), ("n", WHOLE)):
            for place in draw.integers(0, rows, 5).tolist():
                part[name][place] = values[int(draw.integers(len(values)))]
        for name in ("k", "t", "x", "y", "n", "small"):
            for place in draw.integers(0, rows, 4).tolist():
                part[name][place] = None
    return part


def table(seed):
    """The parts of a table: one of them is odd, another has no rows; keys are many or few."""
    draw = np.random.default_rng(seed)
    odd, empty = draw.permutation(PARTS)[:2].tolist()
    keys = 10**6 if seed % 2 else 9
    return [one_part(draw, 0 if k == empty else ROWS, keys, k == odd) for k in range(PARTS)]


def write(folder, parts, suffix, files):
    """Write `files` files of some parts each; a part is a row group, whose schema is nullable if the part has nulls."""
    for number in range(files):
        mine = parts[number::files]
        path = folder / f"{number}.{suffix}"
        if suffix == "csv":
            rows = [row for part in mine for row in zip(*part.values(), strict=True)]
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([[*TYPES], *(["" if v is None else v for v in row] for row in rows)])
            continue
        fields = [
            pa.field(name, kind, nullable=any(None in part[name] for part in mine)) for name, kind in TYPES.items()
        ]
        schema = pa.schema(fields)
        with pa.parquet.ParquetWriter(path, schema) as writer:
            for part in mine:
                writer.write_table(pa.table(part, schema=schema))


def round_fraction(value):
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def total(x):
    """The sum, rounded once."""
    odd = [v for v in x if not math.isfinite(v)]
    return sum(odd) if odd else round_fraction(sum(map(Fraction, x)))


def mean(x):
    whole = total(x)
    return whole if any(not math.isfinite(v) for v in x) else round_fraction(sum(map(Fraction, x)) / len(x))


def extreme(x, largest):
    """The smallest or largest value; NaN if there is one, and −0 below +0."""
    if any(v != v for v in x):
        return math.nan
    return (max if largest else min)(x, key=lambda v: (v, math.copysign(1, v)))


def variance(y):
    middle = sum(map(Fraction, y)) / len(y)
    return float(sum((Fraction(v) - middle) ** 2 for v in y) / (len(y) - 1))


def expected(parts):
    """The result of plain Python, in the order of the keys, nulls last."""
    groups: dict = {}
    for part in parts:
        for k, t, *values in zip(*part.values(), strict=True):
            groups.setdefault((k, t), []).append(values)
    result = []
    for key in sorted(groups, key=lambda key: [(v is None, v) for v in key]):
        rows = groups[key]
        x, y, n, small = ([v for v in column if v is not None] for column in zip(*rows, strict=True))
        sums = [total(x), *((mean(x), extreme(x, False), extreme(x, True)) if x else (None,) * 3)]
        whole = (min(n), max(n), round_fraction(Fraction(sum(n), len(n)))) if n else (None,) * 3
        var = variance(y) if len(y) > 1 else None
        result.append([*key, len(rows), len(x), *sums, var, *whole, sum(small)])
    return result


def answer(world, folder, suffix):
    """The rows of the result, and the digest of the table from which they come."""
    state = State(world)
    groupby = GroupBy(table=str(folder / f"*.{suffix}"), by="k,t", aggregate=AGGREGATES, top=10**6)
    groupby.declare(state)
    while not groupby.done(state):
        groupby.step(state)
        state.step += 1
    return groupby.result(state)["first"], state.digest()


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_groupby_one_odd_part_gives_plain_pythons_answer(world, tmp_path, suffix, seed):
    parts, files = table(seed), 1 + seed % 3
    on_root(world, lambda: write(tmp_path, parts, suffix, files))
    rows, digest = answer(world, tmp_path, suffix)
    right = expected(parts)
    wrong = [(a, b) for a, b in zip(rows, right, strict=False) if repr(a) != repr(b)]
    check_collective(world, not wrong and len(rows) == len(right), f"{len(rows)} of {len(right)}: {wrong[:1]}")
    alone = World(MPI.COMM_SELF)
    check_collective(world, answer(alone, tmp_path, suffix)[1] == digest, "one digest")
    alone.close()
