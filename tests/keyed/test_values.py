"""Derived keys: dates, years, months, hours and weekdays are those of Python's datetime."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyrank.errors import UsageError
from anyrank.keyed.values import DAY, ColumnSpec, parse_key, time_component

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@given(st.lists(st.datetimes(datetime(1678, 1, 1), datetime(2262, 1, 1)), min_size=1, max_size=20))
def test_derived_keys_are_those_of_datetime(times):
    times = [time.replace(tzinfo=timezone.utc) for time in times]
    days = [(time - EPOCH).days for time in times]
    expected = {
        "date": days,
        "year": [time.year for time in times],
        "month": [time.month for time in times],
        "weekday": [time.weekday() for time in times],
        "hour": [time.hour for time in times],
    }
    units = {
        "timestamp": [(time - EPOCH) // timedelta(microseconds=1) * 1000 for time in times],
        "int64": [(time - EPOCH) // timedelta(seconds=1) for time in times],
        "date": days,
    }
    for function, values in expected.items():
        for kind, counts in units.items():
            numbers = [0] * len(times) if (function, kind) == ("hour", "date") else values
            assert time_component(function, kind, np.array(counts, np.int64)).tolist() == numbers, (function, kind)
    assert DAY.keys() >= units.keys()


def test_parse_key_takes_columns_and_functions_of_columns():
    assert parse_key(" user ") == ColumnSpec("user") and parse_key("log/user").label == "log/user"
    assert parse_key("date(my time)") == ColumnSpec("my time", "date") and parse_key("date( t )").label == "date(t)"
    assert ColumnSpec("t", "date").kind("text") == "date" and ColumnSpec("t", "hour").kind("text") == "int64"
    for wrong in ("day(t)", "date(t", "date()", "", "date(t))x"):
        with pytest.raises(
            UsageError, match=r"is not a key. Use a column's name, or one of date, year, month, hour, weekday"
        ):
            parse_key(wrong)
