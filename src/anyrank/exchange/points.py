"""Read and write single points of a distributed array, on the ranks that own them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from anyrank.errors import AnyrankError, UsageError, of_all_ranks
from anyrank.exchange.block import HaloBlock

#: The kinds of dtypes, in the order in which a value of an earlier kind can be stored in an array of a later one.
_KINDS = ("b", "iu", "f", "c")


class Point:
    """One global point of a Field, with all its components or one of them. `Field.at` creates it.

    Parameters
    ----------
    block : HaloBlock
        The Field.
    index : tuple of int
        The global index along each axis of the grid.
    component : int or None
        The component; None for all of them.
    """

    def __init__(self, block: HaloBlock, index: tuple[int, ...], component: int | None):
        self._block, self._index, self._component = block, index, component

    def read(self) -> Any:
        """Return the value on all ranks: a Python number, or a NumPy array of all components. Collective."""
        value = probe(self._block, np.array([self._index]), self._component)[..., 0]
        return value if value.ndim else value.item()

    def write(self, value: Any) -> None:
        """Set the value. Not collective: all ranks make the call, and the rank that owns the point changes it.

        Parameters
        ----------
        value : number or array
            The value, or one value for each component.

        Raises
        ------
        UsageError
            If the field may not be written now, or cannot hold the value.
        """
        target, values = self._target(value)
        if target is not None:
            target[...] = values

    def add(self, value: Any) -> None:
        """Add to the value. Not collective: all ranks make the call, and the rank that owns the point changes it.

        Parameters
        ----------
        value : number or array
            The summand, or one summand for each component.

        Raises
        ------
        UsageError
            If the field may not be written now, or cannot hold the value.
        """
        target, values = self._target(value)
        if target is not None:
            target += values

    def _target(self, value: Any) -> tuple[Any, Any]:
        """Return a view of the values on their owner, None on other ranks, and the value as an array of the device."""
        block = self._block
        block.check_writable()
        values = self._converted(block.device.to_host(value) if block.device.owns(value) else np.asarray(value))
        _, start, stop = _bounds(block)
        if not all(a <= i < b for i, a, b in zip(self._index, start, stop, strict=True)):
            return None, None
        key: list[Any] = [i - a for i, a in zip(self._index, start, strict=True)]
        key = [slice(None), *key] if block.components else [*key, None]  # an array of one element is a view
        if self._component is not None:
            key[0] = slice(self._component, self._component + 1)
        return block.part(block.block)[tuple(key)], block.device.from_host(values)

    def _converted(self, value: np.ndarray) -> np.ndarray:
        """Return the value in the dtype of the field; UsageError if that would lose more than precision."""
        block, shape = self._block, self._block.components if self._component is None else ()
        kind = next((n for n, kinds in enumerate(_KINDS) if value.dtype.kind in kinds), len(_KINDS))
        rule = f"one number{''.join(f' or {count}' for count in shape)} of a kind that {block.dtype} holds"
        if value.shape in ((), shape) and block.dtype.kind in "".join(_KINDS[kind:]):
            if block.dtype.kind not in "iu" or _in_range(value, block.dtype):
                return value.astype(block.dtype)
            rule = f"in the range of {block.dtype}"
        raise UsageError(f"field {block.name}: the value {value.tolist()!r} of point {self._index} must be {rule}.")


def _in_range(value: np.ndarray, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return limits.min <= int(value.min()) and int(value.max()) <= limits.max


def _bounds(block: HaloBlock) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return the global shape along the axes of the grid, and the start and the stop of this rank's block."""
    layout, first = block.layout, len(block.components)
    return layout.shape[first:], layout.start[first:], layout.stop[first:]


def check_point(block: HaloBlock, index: Sequence[Any]) -> tuple[int, ...]:
    """Return a global index as integers; UsageError unless it is one of the array's points. Not collective."""
    shape, _, _ = _bounds(block)
    what = f"field {block.name}: the point ({', '.join(map(str, index))})"
    if len(index) != len(shape):
        raise UsageError(
            f"{what} has {len(index)} indices, and the shape {shape} has {len(shape)} axes. Give one each."
        )
    for axis, (i, n) in enumerate(zip(index, shape, strict=True)):
        if not isinstance(i, int | np.integer) or isinstance(i, bool) or not 0 <= i < n:
            raise UsageError(
                f"{what} has the index {i!r} along axis {axis}, which must be a whole number from 0 to {n - 1}: "
                "indices are global. Use one of these."
            )
    return tuple(map(int, index))


def check_component(block: HaloBlock, component: Any) -> int | None:
    """Return the number of a component, None for all; UsageError if the array has no such component."""
    count = block.components[0] if block.components else 0
    if component is None or (isinstance(component, int | np.integer) and 0 <= component < count):
        return None if component is None else int(component)
    rule = f"must be a whole number from 0 to {count - 1}" if count else "must be left out: the field has no components"
    raise UsageError(f"field {block.name}: component={component!r} {rule}.")


def check_points(block: HaloBlock, points: Any) -> np.ndarray:
    """Return points as an int64 array, one row each; UsageError unless all are points of the array."""
    (shape, _, _), given = _bounds(block), np.asarray(points)
    if given.size == 0:
        return np.zeros((0, len(shape)), np.int64)
    if given.ndim != 2 or given.shape[1] != len(shape) or given.dtype.kind not in "iu":
        raise UsageError(
            f"field {block.name}: points is an array of {given.dtype} of shape {given.shape}, but must be whole "
            f"numbers of shape (n, {len(shape)}): one row of global indices for each point."
        )
    outside = ((given < 0) | (given >= shape)).any(axis=1)
    if outside.any():
        check_point(block, given[int(np.argmax(outside))].tolist())
    return given.astype(np.int64)


def probe(block: HaloBlock, points: np.ndarray, component: int | None = None) -> np.ndarray:
    """Return the values at checked points on all ranks, the components first. Collective: two reductions.

    Each rank gives the bits of its own points and zeros for all others, so that a sum of integers has the bits of each.
    """
    _check_alike(block, points, component)
    _, start, stop = _bounds(block)
    mine = ((points >= start) & (points < stop)).all(axis=1)
    values = np.zeros((*(block.components if component is None else ()), len(points)), block.dtype)
    key: list[Any] = [block.device.from_host(i) for i in np.ascontiguousarray((points[mine] - start).T)]
    if block.components:
        key.insert(0, slice(None) if component is None else component)
    if mine.any():
        values[..., mine] = block.device.to_host(block.part(block.block)[tuple(key)])
    words = np.zeros(-(-values.nbytes // 8), np.uint64)
    words.view(np.uint8)[: values.nbytes] = values.reshape(-1).view(np.uint8)
    found = block.layout.world.allreduce(words)
    values.reshape(-1).view(np.uint8)[:] = found.view(np.uint8)[: values.nbytes]
    return values


def _check_alike(block: HaloBlock, points: np.ndarray, component: int | None) -> None:
    """Raise AnyrankError on all ranks if they ask for different points. Collective.

    The points determine the length of the next message, so ranks compare a hash of them before it.
    """
    asked = f"{component} {points.shape}".encode() + points.tobytes()
    own = np.frombuffer(blake2b(asked, digest_size=8).digest(), np.uint64)
    least = block.layout.world.allreduce(np.concatenate([own, ~own]), "min")
    if least[0] != ~least[1]:  # the smallest hash is not the largest
        message = f"field {block.name}: the ranks ask for different points. Give the same points on all ranks."
        raise of_all_ranks(AnyrankError(message))
