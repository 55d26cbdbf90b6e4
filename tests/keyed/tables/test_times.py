"""Derived keys: dates, years, months, hours and weekdays are those of Python's datetime, in any time zone."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyrank.errors import UsageError
from anyrank.keyed.tables.columns import ColumnSpec, parse_call, parse_key, split_names
from anyrank.keyed.tables.times import FUNCTIONS, check_zone, component, times_of

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
