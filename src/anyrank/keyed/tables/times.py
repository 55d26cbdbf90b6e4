"""Functions of columns of times: date, year, month, day, hour, minute, weekday."""

from __future__ import annotations

import zoneinfo
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.types import arrow, cast_rows, is_text, is_time

FUNCTIONS = ("date", "year", "month", "day", "hour", "minute", "weekday")
#: The first and the last second of the years 1 to 9999.
_EARLIEST, _LATEST = -62_135_596_800, 253_402_300_799
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY, _EPOCH = 86_400, datetime(1970, 1, 1, tzinfo=timezone.utc)
_HINT = "Unix times are seconds; if these are milliseconds, use --types 'NAME=timestamp[ms]'"
_ZONED = r"[T ][0-9].*(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"


def check_zone(name: str) -> None:
    """Raise UsageError if a time zone is not known."""
    try:
        if name:
            zoneinfo.ZoneInfo(name)
            component("hour", arrow().array([0], arrow().timestamp("s")), name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"--tz {name!r} is not a time zone of this system. Use one such as Europe/Oslo or UTC."
        ) from None


def is_time_like(type_: Any) -> bool:
    """Return whether the functions of this module take columns of a type."""
    t = arrow().types
    return bool(is_time(type_) or is_text(type_) or t.is_floating(type_) or t.is_integer(type_))


def type_of(function: str) -> Any:
    """Return the type of a function's values."""
    return arrow().date32() if function == "date" else arrow().int64()


def component(function: str, times: Any, zone: str) -> Any:
    """Return a component of timestamps in a time zone. Timestamps without a zone are in UTC; Monday is day 0."""
    pa, compute = arrow(), arrow("compute")
    times = times.cast(pa.timestamp(times.type.unit)) if times.type.tz else times
    times = _local(times, zone) if zone else times
    if function == "date":
        return compute.floor_temporal(times, unit="day").cast(pa.date32())
    names = {"weekday": "day_of_week"}
    return getattr(compute, names.get(function, function))(times).cast(pa.int64())


def _local(times: Any, zone: str) -> Any:
    """Return the local time in seconds at timestamps in UTC."""
    pa, compute = arrow(), arrow("compute")
    times = times.cast(pa.timestamp(times.type.unit))
    seconds = compute.floor_temporal(times, unit="second").cast(pa.timestamp("s")).cast(pa.int64())
    offsets = pa.array(_offsets(seconds.fill_null(0).to_numpy(), zone), pa.int64())
    return compute.add(seconds, offsets).cast(pa.timestamp("s"))


