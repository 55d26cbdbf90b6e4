"""The errors a user meets: what was asked, its value, the rule it breaks, and a fix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

#: Exit codes beside those of errors: the run is complete, or was stopped on request with a valid checkpoint.
FINISHED, STOPPED = 0, 75

E = TypeVar("E", bound="AnyrankError")


class AnyrankError(Exception):
    """An error with a message for the user; it ends a run with status 1 and without a traceback."""

    status = 1
    #: Whether all ranks raise this error together: then one of them speaks and all leave in order.
    collective = False
    #: Whether another process says it already, so that this one leaves without a word.
    silent = False


class UsageError(AnyrankError):
    """Bad usage, parameter or input, found before any work: status 2."""

    status = 2


@contextmanager
def at(where: str) -> Iterator[None]:
    """Begin the message of a UsageError from this block with the place of the fault, such as a file's name."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{where}: {error}" if where else str(error)) from None


def of_all_ranks(error: E) -> E:
    """Mark an error that all ranks raise together, for they all judge by the same, and return it."""
    error.collective = True
    return error


class CheckpointError(AnyrankError):
    """A checkpoint that cannot be written, read or trusted."""


def spans(numbers: Iterable[int]) -> str:
    """Numbers of ranks or steps as text with runs joined: 0-3,7."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
