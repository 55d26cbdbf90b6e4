"""The ranks of a reduction: those of a Field, those that the caller names, or this rank alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from anyrank.errors import UsageError

if TYPE_CHECKING:
    from anyrank.world import World

#: The arguments of a function of one or two arrays in a message, as arrays and as Fields.
_ARRAYS, _FIELDS = ("x", "y"), ("state.T", "state.u")


class Distributed(Protocol):
    """The attributes of a Field that a reduction uses."""

    @property
    def local(self) -> Any:
        """The elements that this rank owns."""

    @property
    def world(self) -> World:
        """The ranks that share the Field."""


def ranks_of(call: str, numbers: tuple[Any, ...], world: World | None, local: bool) -> World | None:
    """Return the world over which `exact.CALL(*numbers)` reduces; None for this rank alone. Not collective.

    Raises UsageError if the caller does not name the ranks of an array or gives contradictory arguments, and
    ValueError if two Fields have different layouts. All ranks raise the same error, because only the program decides.
    """
    fields = [x for x in numbers if is_field(x)]
    if any(field.layout.cuts != fields[0].layout.cuts for field in fields):
        raise ValueError(f"exact.{call}: {fields[1].name} and {fields[0].name} are split differently")
    if local and world is not None:
        raise UsageError(
            f"exact.{call} at {_caller()}: world= and local=True exclude each other. Leave one of them out."
        )
    if local:
        return None
    if world is None and not fields:
        raise _not_named(call, numbers)
    over: World = fields[0].world if world is None else world
    other = next((field for field in fields if field.world is not over), None)
    if other is not None:
        raise UsageError(f"exact.{call} at {_caller()}: {other.name} is a Field of another world. Leave world= out.")
    return over


def is_field(x: Any) -> bool:
    """Return whether it is a Field, and not an array or a number."""
    return hasattr(x, "local")


def _not_named(call: str, numbers: tuple[Any, ...]) -> UsageError:
    shape = getattr(numbers[0], "shape", None)
    arrays, fields = (", ".join(names if call == "dot" else names[:1]) for names in (_ARRAYS, _FIELDS))
    return UsageError(
        f"exact.{call} at {_caller()}: an array, of shape {np.shape(numbers[0]) if shape is None else shape} here, "
        "holds elements of this rank alone, so the ranks to reduce over must be named.\n"
        f"Use exact.{call}({fields}) with a Field, exact.{call}({arrays}, world=state.world) for the arrays of all "
        f"ranks, or exact.{call}({arrays}, local=True) for this rank alone."
    )


def _caller() -> str:
    """Return the file, line and function of the call of `exact`."""
    frame: Any = sys._getframe()
    while frame.f_globals.get("__name__") in (__name__, "anyrank.numerics.exact"):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"
