"""Group by: integers, decimals and times of any size are exact; keys stay as written."""

from __future__ import annotations

from decimal import Decimal, getcontext
from fractions import Fraction

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keyed.tables.samples import on_root
from ranks import check_collective

from anyrank.errors import UsageError
from anyrank.keyed.programs.groupby import GroupBy
from anyrank.state import State
from anyrank.world import World

getcontext().prec = 100


def run(world, path, **options):
    """The first groups of a complete run."""
    groupby, state = GroupBy(table=str(path), **options), State(world, folder=path.parent)
    groupby.declare(state)
    while not groupby.done(state):
        groupby.step(state)
        state.step += 1
    return groupby.result(state)["first"]


@pytest.fixture(scope="module")
def alone():
    world = World()
    yield world
    world.close()


def values(digits):
    largest = 10**digits - 1
    return st.one_of(st.none(), st.integers(-largest, largest), st.sampled_from([0, largest, -largest]))


@settings(max_examples=30)
@given(rows=st.lists(st.tuples(st.integers(0, 2), values(18), values(36)), max_size=30), size=st.integers(1, 9))
def test_groupby_of_decimals_is_that_of_python(alone, tmp_path_factory, rows, size):
    path = tmp_path_factory.mktemp("decimals") / "t.parquet"
    keys, narrow, wide = ([*column] for column in zip(*rows, strict=True)) if rows else ([], [], [])
    table = {
        "k": pa.array([Decimal(k).scaleb(-2) for k in keys], pa.decimal128(38, 2)),
        "n": pa.array([n if n is None else Decimal(n).scaleb(-5) for n in narrow], pa.decimal128(18, 5)),
        "w": pa.array([n if n is None else Decimal(n).scaleb(-1) for n in wide], pa.decimal128(38, 1)),
    }
    pa.parquet.write_table(pa.table(table), path, row_group_size=size)
    functions = "sum({0}),min({0}),max({0}),mean({0}),count({0})"
    aggregate = f"{functions.format('n')},{functions.format('w')},var(n)"
    first = run(alone, path, by="k", aggregate=aggregate)
    assert [row[0] for row in first] == [f"0.0{k}" for k in sorted({*keys})]
    for row in first:
        key = int(row[0][-1])
        for column, position, scale in ((narrow, 1, 5), (wide, 6, 1)):
            group = [n for k, n in zip(keys, column, strict=True) if k == key and n is not None]
            exact = [None if n is None else Decimal(n) for n in row[position : position + 3]]
            assert exact[0] == Decimal(sum(group)).scaleb(-scale)
            assert row[position + 4] == len(group)
            if group:
                assert [Fraction(n) * 10**scale for n in exact[1:]] == [min(group), max(group)]
                assert row[position + 3] == float(Fraction(sum(group), len(group) * 10**scale))
        group = [n for k, n in zip(keys, narrow, strict=True) if k == key and n is not None]
        mean = Fraction(sum(group), max(1, len(group)))
        var = float(sum((n - mean) ** 2 for n in group) / (len(group) - 1) / 10**10) if len(group) > 1 else None
        assert row[11] == var


@pytest.mark.ranks(2, 3)
def test_groupby_integers_of_64_bits_keep_all_digits(world, tmp_path):
    unsigned, signed = [2**64 - 1, 2**64 - 1, None, 1], [2**63 - 1, 2**63 - 1, -(2**63), 7]
    table = {"k": ["a", "a", "b", "b"], "u": pa.array(unsigned, pa.uint64()), "i": signed}
    on_root(world, lambda: pa.parquet.write_table(pa.table(table), tmp_path / "t.parquet", row_group_size=1))
    first = run(world, tmp_path / "t.parquet", by="k", aggregate="sum(u),max(u),sum(i),min(i)", chunk=50)
    rows = [["a", 2 * (2**64 - 1), 2**64 - 1, 2**64 - 2, 2**63 - 1], ["b", 1, 1, 7 - 2**63, -(2**63)]]
    check_collective(world, first == rows, str(first))
    text = "k,u,i\n" + "".join(
        f"{k},{'' if u is None else u},{i}\n" for k, u, i in zip("aabb", unsigned, signed, strict=True)
    )
    on_root(world, lambda: (tmp_path / "t.csv").write_text(text))
    first = run(world, tmp_path / "t.csv", by="k", aggregate="sum(u),max(u),sum(i),min(i)", chunk=9)
    check_collective(world, first == rows, str(first))


