"""The errors a user meets: what was asked, its value, the rule it breaks, and a fix."""

from __future__ import annotations


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


class CheckpointError(AnyrankError):
    """A checkpoint that cannot be written, read or trusted."""
