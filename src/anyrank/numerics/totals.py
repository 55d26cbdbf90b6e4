"""Sums over all ranks: several in one message, or those along some axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod
from operator import index
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from anyrank.device.host import contiguous_parts
from anyrank.errors import AnyrankError, UsageError
from anyrank.kernels.exact_sum import ORIGIN
from anyrank.numerics.accumulator import Accumulator, RowSums
from anyrank.numerics.elements import float64_of, local_elements, real_parts
from anyrank.numerics.reduction import agree, code_of, is_field, ranks_of, ranks_of_all
from anyrank.numerics.strided import most_copied

if TYPE_CHECKING:
    from anyrank.world import World

    Axis: TypeAlias = int | tuple[int, ...]
    Sum: TypeAlias = Accumulator | RowSums

#: The kinds of terms: integers and bool, real and complex numbers.
_INTEGRAL, _REAL, _COMPLEX = range(3)
_DTYPES = np.int64, np.float64, np.complex128
_KINDS = {"b": _INTEGRAL, "i": _INTEGRAL, "u": _INTEGRAL, "f": _REAL, "c": _COMPLEX}
#: Sums along axes that are reduced over the ranks in one message, of 1 KiB each.
_SUMS = 4096


@dataclass(frozen=True)
class Total:
    """A sum over the ranks: one accumulator, or two for the real and the imaginary part."""

    parts: Sequence[Accumulator]
    kind: int

    def value(self) -> Any:
        """Return the sum: an exact int for integers and bool, else correctly rounded."""
        return self.parts[0].fixed >> ORIGIN if self.kind == _INTEGRAL else self._number(Accumulator.value)

    def mean(self) -> Any:
        """Return the sum divided by the number of terms, correctly rounded."""
        return self._number(Accumulator.mean)

    def _number(self, of: Callable[[Accumulator], float]) -> Any:
        return complex(*map(of, self.parts)) if self.kind == _COMPLEX else of(self.parts[0])


def add_elements(sums: Sequence[Sum], x: Any) -> None:
    """Add the elements to the sums of their real and their imaginary parts."""
    for total, part in zip(sums, real_parts(x), strict=False):
        total.add(part)


def add_products(sums: Sequence[Accumulator], x: Any, y: Any) -> None:
    """Add the products of the conjugates of `x` with `y`."""
    (a, *b), (c, *d) = real_parts(x), real_parts(y)
    sums[0].add_product(a, c)
    if b and d:
        sums[0].add_product(b[0], d[0])
    if d:
        sums[1].add_product(a, d[0])
    if b:
        sums[1].add_product(-float64_of(b[0]), c)


def add_squares(sums: Sequence[Sum], x: Any) -> None:
    """Add the squares of the magnitudes."""
    for part in real_parts(x):
        sums[0].add_product(part, part)


def totals(
    call: str, terms: Sequence[tuple[Callable[..., None], tuple[Any, ...]]], world: World | None, local: bool
) -> list[Total]:
    """Return one sum over the ranks for each term, a function above with its numbers, in one message. Collective.

    The length of the message is decided from the arguments of the program, and not from the dtypes of arrays, which
    may differ between ranks; only the dtype of a Field is the same on all.
    """
    world = ranks_of_all(call, [numbers for _, numbers in terms], world, local)
    if not terms:
        return []
    sums = [[Accumulator() for _ in range(_width(add, numbers))] for add, numbers in terms]
    split = sum(map(len, sums)) * Accumulator.SIZE

    def facts() -> np.ndarray:
        kinds = []
        for (add, numbers), parts in zip(terms, sums, strict=True):
            arrays = [local_elements(x, "biufc") for x in numbers]
            add(parts, *arrays)
            kinds += _facts(arrays)
        return np.concatenate([*(part.limbs for parts in sums for part in parts), kinds])

    message = agree(world, split + 6 * len(terms), facts, "sum")
    reduced = iter(message[:split].reshape(-1, Accumulator.SIZE))
    kinds = map(_kind, message[split:].reshape(-1, 6))
    return [Total([_accumulator(next(reduced)) for _ in parts], kind) for parts, kind in zip(sums, kinds, strict=True)]


def _width(add: Callable[..., None], numbers: tuple[Any, ...]) -> int:
    real = all(is_field(x) and x.dtype.kind != "c" for x in numbers)
    return 1 if real or add is add_squares else 2


def _accumulator(limbs: np.ndarray) -> Accumulator:
    """Return the sum of the limbs of all ranks, with carries propagated."""
    return Accumulator(limbs).allreduce(None)


def _facts(arrays: Sequence[Any]) -> list[int]:
    """Return counts for each kind of terms: of the ranks with this kind, and of those that also have elements."""
    kind = max(_KINDS[array.dtype.kind] for array in arrays)
    ranks = [int(kind == k) for k in range(3)]
    return ranks + [n * (arrays[0].size > 0) for n in ranks]


def _kind(facts: np.ndarray) -> int:
    """Return the kind of all terms: a dtype counts only on ranks with elements, unless no rank has any."""
    return int(np.flatnonzero(facts[3:] if facts[3:].any() else facts[:3]).max())


def totals_along(
    call: str,
    x: Any,
    axis: Any,
    world: World | None,
    local: bool,
    number: Callable[..., Any],
    terms: Sequence[Callable[..., None]] = (add_elements,),
) -> Any:
    """Return the array of `number(*totals)` along some axes, of one Total for each of the `terms`. Collective.

    The axes are those of the global array for a Field, and otherwise those of the array of this rank; then the sums go
    over the ranks too. Two messages, or more for many sums.
    """
    world = ranks_of(call, (x,), world, local)
    slices = x.layout.slices if is_field(x) and not local else None
    kind, kept, shape = _kind_and_axes(call, x, axis, world, slices is not None)
    array = local_elements(x, "biufc")
    # The axes that remain come first, and there is at least one of both kinds.
    rows = array.transpose([*kept, *(k for k in range(array.ndim) if k not in kept)])[None, ..., None]
    own = [slice(0, 1), *(slice(0, n) if slices is None else slices[k] for k, n in zip(kept, shape, strict=True))]
    widths = [1 + (kind == _COMPLEX and add is not add_squares) for add in terms]
    values = []
    for part in contiguous_parts((1, *shape), _SUMS):
        limbs = np.zeros((*(s.stop - s.start for s in part), sum(widths), Accumulator.SIZE), np.int64)
        both = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(part, own, strict=True)]
        if all(s.start < s.stop for s in both):
            _add_rows(limbs[_relative(both, part)], rows[_relative(both, own)], terms, widths)
        limbs = limbs if world is None else world.allreduce(limbs)
        for sums in limbs.reshape(-1, sum(widths), Accumulator.SIZE):
            reduced = map(_accumulator, sums)
            values.append(number(*(Total([*islice(reduced, width)], kind) for width in widths)))
    dtype = np.float64 if call == "variance" or (call == "mean" and kind == _INTEGRAL) else _DTYPES[kind]
    try:
        return np.array(values, dtype).reshape(shape)[()]
    except OverflowError:
        raise AnyrankError(f"exact.{call}: a sum along axis {axis} exceeds int64. Use numbers of float64.") from None


def _relative(region: Sequence[slice], to: Sequence[slice]) -> tuple[slice, ...]:
    return tuple(slice(s.start - o.start, s.stop - o.start) for s, o in zip(region, to, strict=True))


def _add_rows(limbs: np.ndarray, rows: Any, terms: Sequence[Callable[..., None]], widths: Sequence[int]) -> None:
    """Add the elements along the last axes of `rows` to the limbs at the first axes, those of the sums.

    Long sums are added one by one. Short ones are added in blocks of several, because a GPU needs a launch for each.
    """
    kept = limbs.ndim - 2
    length, most = prod(rows.shape[kept:]), most_copied(rows)
    for index_of_part in contiguous_parts(rows.shape[:kept], max(1, most // max(1, length))):
        target, block = limbs[index_of_part], rows[index_of_part]
        count = prod(target.shape[:kept])
        own = np.zeros((sum(widths), count, Accumulator.SIZE), np.int64)
        block = block.reshape(count, length) if length < most else block[(0,) * kept + (..., 0)]
        sums: Iterator[Any] = iter([RowSums(part) if length < most else Accumulator(part[0]) for part in own])
        for add, width in zip(terms, widths, strict=True):
            add([*islice(sums, width)], block)
        target += np.moveaxis(own, 0, 1).reshape(target.shape)


def _kind_and_axes(
    call: str, x: Any, axis: Any, world: World | None, whole: bool
) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Return the kind of the sums, and the axes and the shape that remain, agreed between the ranks. Collective."""
    axes, shape = list[int](), list[int]()

    def facts() -> list[int]:
        array = local_elements(x, "biufc")
        sizes = x.layout.shape if whole else array.shape
        axes[:] = _remaining_axes(call, axis, len(sizes))
        shape[:] = [sizes[k] for k in axes]
        code = code_of(str(shape).encode())
        return [*_facts([array]), code, -code]

    agreed = agree(world, 8, facts)
    if agreed[6] != -agreed[7]:
        raise UsageError(
            f"exact.{call}: axis={axis}: the sizes of the axes that remain, {shape} on one rank, are others on another "
            "rank. They must be the same, because the sums go over the ranks. Use a Field for a global array."
        )
    return _kind(agreed[:6]), tuple(axes), tuple(shape)


def _remaining_axes(call: str, axis: Any, ndim: int) -> tuple[int, ...]:
    """Return the axes that are not reduced; raises UsageError for an axis that does not exist or occurs twice."""
    axes = [index(a) for a in (axis if isinstance(axis, tuple | list) else (axis,))]
    reduced = {a % ndim for a in axes if -ndim <= a < ndim}
    if len(reduced) != len(axes):
        raise UsageError(
            f"exact.{call}: axis={axis} must be one axis or several different ones of an array of {ndim} axes, "
            f"from {-ndim} to {ndim - 1}."
        )
    return tuple(k for k in range(ndim) if k not in reduced)
