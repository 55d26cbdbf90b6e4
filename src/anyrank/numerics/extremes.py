"""The smallest or largest element over all ranks and its index; the encoding as an integer for the reduction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from anyrank.errors import AnyrankError, UsageError
from anyrank.numerics.elements import float64_of, flushes_subnormals, local_elements
from anyrank.numerics.reduction import Distributed, agree, caller, is_field, ranks_of
from anyrank.numerics.strided import contiguous_strides, flat_tiles, offset_of

if TYPE_CHECKING:
    from anyrank.world import World

_HIGHEST, _LOWEST = (1 << 63) - 1, -(1 << 63)
#: The dtypes of the encoding: smaller integers and bool as int64, smaller floats as float64.
_KINDS = np.dtype(np.int64), np.dtype(np.uint64), np.dtype(np.float64)
#: The number of elements along an axis of an array on a GPU that one block of threads reduces.
_PER_BLOCK = 1 << 12


def extreme(array: Any, largest: bool) -> Any:
    """Return the smallest or largest element, or NaN if there is one.

    CuPy reduces a non-contiguous array with one block of threads per result, so that one block would reduce the whole
    array. Therefore this function first reduces parts of the longest axis, and then their results, which are
    contiguous.
    """

    def reduce(part: Any, **axis: int) -> Any:
        return part.max(**axis) if largest else part.min(**axis)

    if isinstance(array, np.ndarray) or array.flags.c_contiguous or array.flags.f_contiguous:
        return reduce(array)
    rows = array.swapaxes(max(range(array.ndim), key=lambda axis: (array.shape[axis], axis)), -1)
    *others, columns = rows.shape
    divisible = columns // _PER_BLOCK * _PER_BLOCK
    partial = []
    if divisible:
        shape = *others, divisible // _PER_BLOCK, _PER_BLOCK
        partial.append(reduce(rows[..., :divisible].reshape(shape), axis=-1).ravel())
    if divisible < columns:
        partial.append(reduce(rows[..., divisible:], axis=-1).ravel())
    return reduce(np.concatenate(partial))


def encode(value: float, dtype: np.dtype[Any], largest: bool) -> int:
    """Return an int64 that increases with the order of the values, or decreases; NaN has the largest code."""
    if value != value:
        return _HIGHEST
    code = int(value) - _offset(dtype) if dtype.kind != "f" else _ordered(int(np.float64(value).view(np.int64)))
    return code if largest else ~code


def decode(code: int, dtype: np.dtype[Any], largest: bool) -> float:
    """Return the value of a code."""
    code = code if largest else ~code
    if dtype.kind != "f":
        return code + _offset(dtype)
    return float(np.int64(_ordered(code)).view(np.float64))


def _offset(dtype: np.dtype[Any]) -> int:
    return 1 << 63 if dtype == np.uint64 else 0


def _ordered(bits: int) -> int:
    """Map the bits of a double to an integer with the order of the doubles, and back.

    The bits of negative doubles, as an integer, decrease with the value; flipping all bits except the sign reverses it.
    """
    return bits if bits >= 0 else bits ^ _HIGHEST


def extreme_of_ranks(call: str, x: Any, world: World | None) -> tuple[float, bool]:
    """Return the smallest or largest element of all ranks, and whether this rank has it. Collective."""
    largest, own = call.endswith("max"), [-1, -len(_KINDS), _LOWEST]  # those of a rank without elements

    def facts() -> list[int]:
        array = local_elements(x)
        if array.size:
            kind = 2 if array.dtype.kind == "f" else int(array.dtype == np.uint64)
            own[:] = kind, -kind, encode(_local_extreme(array, largest), array.dtype, largest)
        return own

    last_kind, minus_first_kind, code = agree(world, len(own), facts).tolist()
    if last_kind < 0:
        raise AnyrankError("the smallest or largest of no numbers is not defined: give it at least one.")
    if last_kind != -minus_first_kind:
        kinds = f"{_KINDS[-minus_first_kind]} and {_KINDS[last_kind]}"
        raise TypeError(f"exact.{call} takes arrays of one kind on all ranks that have elements, not {kinds}")
    return decode(code, _KINDS[last_kind], largest), own[0] >= 0 and own[2] == code


def _local_extreme(array: Any, largest: bool) -> float:
    value = extreme(array, largest).item()
    if flushes_subnormals(array) and abs(value) < 2.0**-126:
        values = (_local_extreme(float64_of(block), largest) for block in flat_tiles(array, False, array.strides))
        return max(values, key=lambda value: encode(value, np.dtype(np.float64), largest))
    if value == 0 and array.dtype.kind == "f":
        # The sign of a zero extreme: the bits as integers have the order of the values, and only −0 is negative.
        bits = array.view(array.dtype.str.replace("f", "i"))
        return -0.0 if extreme(bits, largest).item() < 0 else 0.0
    return value  # type: ignore[no-any-return]


def argmin(x: np.ndarray | Distributed, world: World | None = None, *, local: bool = False) -> tuple[int, ...]:
    """Return the global index of the element that `exact.min` returns, the first in C order.

    Parameters
    ----------
    x : Field or array_like
        Numbers of any shape. For an array, `local=True` is required, and the index counts in this array.
    world, local : World, bool
        The ranks: see the module's docstring. The call is collective unless `local` is True.

    Examples
    --------
    >>> exact.argmin([[2, 1], [1, 3]], local=True)
    (0, 1)
    """
    return _index("argmin", x, world, local)


def argmax(x: np.ndarray | Distributed, world: World | None = None, *, local: bool = False) -> tuple[int, ...]:
    """Return the global index of the element that `exact.max` returns, the first in C order.

    Parameters
    ----------
    x : Field or array_like
        Numbers of any shape. For an array, `local=True` is required, and the index counts in this array.
    world, local : World, bool
        The ranks: see the module's docstring. The call is collective unless `local` is True.

    Examples
    --------
    >>> exact.argmax([-0.0, 0.0, 0.0], local=True)
    (1,)
    """
    return _index("argmax", x, world, local)


def _index(call: str, x: Any, world: World | None, local: bool) -> tuple[int, ...]:
    if not is_field(x) and not local:
        raise UsageError(
            f"exact.{call} at {caller()}: an array of a rank has no global indices. Use a Field or local=True."
        )
    world = ranks_of(call, (x,), world, local)
    value, has_it = extreme_of_ranks(call, x, world)
    shape = x.layout.shape if is_field(x) else np.shape(x)
    steps, linear = contiguous_strides(shape), _HIGHEST
    if has_it:
        array = local_elements(x)
        own = np.unravel_index(_first(array, value), array.shape)
        start = x.layout.start if is_field(x) else (0,) * len(shape)
        linear = offset_of([int(i) + a for i, a in zip(own, start, strict=True)], steps)
    if world is not None:
        linear = int(world.allreduce(np.array([linear], np.int64), "min")[0])
    return tuple(linear // step % n for step, n in zip(steps, shape, strict=True))


def _first(array: Any, value: float) -> int:
    """Return the position in C order of the first element that is `value`, with the sign of zero, or NaN."""
    x = float64_of(array) if flushes_subnormals(array) else array
    if value != value:
        equal = x != x
    elif value == 0 and x.dtype.kind == "f":
        equal = (x == 0) & (np.signbit(x) == (math.copysign(1, value) < 0))
    else:
        equal = x == value
    return int(equal.reshape(-1).argmax())
