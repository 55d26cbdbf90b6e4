"""groupby: the number of distinct values, medians and quantiles are exact, and the same bits on any ranks."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from keyed.programs.complete import run
from keyed.tables.samples import on_root
from mpi4py import MPI
from ranks import check_collective, run_anyrank

from anyrank.errors import UsageError
from anyrank.keyed.aggregate import parse_aggregate
from anyrank.keyed.programs.groupby import GroupBy
from anyrank.state import State
from anyrank.world import World

TYPES = {
    "k": pa.string(),
    "x": pa.float64(),
    "i": pa.int64(),
    "u": pa.uint64(),
    "n": pa.decimal128(18, 3),
    "w": pa.decimal128(38, 2),
    "t": pa.string(),
    "b": pa.bool_(),
}
NUMBERS = "xiunwb"
QUANTILES = {"median({})": "0.5", "quantile({}, 0.9)": "0.9", "quantile({}, 0)": "0", "quantile({}, 1)": "1"}
FLOATS = [math.inf, -math.inf, 5e-324, 1.7e308, -1.7e308, 0.0, -0.0]


def table(seed, rows, groups):
    """Columns with nulls; one group has only nulls, another a NaN; extremes are among the values."""
    draw = np.random.default_rng(seed)

    def column(values):
        return [None if null else value for value, null in zip(values, draw.integers(0, 6, rows) == 0, strict=True)]

    keys = [f"g{n}" for n in draw.integers(0, groups, rows).tolist()]
    wide = [int(n) * 10**20 + int(m) for n, m in zip(*draw.integers(-(10**9), 10**9, (2, rows)).tolist(), strict=True)]
    result = {
        "k": keys,
        "x": column([FLOATS[n] if n < len(FLOATS) else n / 7 for n in draw.integers(0, 60, rows).tolist()]),
        "i": column([2**63 - 1 - n if n < 3 else -n for n in draw.integers(0, 30, rows).tolist()]),
        "u": column([2**64 - 1 - n if n < 9 else n for n in draw.integers(0, 30, rows).tolist()]),
        "n": column([Decimal(n).scaleb(-3) for n in draw.integers(-99, 10**6, rows).tolist()]),
        "w": column([Decimal(n).scaleb(-2) for n in wide]),
        "t": column([f"w{n}" for n in draw.integers(0, 9, rows).tolist()]),
        "b": column([bool(n) for n in draw.integers(0, 2, rows).tolist()]),
    }
    for name in [*TYPES][1:]:
        result[name] = [None if k == "g0" else v for k, v in zip(keys, result[name], strict=True)]
    place = keys.index("g1")
    result["x"][place] = math.nan
    return result


def quantile(values, q):
    """The quantile, interpolated linearly and rounded once; NaN if there is one."""
    if any(v != v for v in values):
        return math.nan
    values, position = sorted(values), (len(values) - 1) * Fraction(q)
    low, high = values[math.floor(position)], values[math.ceil(position)]
    if low == high or position == math.floor(position):
        return float(low)
    if math.isinf(low) or math.isinf(high):
        return float(low) + float(high)
    return float(Fraction(low) + (Fraction(high) - Fraction(low)) * (position - math.floor(position)))


def expected(columns):
    result = []
    for key in sorted({*columns["k"]}):
        rows = [n for n, k in enumerate(columns["k"]) if k == key]
        row = [key]
        for name in [*TYPES][1:]:
            values = [columns[name][n] for n in rows if columns[name][n] is not None]
            row.append(len({"nan" if v != v else v for v in values}))
            if name in NUMBERS:
                row += [quantile(values, q) + 0.0 if values else None for q in QUANTILES.values()]
        result.append(row)
    return result


def aggregates():
    names = [*TYPES][1:]
    parts = [[f"nunique({n})", *([q.format(n) for q in QUANTILES] if n in NUMBERS else [])] for n in names]
    return ",".join(name for part in parts for name in part)


@pytest.mark.ranks(1, 2, 3, 5)
@pytest.mark.parametrize(("seed", "rows", "groups"), [(0, 400, 3), (1, 300, 100), (2, 40, 2), (3, 1000, 12)])
def test_groupby_quantiles_are_those_of_fractions(world, tmp_path, seed, rows, groups):
    columns = table(seed, rows, groups)
    arrow = pa.table({name: pa.array(columns[name], type_) for name, type_ in TYPES.items()})
    on_root(world, lambda: pa.parquet.write_table(arrow, tmp_path / "t.parquet", row_group_size=rows // 7))
    options = {"by": "k", "aggregate": aggregates(), "top": 1000, "chunk": 4000}
    state, result = run(world, tmp_path / "t.parquet", **options)
    right = expected(columns)
    wrong = [(a, b) for a, b in zip(result["first"], right, strict=True) if repr(a) != repr(b)]
    check_collective(world, not wrong, str(wrong[:1]))
    single = World(MPI.COMM_SELF)
    check_collective(world, run(single, tmp_path / "t.parquet", **options)[0].digest() == state.digest(), "digest")
    single.close()


@pytest.mark.ranks(3)
def test_groupby_median_of_one_group_on_all_ranks(world, tmp_path):
    """One group, whose rows are on all ranks; the middle is on one of them, or between two."""
    for rows in (1, 2, 999, 1000):
        x = np.random.default_rng(rows).permutation(rows).astype(float)
        on_root(world, lambda x=x: pa.parquet.write_table(pa.table({"x": x, "k": x * 0}), tmp_path / "t.parquet", 50))
        _, result = run(world, tmp_path / "t.parquet", by="k", aggregate="median(x),nunique(x),quantile(x, .25)")
        right = [[0.0, (rows - 1) / 2, rows, (rows - 1) / 4]]
        check_collective(world, result["first"] == right, f"{result['first']}, {right}")
        world.barrier()


def test_groupby_wide_decimal_keys_may_be_null(alone, tmp_path):
    keys = pa.array([Decimal("1.5"), None, Decimal("1.5"), None, None], pa.decimal128(38, 1))
    pa.parquet.write_table(pa.table({"w": keys, "x": [1, 2, 3, 4, None]}), tmp_path / "t.parquet")
    _, result = run(alone, tmp_path / "t.parquet", by="w", aggregate="count,median(x),nunique(w)")
    assert result["first"] == [["1.5", 2, 2.0, 1], [None, 3, 3.0, 0]]


def test_groupby_distinct_values_of_csv_stay_as_written(alone, tmp_path):
    (tmp_path / "t.csv").write_text("k,x,y\na,007,1\na,7,1.0\na,,2\nb,,\n")
    _, result = run(alone, tmp_path / "t.csv", by="k", aggregate="nunique(x),nunique(y),count(x)")
    assert result["first"] == [["a", 2, 2, 2], ["b", 0, 0, 0]]
    _, result = run(alone, tmp_path / "t.csv", by="k", aggregate="nunique(x),median(x)")
    assert result["first"] == [["a", 1, 7.0], ["b", 0, None]]


def test_groupby_without_rows_has_no_quantiles(alone, tmp_path):
    (tmp_path / "t.csv").write_text("k,x\n")
    _, result = run(alone, tmp_path / "t.csv", by="k", aggregate="median(x),nunique(x),nunique(k)")
    assert result["first"] == []


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("quantile(x, 0.9)", "quantile(x, 0.9)"),
        (' quantile ( "a, b" ,.25 ) ', "quantile(a, b, .25)"),
        ("median(x)", "median(x)"),
        ("quantile(x, 1.0)", "quantile(x, 1.0)"),
    ],
)
def test_parse_aggregate_quantile_has_a_column_and_a_number(text, label):
    assert parse_aggregate(text).label == label


@pytest.mark.parametrize(
    "text", ["quantile(x)", "quantile(x, 1.5)", "quantile(x, -0.1)", "quantile(x, 90%)", "quantile"]
)
def test_parse_aggregate_quantile_that_is_invalid_is_refused(text):
    with pytest.raises(UsageError, match=r"must be quantile\(COLUMN, Q\), with Q from 0 to 1"):
        parse_aggregate(text)


def test_groupby_quantile_of_text_is_refused(alone, tmp_path):
    pa.parquet.write_table(pa.table({"k": ["a"], "t": ["b"]}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="column 't' is text and must be numbers"):
        GroupBy(table=str(tmp_path), by="k", aggregate="median(t)").declare(State(alone))


def test_groupby_quantiles_stopped_resume_on_other_ranks(tmp_path):
    columns = table(4, 600, 5)
    arrow = pa.table({name: pa.array(columns[name], type_) for name, type_ in TYPES.items()})
    pa.parquet.write_table(arrow, tmp_path / "t.parquet", row_group_size=50)
    words = ("--table", tmp_path / "t.parquet", "--by", "k", "--chunk", 4000, "--json", "--quiet")
    words = (*words, "--aggregate", "median(x),nunique(t),quantile(w, 0.3),sum(i),nunique(x)")
    whole = run_anyrank("run", "groupby", *words, "--out", tmp_path / "whole", ranks=1)
    stopped = run_anyrank("run", "groupby", *words, "--out", tmp_path / "stopped", "--stop-at", 2, ranks=2)
    assert (whole.returncode, stopped.returncode) == (0, 75), whole.stderr + stopped.stderr
    resumed = run_anyrank("resume", tmp_path / "stopped", "--json", "--quiet", ranks=3)
    assert resumed.returncode == 0, resumed.stderr
    first, other = (json.loads(done.stdout.splitlines()[-1]) for done in (whole, resumed))
    assert first["digest"] == other["digest"] and other["steps"] > 2
    for name in ("groups.csv", "groups.h5", "result.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()
