"""The ranks of a reduction (those of a Field, those that the caller names, or this rank alone) and their agreement."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from anyrank.errors import UsageError

if TYPE_CHECKING:
    from anyrank.layout import Layout
    from anyrank.world import World

#: The arguments of a function in a message, as Fields and as arrays.
_ARGUMENTS = {
    "dot": ("state.T, state.u", "x, y"),
    "dots": ("[(state.T, state.u)]", "[(x, y)]"),
    "norms": ("[state.T, state.u]", "[x, y]"),
    "histogram": ("state.T, bins, range", "x, bins, range"),
}


class Distributed(Protocol):
    """The attributes of a Field that a reduction uses."""

    @property
    def local(self) -> Any:
        """The elements that this rank owns."""

    @property
    def layout(self) -> Layout:
        """The domain decomposition."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements."""

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
            f"exact.{call} at {caller()}: world= and local=True exclude each other. Leave one of them out."
        )
    if local:
        return None
    if world is None and not fields:
        raise _not_named(call, numbers)
    over: World = fields[0].world if world is None else world
    other = next((field for field in fields if field.world is not over), None)
    if other is not None:
        raise UsageError(f"exact.{call} at {caller()}: {other.name} is a Field of another world. Leave world= out.")
    return over


def ranks_of_all(call: str, groups: Sequence[tuple[Any, ...]], world: World | None, local: bool) -> World | None:
    """Return the world over which `exact.CALL` reduces several groups of numbers: see `ranks_of`. Not collective."""
    worlds = [ranks_of(call, numbers, world, local) for numbers in groups]
    if any(other is not worlds[0] for other in worlds):
        raise UsageError(f"exact.{call} at {caller()}: the Fields are of several worlds. Reduce each separately.")
    return worlds[0] if worlds else None


def agree(world: World | None, size: int, facts: Callable[[], Any], op: str = "max") -> np.ndarray:
    """Return the reduction of `size` integers, which `facts` returns, over the ranks. Collective.

    An error of `facts` on any rank is raised on all ranks after the reduction: if all ranks have one, because the
    program is wrong and not the data of one rank, each raises its own.
    """
    own, refusal = np.zeros(size + 1, np.int64), None
    try:
        own[:-1] = facts()
    except (TypeError, ValueError, UsageError) as error:
        refusal, own[-1] = error, 1
    result = own if world is None else world.allreduce(own, op)
    if not result[-1]:
        return result[:-1]
    if world is not None and not world.all(refusal is not None):
        with world.raise_on_all_ranks(Exception):
            if refusal is not None:
                raise refusal
    raise refusal or AssertionError("an error of no rank")


def code_of(text: bytes) -> int:
    """Return a number of 56 bits for a text, by which ranks compare what they have."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")


def is_field(x: Any) -> bool:
    """Return whether it is a Field, and not an array or a number."""
    return hasattr(x, "local")


def _not_named(call: str, numbers: tuple[Any, ...]) -> UsageError:
    shape = getattr(numbers[0], "shape", None)
    fields, arrays = _ARGUMENTS.get(call, ("state.T", "x"))
    return UsageError(
        f"exact.{call} at {caller()}: an array, of shape {np.shape(numbers[0]) if shape is None else shape} here, "
        "holds elements of this rank alone, so the ranks to reduce over must be named.\n"
        f"Use exact.{call}({fields}) with a Field, exact.{call}({arrays}, world=state.world) for the arrays of all "
        f"ranks, or exact.{call}({arrays}, local=True) for this rank alone."
    )


def caller() -> str:
    """Return the file, line and function of the call of `exact`."""
    frame: Any = sys._getframe()
    while frame.f_globals.get("__name__", "").startswith(("anyrank.numerics.", "anyrank.exact")):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"
