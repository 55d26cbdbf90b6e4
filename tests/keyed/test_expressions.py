"""Expressions: the values of plain Python with SQL's nulls, exact or refused; nothing is executed as Python."""

from __future__ import annotations

import math
import operator
from datetime import date, datetime, timezone
from decimal import Context, Decimal
from fractions import Fraction

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyrank.errors import UsageError
from anyrank.keyed.evaluate import evaluate, type_of
from anyrank.keyed.expressions import Expression, parse_definition, split_definitions

ROWS = st.tuples(
    st.none() | st.integers(-20, 20),
    st.none() | st.integers(-500, 500).map(lambda n: Decimal(n).scaleb(-2)),
    st.none() | st.floats(width=32),
    st.none() | st.sampled_from(["NO", "SE", "", "å"]),
)
COLUMNS = {"i": pa.int64(), "d": pa.decimal128(18, 2), "x": pa.float64(), "t": pa.large_binary()}


def both(function):
    """A function that is null if an operand is null."""
    return lambda a, b: lambda row: None if (x := a(row)) is None or (y := b(row)) is None else function(x, y)


def divided(function):
    return both(lambda x, y: None if y == 0 else function(x, y))


def joined(word):
    """And, or: of three values."""
    deciding = word == "or"

    def call(a, b):
        def value(row):
            values = (a(row), b(row))
            return deciding if deciding in values else None if None in values else not deciding

        return value

    return call


ARITHMETIC = {"+": both(operator.add), "-": both(operator.sub), "*": both(operator.mul)}
WHOLE = ARITHMETIC | {"//": divided(operator.floordiv), "%": divided(operator.mod)}
COMPARISONS = {"<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">": operator.gt}


def combined(strategy, operations):
    """The text of an expression and its value for a row, from operands of a strategy."""
    return st.builds(
        lambda a, name, b: (f"({a[0]} {name} {b[0]})", operations[name](a[1], b[1])),
        strategy,
        st.sampled_from([*operations]),
        strategy,
    )


def negated(strategy):
    return strategy.map(lambda a: (f"-{a[0]}", lambda row: None if (x := a[1](row)) is None else -x))


def constant(values):
    return values.map(lambda n: (str(n), lambda _: Fraction(n)))


INTEGERS = st.recursive(
    st.just(("i", lambda row: None if row[0] is None else Fraction(row[0]))) | constant(st.integers(0, 9)),
    lambda inner: combined(inner, WHOLE) | negated(inner),
    max_leaves=5,
)
DECIMALS = st.recursive(
    st.just(("d", lambda row: None if row[1] is None else Fraction(row[1]))) | INTEGERS,
    lambda inner: combined(inner, ARITHMETIC) | negated(inner),
    max_leaves=3,
)
FLOATS = st.just(("x", lambda row: row[2])) | constant(st.sampled_from([0.5, 1.0, 2.25]))
TEXTS = st.just(("t", lambda row: row[3])) | st.sampled_from(["NO", "å"]).map(lambda t: (f"'{t}'", lambda _: t))
TESTS = {name: both(function) for name, function in COMPARISONS.items()}
CONDITIONS = st.recursive(
    combined(DECIMALS, TESTS)
    | combined(FLOATS, TESTS)
    | combined(TEXTS, TESTS)
    | DECIMALS.map(lambda a: (f"({a[0]} is None)", lambda row: a[1](row) is None))
    | st.just(("t in ['NO', \"å\"]", lambda row: None if row[3] is None else row[3] in ("NO", "å")))
    | st.just(("i not in (1, 2.5, -3)", lambda row: None if row[0] is None else row[0] not in (1, -3)))
    | st.just(("0 < i <= 9", lambda row: None if row[0] is None else 0 < row[0] <= 9)),
    lambda inner: (
        st.builds(
            lambda a, word, b: (f"({a[0]} {word} {b[0]})", joined(word)(a[1], b[1])),
            inner,
            st.sampled_from(["and", "or"]),
            inner,
        )
        | inner.map(lambda a: (f"(not {a[0]})", lambda row: None if (x := a[1](row)) is None else not x))
    ),
    max_leaves=5,
)


def arrays(rows):
    columns = zip(*rows, strict=True) if rows else [[]] * len(COLUMNS)
    return {
        name: pa.array([x.encode() if isinstance(x, str) else x for x in column], type_)
        for (name, type_), column in zip(COLUMNS.items(), columns, strict=True)
    }


def values(text, columns, zone=""):
    """The values of an expression; their type is known without rows."""
    expression = Expression(text, "--where")
    rows = len(next(iter(columns.values())))
    type_ = type_of(expression, {name: column[:0] for name, column in columns.items()}, zone)
    result = evaluate(expression, columns, rows, zone)
    assert result.type == type_ and len(result) == rows
    return result.to_pylist()


@settings(max_examples=150, deadline=None)
@given(expression=CONDITIONS, rows=st.lists(ROWS, min_size=1, max_size=8))
def test_expression_condition_is_that_of_python(expression, rows):
    text, value = expression
    assert values(text, arrays(rows)) == [value(row) for row in rows], text


@settings(max_examples=100, deadline=None)
@given(expression=DECIMALS | INTEGERS, rows=st.lists(ROWS, min_size=1, max_size=8))
def test_expression_number_is_exact(expression, rows):
    text, value = expression
    result = [None if x is None else Fraction(x) for x in values(text, arrays(rows))]
    assert result == [value(row) for row in rows], text


WORD = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1, 0, -1, 1, 2**32])