def test_groupby_times_have_minimum_and_zone(alone, tmp_path):
    (tmp_path / "t.csv").write_text("t,x\n2024-03-10T06:59:59Z,1\n2024-03-10T07:00:00Z,2\n9999-12-30T00:00:00Z,3\n")
    options = {"aggregate": "min(t),max(t),count", "tz": "America/New_York"}
    assert run(alone, tmp_path / "t.csv", by="hour(t)", **options) == [
        [1, "2024-03-10T06:59:59.000000Z", "2024-03-10T06:59:59.000000Z", 1],
        [3, "2024-03-10T07:00:00.000000Z", "2024-03-10T07:00:00.000000Z", 1],
        [19, "9999-12-30T00:00:00.000000Z", "9999-12-30T00:00:00.000000Z", 1],
    ]
    with pytest.raises(UsageError, match="--tz 'Oslo' is not a time zone"):
        GroupBy(table="x", by="k", tz="Oslo")


def test_groupby_keys_of_csv_stay_as_written(alone, tmp_path):
    (tmp_path / "t.csv").write_text("k\n007\n7\n0x1A\n26\ntrue\n1\n")
    first = run(alone, tmp_path / "t.csv", by="k")
    assert [row[0] for row in first] == ["007", "0x1A", "1", "26", "7", "true"]


def test_groupby_sums_beyond_64_bits_are_text_in_hdf5(alone, tmp_path):
    import h5py

    (tmp_path / "t.csv").write_text("k,x,y\na,18446744073709551615,1\na,1,2\n")
    run(alone, tmp_path / "t.csv", by="k", aggregate="sum(x),sum(y)")
    with h5py.File(tmp_path / "groups.h5") as file:
        assert file["sum(x)"][:].tolist() == [b"18446744073709551616"] and file["sum(y)"][:].tolist() == [3]


def test_groupby_text_to_add_is_refused_with_a_fix(alone, tmp_path):
    (tmp_path / "t.csv").write_text("k,v\na,1\nb,x\n")
    with pytest.raises(UsageError, match=r"column 'v' is text and must be numbers to be added.*--types 'v=float64'"):
        run(alone, tmp_path / "t.csv", by="k", aggregate="sum(v)")
    skipped = run(alone, tmp_path / "t.csv", by="k", aggregate="sum(v)", types="v=float64", on_bad="skip")
    assert skipped == [["a", 1.0]]


@pytest.mark.parametrize("types", ["v", "v=decimal(40,2)", "=text", "v=number"])
def test_groupby_types_that_are_invalid_are_refused(types):
    with pytest.raises(UsageError, match=r"COLUMN=TYPE|must be one of float64"):
        GroupBy(table="x", by="k", types=types)