def _offsets(seconds: np.ndarray, zone: str) -> np.ndarray:
    """Return the offset from UTC in seconds at each Unix time; Arrow knows no daylight saving time after 2037.

    Python has no offsets of the first and the last day of the years 1 to 9999: those of the days beside them are used.
    """
    seconds = np.clip(seconds, _EARLIEST + _DAY, _LATEST - _DAY)
    days, inverse = np.unique(seconds // _DAY, return_inverse=True)
    ends = np.array([[_offset(day * _DAY, zone), _offset(day * _DAY + _DAY - 1, zone)] for day in days.tolist()])
    offsets: np.ndarray = ends.reshape(-1, 2)[inverse, 0].astype(np.int64)
    changes = (ends.reshape(-1, 2)[:, 0] != ends.reshape(-1, 2)[:, 1])[inverse]
    times, where = np.unique(seconds[changes], return_inverse=True)
    offsets[changes] = np.array([_offset(time, zone) for time in times.tolist()], np.int64)[where]
    return offsets


def _offset(second: int, zone: str) -> int:
    offset = (_EPOCH + timedelta(seconds=second)).astimezone(zoneinfo.ZoneInfo(zone)).utcoffset()
    assert offset is not None
    return round(offset.total_seconds())


def times_of(values: Any, zone: str = "") -> tuple[Any, np.ndarray, str]:
    """Return the seconds of times as timestamps, a mask of values that are not times, and a hint.

    Text must be ISO 8601, in UTC unless it ends in Z or an offset. Numbers are Unix seconds. A time whose year in the
    time zone is not from 1 to 9999 is not a time.
    """
    times, wrong, hint = _utc_times_of(values)
    extremes = arrow("compute").min_max(times.cast(arrow().timestamp(times.type.unit)).cast(arrow().int64())).as_py()
    ticks = _PER_SECOND[times.type.unit]
    if not zone or extremes["min"] is None:
        return times, wrong, hint
    if extremes["min"] >= (_EARLIEST + _DAY) * ticks and extremes["max"] <= (_LATEST - _DAY) * ticks:
        return times, wrong, hint
    _, outside = _within_years(_local(times, zone))
    hint = f"It must be in the years 1 to 9999 of --tz {zone}" if outside.any() else hint
    kept = arrow("compute").if_else(arrow().array(outside), arrow().scalar(None, times.type), times)
    return kept, wrong | outside, hint


def _utc_times_of(values: Any) -> tuple[Any, np.ndarray, str]:
    pa, compute = arrow(), arrow("compute")
    if is_time(values.type):
        times, wrong = _within_years(values)
        return times, wrong, "It must be in the years 1 to 9999" if wrong.any() else ""
    if is_text(values.type):
        return *_parsed(values), ""
    floats, unsigned = pa.types.is_floating(values.type), pa.types.is_uint64(values.type)
    numbers = compute.floor(values) if floats else values
    earliest, latest = (pa.scalar(bound, numbers.type) for bound in (0 if unsigned else _EARLIEST, _LATEST))
    outside = compute.or_(compute.less(numbers, earliest), compute.greater(numbers, latest))
    if floats:
        outside = compute.or_(outside, compute.is_nan(values))
    wrong = outside.fill_null(False).to_numpy(zero_copy_only=False)
    seconds = compute.if_else(outside, pa.scalar(None, numbers.type), numbers).cast(pa.int64())
    hint = _HINT if wrong.any() else ""
    return seconds.cast(pa.timestamp("s")), wrong, hint


def _within_years(values: Any) -> tuple[Any, np.ndarray]:
    """Return times as timestamps, null outside of the years 1 to 9999, and a mask of those."""
    pa, compute = arrow(), arrow("compute")
    if not pa.types.is_timestamp(values.type):
        ticks, per_second, unit = values.cast(pa.int32()).cast(pa.int64()), 1 / _DAY, "s"
    else:
        unit = values.type.unit
        ticks, per_second = values.cast(pa.int64()), _PER_SECOND[unit]
    if per_second == _PER_SECOND["ns"]:  # all int64 of ns are within these years
        return values, np.zeros(len(values), bool)
    earliest, latest = int(_EARLIEST * per_second), int((_LATEST + 1) * per_second) - 1
    outside = compute.or_(compute.less(ticks, earliest), compute.greater(ticks, latest)).fill_null(False)
    kept = compute.if_else(outside, pa.scalar(None, values.type), values)
    kept = kept if pa.types.is_timestamp(values.type) else kept.cast(pa.timestamp("s"))
    return kept, outside.to_numpy(zero_copy_only=False)


def _parsed(values: Any) -> tuple[Any, np.ndarray]:
    """Return the seconds of text, and a mask of text that is not a time."""
    pa, compute = arrow(), arrow("compute")
    text, broken = cast_rows(values, pa.large_string())
    text = compute.if_else(compute.equal(text, ""), pa.scalar(None, text.type), text)
    zoned = compute.match_substring_regex(text, _ZONED).fill_null(False)
    seconds, wrong = pa.nulls(len(values), pa.timestamp("s")), np.ones(len(values), bool)
    for zone, rows in ((None, compute.invert(zoned)), ("UTC", zoned)):
        for unit in ("us", "ns"):  # ns for more than 6 digits after the point
            chosen = compute.and_(rows, pa.array(wrong))
            if not compute.any(chosen).as_py():
                continue
            times, bad = cast_rows(compute.if_else(chosen, text, pa.scalar(None, text.type)), pa.timestamp(unit, zone))
            floor = compute.floor_temporal(times.cast(pa.timestamp(unit)), unit="second").cast(pa.timestamp("s"))
            seconds = compute.if_else(chosen, floor, seconds)
            wrong &= ~chosen.to_numpy(zero_copy_only=False) | bad
    return seconds, wrong | broken