@settings(max_examples=200, deadline=None)
@given(x=WORD, y=WORD, name=st.sampled_from([*WHOLE]))
def test_expression_64_bits_are_exact_or_refused(x, y, name):
    expression, columns = Expression(f"a {name} b", "--where"), {"a": pa.array([x]), "b": pa.array([y])}
    right = WHOLE[name](lambda _: x, lambda _: y)(None)
    if right is None or -(2**63) <= right < 2**63:
        assert evaluate(expression, columns, 1).to_pylist() == [right]
    else:
        with pytest.raises((pa.ArrowInvalid, ValueError), match="overflow"):
            evaluate(expression, columns, 1)


@settings(max_examples=100, deadline=None)
@given(x=st.floats(), y=st.floats(), name=st.sampled_from(["+", "-", "*", "/", "//", "%"]))
def test_expression_floats_have_the_bits_of_python(x, y, name):
    result = values(f"a {name} b", {"a": pa.array([x]), "b": pa.array([y])})[0]
    call = {"/": operator.truediv, **{"+": operator.add, "-": operator.sub, "*": operator.mul}}
    call |= {"//": operator.floordiv, "%": operator.mod}
    right = None if name in "//%" and y == 0 else call[name](x, y)
    assert repr(result).replace("-nan", "nan") == repr(right)


@given(n=st.integers(-(10**36), 10**36), scale=st.integers(0, 30))
def test_expression_float_of_a_decimal_is_rounded_once(n, scale):
    number = Decimal(n).scaleb(-scale, Context(prec=100))
    column = {"w": pa.array([number], pa.decimal128(38, scale)), "x": pa.array([0.0])}
    assert values("float(w)", column) == values("w + x", column) == [float(Fraction(n, 10**scale))]


BIG = {
    "u": pa.array([2**64 - 1, 1], pa.uint64()),
    "i": pa.array([-1, 2**63 - 1]),
    "w": pa.array([Decimal("9" * 37), Decimal(1)], pa.decimal128(38, 0)),
}


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("u > i", [True, False]),
        ("u == 18446744073709551615", [True, False]),
        ("i < 99999999999999999999", [True, True]),
        ("u - i", [2**64, 2 - 2**63]),
        ("-u", [1 - 2**64, -1]),
        ("u * i", [1 - 2**64, 2**63 - 1]),
        ("u // 2", [2**63 - 1, 0]),
        ("w - 1", [10**37 - 2, 0]),
        ("w > 1.5", [True, False]),
        ("w in [1, 2]", [False, True]),
        ("w > 1e23 and w > 1e23 + 1 and w != --1.5 and w * 0 == -0.0", [True, False]),
        ("w < 99999999999999999999999.5", [False, True]),
    ],
)
def test_expression_large_numbers_keep_all_digits(text, right):
    assert values(text, BIG) == right


def test_expression_result_that_does_not_fit_is_refused():
    with pytest.raises(pa.ArrowInvalid, match="does not fit"):
        values("w * w", BIG)
    with pytest.raises(pa.ArrowInvalid, match="overflow"):
        values("i * i", BIG)


TIMES = {
    "s": pa.array([datetime(2024, 3, 10, 23, 30, tzinfo=timezone.utc), None], pa.timestamp("us", "UTC")),
    "d": pa.array([date(2024, 3, 10), None], pa.date32()),
    "t": pa.array([b"2024-03-10T23:30:00Z", None], pa.large_binary()),
    "n": pa.array([1710113400, None]),
    "c": pa.array([5_400_000_000, None], pa.time64("us")),
}


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("s >= '2024-03-10'", True),
        ("s == '2024-03-11T00:30:00+01:00'", True),
        ("s > '2024-03-10 23:30:00.000001'", False),
        ("d == '2024-03-10' and d < '2024-03-10T01:00'", True),
        ("d <= s", True),
        ("date(s) == '2024-03-11' and date(t) == d or date(n) < d", False),
        ("hour(s) == 0 and hour(t) == 0 and hour(n) == 0 and minute(s) == 30", True),
        ("c == '01:30' and c < '01:30:01'", True),
        ("year(d) == 2024 and month(d) == 3 and weekday(s) == 0", True),
    ],
)
def test_expression_times_compare_with_iso_8601(text, right):
    assert values(text, TIMES, "Europe/Oslo") == [right, None]


