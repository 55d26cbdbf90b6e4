"""groupby with a condition, derived columns: the answer of plain Python on any ranks."""

from __future__ import annotations

import csv
import json
from fractions import Fraction

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from keyed.programs.complete import run
from keyed.tables.samples import on_root
from mpi4py import MPI
from ranks import check_collective, run_anyrank

from anyrank.errors import UsageError
from anyrank.keyed.programs.groupby import GroupBy
from anyrank.state import State
from anyrank.world import World

NAMES = ("country", "price", "amount", "day")


def table(seed, rows=300):
    """Rows with nulls; one value in a part is an extreme."""
    draw = np.random.default_rng(seed)
    countries = [None if n == 0 else ("NO", "SE", "DK")[n - 1] for n in draw.integers(0, 4, rows).tolist()]
    prices = [None if n % 9 == 0 else n / 8 for n in draw.integers(-40, 400, rows).tolist()]
    amounts = [None if n % 7 == 0 else n for n in draw.integers(-5, 30, rows).tolist()]
    days = [f"2024-01-{n:02d}" for n in draw.integers(1, 29, rows).tolist()]
    return [*zip(countries, prices, amounts, days, strict=True)]


def write(folder, rows, suffix):
    """Two files; nulls may be in one row group only."""
    for number in range(2):
        part, path = rows[number::2], folder / f"{number}.{suffix}"
        if suffix == "csv":
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([NAMES, *(["" if v is None else v for v in row] for row in part)])
        else:
            columns = dict(zip(NAMES, zip(*part, strict=True), strict=True))
            pa.parquet.write_table(pa.table(columns), path, row_group_size=40)


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize(("seed", "suffix"), [(0, "csv"), (1, "parquet"), (2, "csv"), (3, "parquet")])
def test_groupby_condition_gives_the_rows_of_python(world, tmp_path, seed, suffix):
    rows = table(seed)
    on_root(world, lambda: write(tmp_path, rows, suffix))
    options = {
        "by": "place,month(day)",
        "where": 'total > 10 and (country != "DK" or amount is None) or price < 0',
        "let": ["total = price * amount", " half = float(amount) / 2", "place = lower(country)"],
        "aggregate": "count,sum(total),count(half),max(half)",
        "chunk": 3000,
    }
    state, result = run(world, tmp_path / f"*.{suffix}", **options)
    groups: dict = {}
    for country, price, amount, _ in rows:
        total = None if price is None or amount is None else price * amount
        large, other = None if total is None else total > 10, None if country is None else country != "DK"
        other = True if amount is None else other
        both = False if False in (large, other) else None if None in (large, other) else True
        if both or (price is not None and price < 0):
            groups.setdefault(country and country.lower(), []).append((total, amount))
    right = []
    for key in sorted(groups, key=lambda key: (key is None, key)):
        totals = [Fraction(total) for total, _ in groups[key] if total is not None]
        halves = [amount / 2 for _, amount in groups[key] if amount is not None]
        right.append([key, 1, len(groups[key]), float(sum(totals)), len(halves), max(halves)])
    check_collective(world, result["first"] == right, f"{result['first']}, {right}")
    check_collective(world, result["rows"] == sum(map(len, groups.values())), "rows")
    single = World(MPI.COMM_SELF)
    check_collective(world, run(single, tmp_path / f"*.{suffix}", **options)[0].digest() == state.digest(), "digest")
    single.close()


@pytest.mark.ranks(1, 3)
def test_groupby_overflow_on_one_rank_ends_all_ranks(world, tmp_path):
    lines = "".join(f"{'ab'[n % 2]},{2**40 if n == 900 else n},{'x' if n == 500 else ''}\n" for n in range(1000))
    on_root(world, lambda: (tmp_path / "t.csv").write_text("k,n,t\n" + lines))
    message = ""
    try:
        run(world, tmp_path / "t.csv", by="k", let=["square = n * n"], aggregate="max(square)", where="t is None")
    except UsageError as error:
        message = str(error)
    right = f"{tmp_path / 't.csv'}: line 902: --let square = 'n * n' cannot be computed: overflow. Correct the row, or"
    check_collective(world, message.startswith(right), message)
    _, result = run(
        world, tmp_path / "t.csv", by="k", let=["square = n * n"], aggregate="max(square),count", where="n < 900"
    )
    check_collective(world, result["first"] == [["a", 898**2, 450], ["b", 899**2, 450]], str(result))


def test_groupby_condition_of_no_row_has_no_groups(alone, tmp_path):
    write(tmp_path, table(5), "parquet")
    _, result = run(alone, tmp_path / "*.parquet", by="country", where="price > 1000", aggregate="sum(price)")
    assert (result["rows"], result["groups"], result["first"]) == (0, 0, [])


