"""Schema: all ranks agree on names, types and masks of columns before rows are sent or written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from anyrank.errors import UsageError, of_all_ranks
from anyrank.keyed.rows import Column, Columns, Text
from anyrank.keyed.types import arrow
from anyrank.world import World

#: Prefix for the name of a null mask. No user column has this prefix.
NULLS = "\0"
#: The names of internal key columns are empty or begin with a character up to this one.
_INTERNAL = "\1"


class Kind(NamedTuple):
    """Type of a column on one rank: dtype (None for Text), shape beyond axis 0, has a mask, has rows."""

    dtype: np.dtype[Any] | None
    shape: tuple[int, ...]
    masked: bool
    rows: bool

    @classmethod
    def of(cls, column: Column) -> Kind:
        """Return the type of a column."""
        if isinstance(column, Text):
            return cls(None, (), False, len(column) > 0)
        return cls(column.dtype, column.shape[1:], isinstance(column, np.ma.MaskedArray), len(column) > 0)

    def fits(self, other: Kind) -> bool:
        """Return whether both types are equal, except for the length of fixed-length strings."""
        types = {self.dtype, other.dtype}
        strings = None not in types and {dtype.kind for dtype in types if dtype is not None} in ({"S"}, {"U"})
        return self.shape == other.shape and (len(types) == 1 or strings)

    def __str__(self) -> str:
        return "text" if self.dtype is None else f"{self.dtype}{list(self.shape) if self.shape else ''}"


def unify_columns(world: World, columns: Mapping[str, Column]) -> Columns:
    """Return the columns with the same type on all ranks, and a mask on all ranks if any rank has one. Collective.

    All code that sends or writes rows calls this first, because types and masks decide the number and length of
    messages. A rank without rows takes the types of the other ranks. Fixed-length strings take the largest length.
    Raises UsageError on all ranks if names, types or axes differ.
    """
    ranks = world.comm.allgather({name: Kind.of(column) for name, column in columns.items()})
    for rank, kinds in enumerate(ranks):
        if [*kinds] != [*ranks[0]]:
            raise _refusal(f"columns are {_named(ranks[0])} on rank 0 and {_named(kinds)} on rank {rank}")
    return {name: _as(column, _joint(name, [kinds[name] for kinds in ranks])) for name, column in columns.items()}


def unify_arrays(world: World, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns with the same types on all ranks, of which those of Arrow have them already. Collective."""
    unified = unify_columns(world, {name: x for name, x in columns.items() if not isinstance(x, arrow().Array)})
    return {name: unified.get(name, column) for name, column in columns.items()}


def check_types(world: World, types: Mapping[str, Any]) -> None:
    """Raise UsageError on all ranks if the types of spilled columns differ between ranks. Collective."""
    types_by_rank = world.comm.allgather({name: str(dtype) for name, dtype in types.items()})
    for rank, other in enumerate(types_by_rank):
        if other != types_by_rank[0]:
            raise _refusal(f"columns are {types_by_rank[0]} on rank 0 and {other} on rank {rank}")


def _joint(name: str, kinds: Sequence[Kind]) -> Kind:
    """Return the common type of a column, from its types on all ranks."""
    first = next((rank for rank, kind in enumerate(kinds) if kind.rows), 0)
    joint = kinds[first]
    for rank, kind in enumerate(kinds):
        if kind.rows and not kind.fits(joint):
            title = name if name[:1] > _INTERNAL else "key"
            raise _refusal(f"column {title!r} is {joint} on rank {first} and {kind} on rank {rank}")
        if kind.rows and kind.dtype is not None and joint.dtype is not None:
            joint = joint._replace(dtype=max(joint.dtype, kind.dtype, key=lambda dtype: dtype.itemsize))
    return joint._replace(masked=joint.dtype is not None and any(kind.masked for kind in kinds))


def _as(column: Column, kind: Kind) -> Column:
    """Convert a column to the common type; a column of another type has no rows and becomes empty."""
    if kind.dtype is None:
        return column if isinstance(column, Text) else Text.of([])
    if isinstance(column, Text) or not len(column):
        column = np.empty((0, *kind.shape), kind.dtype)
    column = column.astype(kind.dtype, copy=False)
    return with_mask(column) if kind.masked else column


def with_mask(column: np.ndarray) -> np.ndarray:
    """Return the array as a masked array; without a mask of its own, no element is masked."""
    masked: np.ndarray = np.ma.MaskedArray(column, np.ma.getmaskarray(column))
    return masked


def split_masks(columns: Mapping[str, Column]) -> Columns:
    """Split each masked column into its null mask (name prefix NULLS) and its values; null values become zero."""
    result = Columns()
    for name, column in columns.items():
        if isinstance(column, np.ma.MaskedArray):
            result[NULLS + name] = nulls = np.ma.getmaskarray(column)
            column = np.where(nulls, np.zeros(1, column.dtype), column.data)
        result[name] = column
    return result


def join_masks(columns: Mapping[str, Column]) -> Columns:
    """Return the masked columns that `split_masks` split."""
    result = Columns()
    for name, column in columns.items():
        if not name.startswith(NULLS):
            nulls: Any = columns.get(NULLS + name)
            result[name] = column if nulls is None else np.ma.MaskedArray(np.asarray(column), nulls)
    return result


def _named(columns: Iterable[str]) -> list[str]:
    """Return the names of columns without those of internal key columns, see _INTERNAL."""
    return [name for name in columns if name[:1] > _INTERNAL]


def _refusal(what: str) -> UsageError:
    fix = "Ranks without rows must have them, too."
    return of_all_ranks(UsageError(f"{what}: all ranks must have the same columns. {fix}"))