def test_expression_functions_of_numbers_and_text():
    columns = {
        "t": pa.array([b"\xc3\x85bc", None], pa.large_binary()),
        "x": pa.array([-2.5, None]),
        "d": pa.array([Decimal("-2.50"), None], pa.decimal128(18, 2)),
        "my col": pa.array([1, None]),
        "größe": pa.array([1, None]),
    }
    for text, right in (
        ("lower(t)", "åbc".encode()),
        ("upper(t)", "ÅBC".encode()),
        ("length(t)", 3),
        ("abs(x)", 2.5),
        ("round(x)", -2.0),
        ("floor(x)", -3.0),
        ("ceil(d)", Decimal("-2.00")),
        ("round(d)", Decimal("-2.00")),
        ("floor(`my col`) + größe", 2),
        ("+x", -2.5),
    ):
        assert values(text, columns) == [right, None], text
    assert values("x > 0 or true", columns) == [True, True]
    assert values("1 + 1 == 2", columns) == [True, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("i >", r"--where 'i >', character 1: i > is not an expression. Use =="),
        ("i = 1", "character 3: = 1 is not an expression"),
        ("größe > €", "character 9: € is not an expression"),
        ("", "character 1: its end is not an expression"),
        ("`i", "character 1: `i is not an expression"),
        ("i > 'x'", "character 1: i > 'x' compares int64 with text. Use values of one type; --types"),
        ("1 < i + t", "character 9: t is text, not a number"),
        ("i and i > 0", "character 1: i is int64, not a condition"),
        ("i == None", "character 6: None has no type. Use 'is None'"),
        ("i is 1", "character 1: i is 1 compares by is"),
        ("i in t", "character 6: t is not a list of constants"),
        ("i in []", "is not a list of constants"),
        ("i in [1, null]", "character 10: null has no type"),
        ("foo(i)", r"foo\(i\) is not a known function. Use abs, round"),
        ("abs(i, i)", "is not possible in an expression"),
        ("d // 2", "divides decimals"),
        ("lower(i)", "character 7: i is int64, not text"),
        ("hour('a')", "is text, not a column of times"),
        ("d > 1e40", "character 5: 1e40 has too many digits"),
        ("i > 1j", "1j is not a constant of a known type"),
        ("i > b'a'", "is not a constant of a known type"),
        ("s > 'x'", r"'x' is not timestamp\[us\]. Write times as ISO 8601"),
        ("t == '\\ud800'", "is not text in UTF-8"),
        ("9223372036854775807 + 1 > i", "cannot be computed: overflow"),
        ("d * d * d * d * d * d * d * d * d * d * d * d * d * d * d * d * d * d * d * d", "digits after the point"),
        ("i" + " + i" * 5000, "is nested too deeply|cannot be read"),
        ("(" * 300 + "i" + ")" * 300, "is not an expression|cannot be read"),
        ("i.real", "is not possible"),
        ("i[0]", "is not possible"),
        ("i if i > 0 else d", "is not possible"),
        ("lambda: i", "is not possible"),
        ("[i for i in (1, 2)]", "is not possible"),
        ("f'{i}' == t", "is not possible"),
        ("(i := 1)", "is not possible"),
        ("i ** 2", "is not possible"),
        ("`date`.x(i)", "is not possible"),
        ("__import__('os').system('ls')", "is not possible"),
        ("__import__('os')", "is not a known function"),
    ],
)
def test_expression_that_is_invalid_is_refused(text, message):
    columns = {name: pa.array([], type_) for name, type_ in COLUMNS.items()} | {"s": pa.array([], pa.timestamp("us"))}
    with pytest.raises(UsageError, match=message):
        type_of(Expression(text, "--where"), columns)


def test_definitions_are_split_outside_of_quotes():
    text = 'a = x in ["p,q", "r"], `b, c` = lower(y), "d=" = z == \',\', '
    pairs = [(name, expression.source) for name, expression in map(parse_definition, split_definitions(text))]
    assert pairs == [("a", 'x in ["p,q", "r"]'), ("b, c", "lower(y)"), ("d=", "z == ','")]
    assert [*Expression("`a``b` > x and true", "").names] == ["a`b", "x"]
    for wrong in ("a == 1", "1 = x", "null = x", "a.b = x", "= x"):
        with pytest.raises(UsageError, match="must be NAME = EXPRESSION"):
            parse_definition(wrong)
    with pytest.raises(UsageError, match="--let a = '1', character 1: 1 uses no column"):
        parse_definition("a = 1")


def test_expression_nan_is_not_null():
    columns = {"x": pa.array([math.nan, None, 1.0])}
    assert values("x is None", columns) == [False, True, False] and values("x == x", columns) == [False, None, True]