def test_groupby_types_of_csv_do_not_depend_on_order(alone, tmp_path):
    """A column that is counted and used elsewhere is one of numbers; keys stay as written, and may be compared."""
    (tmp_path / "t.csv").write_text("k,x\n007,1\n7,2\n,3\n")
    _, result = run(alone, tmp_path / "t.csv", by="k", aggregate="sum(x),count(x)", where="k == '007' or x > 2")
    assert result["first"] == [["007", 1, 1], [None, 3, 1]]
    with pytest.raises(UsageError, match=r"x == '1' compares int64 with text. Use values of one type; --types"):
        run(alone, tmp_path / "t.csv", by="k", where="x == '1'")
    assert run(alone, tmp_path / "t.csv", by="k", where="x == '1'", types="x=text")[1]["first"] == [["007", 1]]


def test_groupby_rows_left_out_may_have_no_time(alone, tmp_path):
    (tmp_path / "t.csv").write_text("kind,t\na,2024-01-01\nb,soon\na,2024-01-02\n")
    _, result = run(alone, tmp_path / "t.csv", by="date(t)", where='kind == "a"')
    assert result["first"] == [["2024-01-01", 1], ["2024-01-02", 1]]
    with pytest.raises(UsageError, match=r"line 3: t 'soon' is not a time"):
        run(alone, tmp_path / "t.csv", by="date(t)", where='kind != "x"')
    with pytest.raises(
        UsageError, match=r"line 3: --where .* cannot be computed: 'soon' is not a time. Correct the row"
    ):
        run(alone, tmp_path / "t.csv", by="kind", where='date(t) > "2024-01-01"')
    (tmp_path / "v.csv").write_bytes(b"kind\na\n\xff\n")
    with pytest.raises(UsageError, match=r"line 3: --let low = .* cannot be computed: Invalid UTF8"):
        run(alone, tmp_path / "v.csv", by="low", let=["low = lower(kind)"])
    (tmp_path / "u.csv").write_text("k,x\na,1\nb\na,3\n")
    _, result = run(
        alone, tmp_path / "u.csv", by="k", where="x < 9", let=["y = x + 1"], aggregate="max(y)", on_bad="skip"
    )
    assert (result["first"], result["left_out"]) == ([["a", 4]], 1)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_groupby_column_without_values_suits_any_operand(alone, tmp_path, suffix):
    """A file without rows, or a column without values, has no type that could be wrong."""
    condition = "not (x == 'a' and x > 2 and x in [1, 2]) and x is None and lower(x) is None and date(x) is None"
    for rows in (0, 3):
        if suffix == "csv":
            (tmp_path / "t.csv").write_text("k,x\n" + "a,\n" * rows)
        else:
            schema = pa.schema([("k", pa.string()), ("x", pa.null())])
            columns = {"k": ["a"] * rows, "x": [None] * rows}
            pa.parquet.write_table(pa.table(columns, schema=schema), tmp_path / "t.parquet")
        options = {"let": ["y = x + 1", "z = x"], "aggregate": "count,sum(y),max(z),count(x)"}
        _, result = run(alone, tmp_path / f"t.{suffix}", by="k", where=f"({condition}) or x is None", **options)
        assert result["first"] == [["a", 3, 0.0, None, 0]][:rows]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "0 < prise"}, "'0 < prise', character 5: prise is not a column of .*parquet. Did you mean 'price'"),
        ({"where": "price >"}, "--where 'price >', character 1"),
        ({"where": "price"}, "--where 'price', character 1: price is float64, not a condition"),
        ({"where": "price + country > 0"}, "character 9: country is text, not a number"),
        ({"let": ["price = amount"]}, "--let price: .* has a column of this name. Use another name"),
        ({"let": ["a = b + 1", "b = amount"]}, "--let a = 'b . 1', character 1: b is not a column"),
        ({"let": ["a = a + 1"]}, "a is not a column of"),
        ({"let": ["a = amount", "a = price"]}, "--let defines a name twice: a, a"),
        ({"let": ["amount"]}, "--let 'amount' must be NAME = EXPRESSION"),
        ({"let": ["low = lower(country)"], "aggregate": "sum(low)"}, "column 'low' is text and must be numbers"),
    ],
)
def test_groupby_invalid_condition_or_column_is_refused(alone, tmp_path, options, message):
    write(tmp_path, table(6), "parquet")
    with pytest.raises(UsageError, match=message):
        GroupBy(table=str(tmp_path), by="country", **options).declare(State(alone))


