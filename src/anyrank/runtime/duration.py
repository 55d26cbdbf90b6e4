"""Durations in the formats of users and schedulers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from anyrank.errors import UsageError
from anyrank.values import seconds_of


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
