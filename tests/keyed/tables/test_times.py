"""Derived keys: dates, years, months, hours and weekdays are those of Python's datetime, in any time zone."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyrank.errors import UsageError
from anyrank.keyed.tables.columns import ColumnSpec, parse_call, parse_key, split_names
from anyrank.keyed.tables.times import FUNCTIONS, check_zone, component, times_of
from anyrank.keyed.types import to_times

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
ZONES = ["", "America/New_York", "Asia/Kathmandu"]


def components(time):
    date = (time.date() - EPOCH.date()).days
    return [date, time.year, time.month, time.day, time.hour, time.minute, time.weekday()]


def read(values, zone=""):
    times, wrong, hint = times_of(values)
    assert not wrong.any() and not hint
    results = [component(function, times, zone) for function in FUNCTIONS]
    return [[n if isinstance(n, int) else (n - EPOCH.date()).days for n in row.to_pylist()] for row in results]


@pytest.mark.parametrize("zone", ZONES)
@given(times=st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)), min_size=1, max_size=20))
def test_derived_keys_are_those_of_datetime(times, zone):
    times = [time.replace(tzinfo=timezone.utc) for time in times]
    local = [time.astimezone(ZoneInfo(zone)) if zone else time for time in times]
    expected = [[*row] for row in zip(*map(components, local), strict=True)]
    for type_ in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        assert (
            read(pa.array([(time - EPOCH) // timedelta(microseconds=1) for time in times]).cast(type_), zone)
            == expected
        )
    seconds = [(time - EPOCH) // timedelta(seconds=1) for time in times]
    assert read(pa.array(seconds, pa.int64()), zone) == expected
    assert read(pa.array([n + 0.25 for n in seconds]), zone) == expected
    text = pa.array([time.isoformat().encode() for time in times], pa.large_binary())
    assert read(text, zone) == expected


@given(st.lists(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)), min_size=1, max_size=20))
def test_times_of_the_years_1_to_9999_do_not_wrap(times):
    expected = [[*row] for row in zip(*map(components, times), strict=True)]
    assert read(pa.array(times, pa.timestamp("us"))) == expected
    assert read(pa.array([time.isoformat().encode() for time in times], pa.large_binary())) == expected


@pytest.mark.parametrize("value", [253402300800, 1_609_459_200_000, float("nan"), float("inf"), -1e300])
def test_numbers_beyond_the_year_9999_are_no_times(value):
    _, wrong, hint = times_of(pa.array([0, value, None]))
    assert wrong.tolist() == [False, True, False] and "milliseconds" in hint


def test_text_with_nine_digits_of_a_second_is_a_time():
    text = pa.array([b"2024-01-02T03:04:05.123456789", b"2024-01-02T03:04:05.123456789Z", None], pa.large_binary())
    times, wrong, _ = times_of(text)
    assert times.cast(pa.int64()).to_pylist() == [1704164645, 1704164645, None] and not wrong.any()


def test_a_zone_that_is_not_known_is_refused():
    check_zone("Europe/Oslo")
    with pytest.raises(UsageError, match="--tz 'Mars/Olympus' is not a time zone"):
        check_zone("Mars/Olympus")


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        (" user ", ColumnSpec("user")),
        ("log/user", ColumnSpec("log/user")),
        ("date(my time)", ColumnSpec("my time", "date")),
        ("date( t )", ColumnSpec("t", "date")),
        ('date("a, (b)")', ColumnSpec("a, (b)", "date")),
        ('"date(t)"', ColumnSpec("date(t)")),
        ('"say ""hi"""', ColumnSpec('say "hi"')),
    ],
)
def test_parse_key_takes_columns_and_functions(text, spec):
    assert parse_key(text) == spec


@pytest.mark.parametrize("wrong", ["dya(t)", "date(t", "date()", "", "date(t))x"])
def test_parse_key_refuses_other_text(wrong):
    with pytest.raises(UsageError, match=r"is not a key. Use a column's name, in double quotes if it has commas"):
        parse_key(wrong)


def test_names_are_split_outside_of_quotes_and_parentheses():
    assert split_names('a, "b, c",date("d, e"),f') == ["a", '"b, c"', 'date("d, e")', "f"]
    assert split_names("") == [] and split_names("a,,b") == ["a", "", "b"]
    assert parse_call('sum( "a, b" )') == ("sum", "a, b") and parse_call("a") is None


@pytest.mark.parametrize(("zone", "wrong"), [("Europe/Oslo", [False, True]), ("America/New_York", [True, False])])
def test_local_times_beyond_the_years_1_to_9999_are_no_times(zone, wrong):
    """The first and the last hour of these years in UTC: east of Greenwich the last is of the year 10000."""
    times = pa.array([datetime(1, 1, 1), datetime(9999, 12, 31, 23, 30), None], pa.timestamp("us"))
    found, bad, hint = times_of(times, zone)
    assert bad.tolist() == [*wrong, False] and hint == f"It must be in the years 1 to 9999 of --tz {zone}"
    edge = next(time for time, absent in zip(times.to_pylist(), wrong, strict=False) if not absent)
    offset = (edge + timedelta(days=3 if edge.year == 1 else -3)).replace(tzinfo=timezone.utc)
    local = edge + (offset.astimezone(ZoneInfo(zone)).utcoffset() or timedelta())
    assert component("hour", found, zone).to_pylist().count(local.hour) == 1


@pytest.mark.parametrize(
    ("numbers", "unit", "wrong"),
    [
        (pa.array([1.5, float("inf"), float("nan"), -0.5, None, 2.0**63]), "s", [0, 1, 1, 0, 0, 1]),
        (pa.array([1, 2**63, None, 2**63 - 1], pa.uint64()), "ns", [0, 1, 0, 0]),
        (pa.array([-(2**63), None]), "ms", [0, 0]),
    ],
)
def test_numbers_that_are_no_times_of_a_unit_are_marked(numbers, unit, wrong):
    times, bad = to_times(numbers, pa.timestamp(unit))
    assert bad.tolist() == [*map(bool, wrong)]
    floors = [
        None if value is None or odd else math.floor(value)
        for value, odd in zip(numbers.to_pylist(), wrong, strict=True)
    ]
    assert times.cast(pa.int64()).to_pylist() == floors