def test_groupby_query_stopped_resumes_on_other_ranks(tmp_path):
    write(tmp_path, table(7), "csv")
    query = ("--where", 'price > 0, country in ["NO", "SE"]'.replace(",", " and", 1), "--let", "total = price * amount")
    words = ("--table", tmp_path / "*.csv", "--by", "country", *query, "--let", "more = total + 1", "--chunk", 2000)
    flags = ("--aggregate", "count,sum(total),max(more)", "--json", "--quiet")
    whole = run_anyrank("run", "groupby", *words, *flags, "--out", tmp_path / "whole", ranks=1)
    stopped = run_anyrank("run", "groupby", *words, *flags, "--out", tmp_path / "stopped", "--stop-at", 1, ranks=2)
    assert (whole.returncode, stopped.returncode) == (0, 75), whole.stderr + stopped.stderr
    resumed = run_anyrank("resume", tmp_path / "stopped", "--json", "--quiet", ranks=3)
    assert resumed.returncode == 0, resumed.stderr
    first, other = (json.loads(done.stdout.splitlines()[-1]) for done in (whole, resumed))
    assert first["digest"] == other["digest"]
    for name in ("groups.csv", "groups.h5", "result.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()
    assert len((tmp_path / "whole" / "groups.csv").read_text().splitlines()) == 3


def test_groupby_invalid_expression_is_told_once(tmp_path):
    write(tmp_path, table(8), "csv")
    words = ("run", "groupby", "--table", tmp_path, "--by", "country", "--quiet", "--where", "price > country")
    refused = run_anyrank(*words, "--out", tmp_path / "out", ranks=3)
    assert refused.returncode == 2 and refused.stderr.count("compares float64 with text") == 1


@pytest.mark.parametrize("where", ['"k" != "Boots"', "1 < 2", "true"])
def test_groupby_condition_without_a_column_is_refused(tmp_path, where):
    (tmp_path / "a.csv").write_text("k,x\nBoots,1\n")
    with pytest.raises(UsageError, match=r"--where .*uses no column. Use a column of the table; text is in quotes"):
        GroupBy(table=str(tmp_path / "a.csv"), by="k", where=where).check()


@pytest.mark.parametrize("where", ["", "x > 0"])
def test_groupby_empty_csv_is_null_beside_parquet(alone, tmp_path, where):
    (tmp_path / "a.csv").write_text("k,x\nNO,1\n,2\n,3\nSE,-1\n")
    pa.parquet.write_table(pa.table({"k": ["NO", None, ""], "x": [4, 5, 6]}), tmp_path / "b.parquet")
    files = f"{tmp_path}/a.csv,{tmp_path}/b.parquet"
    _, result = run(alone, files, by="k", aggregate="sum(x),count(k),nunique(k)", where=where)
    expected = [["", 6, 1, 1], ["NO", 5, 2, 1], ["SE", -1, 1, 1], [None, 10, 0, 0]]
    assert result["first"] == (expected if not where else [row for row in expected if row[0] != "SE"])
    assert run(alone, files, by="k", where="k is None")[1]["first"] == [[None, 3]]


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("d * `é` == 21.5", [2]),
        ("d * `é`  >= 21.55", [3]),
        ("`é` > 0 and d == 21.5 and `é`==1", [2]),
        ("`größe`==3 or `größe`==4", [1, 3]),
        ('s == "ü"\nor `é` > 1', [2]),
    ],
)
def test_groupby_names_in_backticks_may_have_any_letters(alone, tmp_path, where, kept):
    (tmp_path / "a.csv").write_text("k,é,d,größe,s\n1,1,21.00,3,a\n2,1,21.50,5,ü\n3,1,22.00,4,b\n")
    _, result = run(alone, tmp_path / "a.csv", by="k", types="d=decimal(10,2)", where=where)
    assert [row[0] for row in result["first"]] == kept


@pytest.mark.parametrize(("where", "what"), [('s == "a\nb"', "is not an expression"), ("x > 5 # and é", "no comments")])
def test_groupby_comments_and_lines_in_text_are_refused(tmp_path, where, what):
    with pytest.raises(UsageError, match=what):
        GroupBy(table=str(tmp_path / "a.csv"), by="k", where=where).check()


