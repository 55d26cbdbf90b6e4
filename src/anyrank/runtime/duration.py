"""Durations in the formats of users and schedulers."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from anyrank.errors import UsageError

_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(text: str) -> float:
    """Convert `90`, `90s`, `10min`, `2h`, `1d` or `[days-]hours:minutes:seconds` to seconds; else ValueError."""
    clock = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d{1,2})(?::(\d{1,2}))?", text)
    plain = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([a-z]*)", text.strip().lower())
    seconds = 0.0
    if clock:
        days, first, second, third = (int(part or 0) for part in clock.groups())
        # Schedulers read 1-02:30 as days, hours and minutes, and 02:30 as minutes and seconds.
        has_hours = clock[4] is not None or clock[1] is not None
        seconds = days * 86400 + (first * 3600 + second * 60 + third if has_hours else first * 60 + second)
    elif plain and (plain[2] or "s") in _UNITS:
        seconds = float(plain[1]) * _UNITS[plain[2] or "s"]
    if 0 < seconds < 1e10:
        return float(seconds)
    raise ValueError("is not a duration: write it as 90s, 10min, 2h, 1d or 1:30:00")


def duration(text: str, flag: str) -> float:
    """Convert a flag's value to seconds; UsageError if it is not a duration."""
    try:
        return seconds_of(text)
    except ValueError as error:
        raise UsageError(f"{flag} {text!r} {error}.") from None


def _checked(text: str) -> str:
    seconds_of(text)
    return text


#: The text of a duration, and one that may be empty.
Duration = Annotated[str, AfterValidator(_checked)]
MaybeDuration = Annotated[str, AfterValidator(lambda text: text and _checked(text))]