def test_groupby_variance_of_wide_decimals_is_refused(alone, tmp_path):
    pa.parquet.write_table(pa.table({"w": pa.array([1], pa.decimal128(30, 2))}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"var\(w\): variances of decimals of more than 18 digits are not computed"):
        run(alone, tmp_path / "t.parquet", by="w", aggregate="var(w)")


def test_groupby_sum_of_more_than_38_digits_is_refused(alone, tmp_path):
    nines = pa.array([Decimal("9" * 38)] * 2, pa.decimal128(38, 0))
    pa.parquet.write_table(pa.table({"k": ["a", "a"], "w": nines}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"sum\(w\): a sum has more than 38 digits. Use mean, or fewer rows"):
        run(alone, tmp_path / "t.parquet", by="k", aggregate="sum(w)")
    assert run(alone, tmp_path / "t.parquet", by="k", aggregate="mean(w)") == [["a", 1e38]]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ("1,5 2 3,25", {"aggregate": "sum(v)"}, r"'v' is text and must be numbers to be added. Use --decimal , if"),
        ("1,5 2,5 x", {"aggregate": "max(v)"}, r"to be compared. Use --decimal , if this is the decimal mark"),
        ("1,5 2 3,25", {"types": "v=float64"}, r"v '1,5' is not float64.* 2 of 3 rows here .* Use --decimal , to keep"),
        ("1,5 2 3,25", {"where": "v > 1"}, r"--where .* compares text with int64.* Use --decimal , if .* of v\.$"),
        ("1,5 2 3,25", {"let": ["w = v * 2"]}, r"v is text, not a number.* Use --decimal , if"),
        ("1.5 2 3.25", {"aggregate": "sum(v)", "decimal": ","}, r"Use --decimal \. if this is the decimal mark"),
        ("x 2 y", {"types": "v=float64"}, r"v 'x' is not float64.* 2 of 3 rows .*Use --types 'v=text' to keep such"),
    ],
)
def test_groupby_advice_does_not_lose_most_rows(alone, tmp_path, rows, options, message):
    (tmp_path / "t.csv").write_text("k;v\n" + "".join(f"a;{value}\n" for value in rows.split()))
    options = {"aggregate": "sum(v)" if "types" in options else "count", **options}
    with pytest.raises(UsageError, match=message) as refusal:
        run(alone, tmp_path / "t.csv", by="k", **options)
    assert "--on-bad skip" not in str(refusal.value)


def test_groupby_advice_to_skip_is_for_a_few_rows(alone, tmp_path):
    (tmp_path / "t.csv").write_text("k;v\n" + "a;1\n" * 9 + "a;x\na;1;2\n")
    with pytest.raises(UsageError, match=r"line 12 has 3 fields, not 2.* or use --on-bad skip to skip and count them"):
        run(alone, tmp_path / "t.csv", by="k")
    (tmp_path / "t.csv").write_text("k;v\n" + "a;1\n" * 9 + "a;x\n")
    with pytest.raises(
        UsageError, match=r"line 11: v 'x' is not float64.* or use --on-bad skip to skip and count them"
    ):
        run(alone, tmp_path / "t.csv", by="k", aggregate="sum(v)", types="v=float64")
    (tmp_path / "t.csv").write_text("k,v\n" + "a,1,5\n" * 9)
    with pytest.raises(UsageError, match=r"9 of 9 rows here are like it. Use --delimiter, --quote or --header no to"):
        run(alone, tmp_path / "t.csv", by="k", aggregate="sum(v)")


def test_groupby_decimals_of_38_digits_are_clear(alone, tmp_path):
    """Digits are written without exponents, and what needs more of them is refused with a fix."""
    smallest = "0." + "0" * 37 + "1"
    (tmp_path / "t.csv").write_text(f"k,v\na,{smallest}\nb,0.75\nb,0.75\n")
    options = {"by": "k", "types": "v=decimal(38,38)"}
    first = run(alone, tmp_path / "t.csv", aggregate="min(v)", **options)
    assert first == [["a", smallest], ["b", "0.75" + "0" * 36]]
    with pytest.raises(UsageError, match=r"sum\(v\): .* 38 digits, 38 of them after the point.* 'v=decimal\(38,S\)'"):
        run(alone, tmp_path / "t.csv", aggregate="sum(v)", **options)
    with pytest.raises(UsageError, match=r"v \* v has 76 digits after the point. At most 38 are possible. Use float"):
        run(alone, tmp_path / "t.csv", where="v * v > 0", **options)
    assert run(alone, tmp_path / "t.csv", where="float(v) * float(v) > 0.5", **options) == [["b", 2]]