@pytest.mark.ranks(1, 3)
def test_groupby_rows_that_cannot_be_computed_are_skipped(world, tmp_path):
    """Rows are bad, removed by the condition, or in groups; each is counted once, on any ranks."""
    lines = [f"{'ab'[n % 2]},{2**62 if n % 9 == 0 else n}" for n in range(600)]
    on_root(world, lambda: (tmp_path / "t.csv").write_text("k,n\n" + "\n".join([*lines[:300], "a,1,2", *lines[300:]])))
    query = {"by": "k", "let": ["m = n * 3"], "aggregate": "count,max(m)", "chunk": 1000, "on_bad": "skip"}
    _, result = run(world, tmp_path / "t.csv", where="n != 8", **query)
    kept = [n for n in range(600) if n % 9 and n != 8]
    parts = {"a": [n for n in kept if n % 2 == 0], "b": [n for n in kept if n % 2]}
    right = [[key, len(part), 3 * max(part)] for key, part in parts.items()]
    check_collective(world, result["first"] == right, f"{result['first']}, {right}")
    counts = {name: result[name] for name in ("rows", "left_out", "removed_by_where")}
    check_collective(world, counts == {"rows": len(kept), "left_out": 68, "removed_by_where": 1}, str(counts))
    _, result = run(world, tmp_path / "t.csv", where="m > 900", **query)  # the condition is bad for the same rows
    counts = {name: result[name] for name in ("rows", "left_out", "removed_by_where")}
    above = sum(n % 9 > 0 and n > 300 for n in range(600))
    check_collective(
        world, counts == {"rows": above, "left_out": 68, "removed_by_where": 600 - 67 - above}, f"{counts}"
    )


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("t < '2500-01-01'", [0, 1, 2]),
        ("t >= '2500-01-01' or t == '2500-01-01'", []),
        ("'1600-01-01T00:00:00.5Z' <= t", [0, 1, 2]),
        ("t != '1600-01-01'", [0, 1, 2]),
        ("t in ['9999-12-31', '1970-01-01']", [0]),
        ("t < d", [0, 1, 2]),
        ("t > '1970-01-01T00:00:00.123456788'", [1]),
    ],
)
def test_groupby_nanoseconds_compare_with_any_year(alone, tmp_path, where, kept):
    times = pa.array([0, 2**63 - 1, -(2**63) + 1, None], pa.timestamp("ns"))
    days = pa.array([2932896] * 4, pa.int32()).cast(pa.date32())
    pa.parquet.write_table(pa.table({"k": [0, 1, 2, 3], "t": times, "d": days}), tmp_path / "t.parquet")
    assert [row[0] for row in run(alone, tmp_path / "t.parquet", by="k", where=where)[1]["first"]] == kept


def test_groupby_nanoseconds_of_other_years_are_refused(alone, tmp_path):
    pa.parquet.write_table(pa.table({"t": pa.array([0], pa.timestamp("ns"))}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"Times in ns are of the years 1678 to 2261"):
        run(alone, tmp_path / "t.parquet", by="t", where="t < '2500-01-01T00:00:00.1234567'")


def test_groupby_columns_without_values_compare_to_null(alone, tmp_path):
    pa.parquet.write_table(pa.table({"k": ["a", "b"], "x": pa.nulls(2), "y": pa.nulls(2)}), tmp_path / "t.parquet")
    for condition in ("x == y", "x < y", "x != y", "not (x >= y)"):
        where = f"({condition}) is None and (k == 'a' or {condition})"
        assert run(alone, tmp_path / "t.parquet", by="k", where=where)[1]["first"] == [["a", 1]]


@pytest.mark.parametrize("suffix", ["parquet", "npy", "h5"])
def test_groupby_numbers_that_are_no_times_are_bad_rows(alone, tmp_path, suffix):
    numbers, path = np.array([1.5, np.inf, np.nan, -0.5]), tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        pa.parquet.write_table(pa.table({"t": numbers}), path)
    elif suffix == "npy":
        np.save(path, np.array([(n,) for n in numbers], [("t", float)]))
    else:
        with h5py.File(path, "w") as file:
            file["t"] = numbers
    with pytest.raises(
        UsageError, match=r"row 1 \(from 0\): t inf is not timestamp\[s\], the type of the column.*skip"
    ):
        run(alone, path, by="t", types="t=timestamp[s]")
    _, result = run(alone, path, by="t", types="t=timestamp[s]", on_bad="skip")
    assert result["first"] == [["1969-12-31T23:59:59", 1], ["1970-01-01T00:00:01", 1]] and result["left_out"] == 2


def test_groupby_local_time_beyond_year_9999_is_a_bad_row(alone, tmp_path):
    (tmp_path / "t.csv").write_text("k,t\n1,9999-12-31T23:30:00\n2,2024-01-01T00:00:00\n")
    options = {"by": "hour(t)", "tz": "Europe/Oslo"}
    with pytest.raises(
        UsageError, match=r"line 2: t '?9999-.* is not a time. It must be in the years 1 to 9999 of --tz"
    ):
        run(alone, tmp_path / "t.csv", **options)
    _, result = run(alone, tmp_path / "t.csv", on_bad="skip", **options)
    assert (result["first"], result["left_out"]) == ([[1, 1]], 1)
