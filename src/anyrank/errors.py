"""The errors for users: each message has a name, its value, the rule that it breaks, and a fix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

#: Exit codes without an error: the run is complete, or it stopped on request with a valid checkpoint.
FINISHED, STOPPED = 0, 75

E = TypeVar("E", bound="AnyrankError")


class AnyrankError(Exception):
    """An error with a message for the user. It ends a run with status 1 and without a traceback.

    Examples
    --------
    >>> raise AnyrankError("the solver did not converge in 100 iterations. Use a smaller time step.")
    Traceback (most recent call last):
    anyrank.errors.AnyrankError: the solver did not converge in 100 iterations. Use a smaller time step.
    """

    status = 1
    #: Whether all ranks raise this error: then one rank prints it, and all ranks end normally.
    collective = False
    #: Whether another process prints this error, so that this one prints nothing.
    silent = False


class UsageError(AnyrankError):
    """Invalid usage, parameter or input, raised before any work: status 2.

    Examples
    --------
    >>> state = State(World())
    >>> state.field("T", (0,))
    Traceback (most recent call last):
    anyrank.errors.UsageError: field T: shape (0,) needs at least one axis, and sizes ≥ 1.
    """

    status = 2


@contextmanager
def at(where: str) -> Iterator[None]:
    """Begin the message of a UsageError from this block with the location of the error, such as a file name."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{where}: {error}" if where else str(error)) from None


def of_all_ranks(error: E) -> E:
    """Mark an error that all ranks raise, because they decide from the same data, and return it."""
    error.collective = True
    return error


class CheckpointError(AnyrankError):
    """A checkpoint cannot be written or read, or is damaged."""


def as_ranges(numbers: Iterable[int]) -> str:
    """Return the numbers of ranks or steps as text with ranges: 0-3,7."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
