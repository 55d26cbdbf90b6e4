"""Sums, dot products, norms and other reductions over all ranks, correctly rounded, in no order.

The terms are added to a fixed-point number that is wide enough for every double and every product of two doubles (see
`anyrank.kernels.exact_sum`). The addition of integers is associative, so that the result is the same on any number of
ranks and with any decomposition: the exact result, rounded once, to nearest, ties to even, and ±∞ if it overflows. A
sum equals `math.fsum`, but does not raise OverflowError if only an intermediate sum overflows.

In all functions `x` is an array of any shape, on the host or on the GPU of this process, or a Field, of which every
rank adds the elements that it owns. Elements stay on the GPU: only limbs, or the extreme of a rank, are copied to the
host. Elements are bool, integers or real numbers of up to 8 bytes, in any byte order; sums, products, norms and the
variance take complex numbers of two of these too. Others raise TypeError. NaN, or +∞ with −∞, gives NaN, for the real
and the imaginary part by itself. A zero sum is +0.0, whatever the signs of its terms are.

The ranks of a reduction are always explicit:

- for a Field: all ranks of its world; collective;
- for an array with `world=state.world`: all ranks of that world, each with its own array; collective;
- with `local=True`: this rank alone, and of a Field only the elements that it owns; not collective.

An array without either raises UsageError, because the result would be right on one rank and partial on several.

With `axis=`, a sum, mean or variance goes along one axis or several, and the result is an array of the axes that
remain, the same on all ranks: float64, int64 (AnyrankError if a sum exceeds it) or complex128. Of a Field the axes are
those of the global array, that of components included. With `world=`, the sum goes along the axes of each rank's array
and over the ranks: for an array whose axis 0 is distributed, `axis` includes 0. The axes that remain have equal sizes
on all ranks, and are not distributed; use a Field if they are. A result takes about 25 µs for each of its elements.

If the arrays of some ranks cannot be reduced, all ranks raise an error: their own, if all have one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from anyrank.numerics.accumulator import Accumulator
from anyrank.numerics.extremes import argmax, argmin, extreme_of_ranks
from anyrank.numerics.reduction import ranks_of
from anyrank.numerics.statistics import histogram, variance
from anyrank.numerics.totals import Total, add_elements, add_products, add_squares, totals, totals_along

if TYPE_CHECKING:
    from anyrank.numerics.accumulator import Numbers
    from anyrank.numerics.totals import Axis
    from anyrank.world import World

__all__ = [
    "Accumulator",
    "argmax",
    "argmin",
    "dot",
    "dots",
    "histogram",
    "max",
    "mean",
    "min",
    "norm",
    "norms",
    "sum",
    "variance",
]


@overload
def sum(x: Numbers, world: World | None = None, *, local: bool = False) -> float: ...
@overload
def sum(x: Numbers, world: World | None = None, *, axis: Axis, local: bool = False) -> np.ndarray: ...
def sum(x: Numbers, world: World | None = None, *, axis: Axis | None = None, local: bool = False) -> Any:
    """Return the sum: correctly rounded float64, or an exact int for integers and bool.

    Parameters
    ----------
    x : Field or array_like
        Numbers of any shape.
    axis : int or tuple of int, optional
        The axes to reduce; all of them if none is given. The result is an array of the axes that remain.
    world, local : World, bool
        The ranks: see the module's docstring. The call is collective unless `local` is True.

    Examples
    --------
    >>> exact.sum([0.1] * 10, local=True)
    1.0
    >>> exact.sum([[1, 2], [3, 4]], axis=0, local=True)
    array([4, 6])
    """
    if axis is not None:
        return totals_along("sum", x, axis, world, local, Total.value)
    return totals("sum", [(add_elements, (x,))], world, local)[0].value()


@overload
def mean(x: Numbers, world: World | None = None, *, local: bool = False) -> float: ...
@overload
def mean(x: Numbers, world: World | None = None, *, axis: Axis, local: bool = False) -> np.ndarray: ...
def mean(x: Numbers, world: World | None = None, *, axis: Axis | None = None, local: bool = False) -> Any:
    """Return the arithmetic mean, rounded once, correctly; raise AnyrankError without elements.

    Parameters
    ----------
    x : Field or array_like
        Numbers of any shape.
    axis : int or tuple of int, optional
        The axes to reduce; all of them if none is given. The result is an array of the axes that remain.
    world, local : World, bool
        The ranks: see the module's docstring. The call is collective unless `local` is True.

    Examples
    --------
    >>> exact.mean([1, 2], local=True)
    1.5
    """
    if axis is not None:
        return totals_along("mean", x, axis, world, local, Total.mean)
    return totals("mean", [(add_elements, (x,))], world, local)[0].mean()


def dot(x: Numbers, y: Numbers, world: World | None = None, *, local: bool = False) -> float:
    """Return the dot product Σ x̄·y: correctly rounded float64, or an exact int for integers and bool.

    Complex numbers of `x` are conjugated, as by `np.vdot`. The real and the imaginary part are correctly rounded.

    Parameters
    ----------
    x, y : Field or array_like
        Numbers, of one shape. Products do not overflow or underflow.
    world, local : World, bool
        The ranks: see the module's docstring. The call is collective unless `local` is True.

    Raises
    ------
    ValueError
        If the shapes or the layouts of the Fields differ.

    Examples
    --------
    >>> exact.dot([1e200, 1.0, 1e200], [1e200, 1.0, -1e200], local=True)
    1.0
    """
    return _dots("dot", [(x, y)], world, local)[0]


def dots(pairs: Sequence[tuple[Numbers, Numbers]], world: World | None = None, *, local: bool = False) -> list[float]:
    """Return the dot product of each pair, as `dot` does, in one message for all, as Krylov methods need.

    Parameters
    ----------
    pairs : sequence of tuple of Field or array_like
        The pairs of numbers, of one shape within a pair. All ranks give the same number of pairs.
    world, local : World, bool
        The ranks: see the module's docstring. The call is collective unless `local` is True or there is no pair.

    Examples
    --------
    >>> r, p = np.array([1.0, 2.0]), np.array([3.0, -1.0])
    >>> exact.dots([(r, r), (r, p)], local=True)
    [5.0, 1.0]
    """
    return _dots("dots", pairs, world, local)


def _dots(call: str, pairs: Sequence[tuple[Any, Any]], world: World | None, local: bool) -> list[float]:
    return [total.value() for total in totals(call, [(add_products, (x, y)) for x, y in pairs], world, local)]


def norm(x: Numbers, world: World | None = None, *, local: bool = False) -> float:
    """Return the Euclidean norm √Σ|x|², correctly rounded, without intermediate overflow or underflow.

    Parameters
    ----------
    x : Field or array_like
        Numbers of any shape.
    world, local : World, bool
        The ranks: see the module's docstring. The call is collective unless `local` is True.

    Examples
    --------
    >>> exact.norm([3.0, 4.0], local=True)
    5.0
    """
    return _norms("norm", [x], world, local)[0]


def norms(numbers: Sequence[Numbers], world: World | None = None, *, local: bool = False) -> list[float]:
    """Return the Euclidean norm of each Field or array, as `norm` does, in one message for all.

    Parameters
    ----------
    numbers : sequence of Field or array_like
        Numbers of any shapes. All ranks give the same number of them.
    world, local : World, bool
        The ranks: see the module's docstring. The call is collective unless `local` is True or `numbers` is empty.

    Examples
    --------
    >>> exact.norms([[3.0, 4.0], [1j]], local=True)
    [5.0, 1.0]
    """
    return _norms("norms", numbers, world, local)


def _norms(call: str, numbers: Sequence[Any], world: World | None, local: bool) -> list[float]:
    return [total.parts[0].root() for total in totals(call, [(add_squares, (x,)) for x in numbers], world, local)]


def min(x: Numbers, world: World | None = None, *, local: bool = False) -> float:
    """Return the smallest element, NaN if there is one; raise AnyrankError without elements. −0 is below +0.

    Parameters
    ----------
    x : Field or array_like
        Numbers of any shape.
    world, local : World, bool
        The ranks: see the module's docstring. The call is collective unless `local` is True.

    Examples
    --------
    >>> exact.min([2, -3], local=True)
    -3
    """
    return extreme_of_ranks("min", x, ranks_of("min", (x,), world, local))[0]


def max(x: Numbers, world: World | None = None, *, local: bool = False) -> float:
    """Return the largest element, NaN if there is one; raise AnyrankError without elements. +0 is above −0.

    Parameters
    ----------
    x : Field or array_like
        Numbers of any shape.
    world, local : World, bool
        The ranks: see the module's docstring. The call is collective unless `local` is True.

    Examples
    --------
    >>> exact.max([-0.0, 0.0], local=True)
    0.0
    """
    return extreme_of_ranks("max", x, ranks_of("max", (x,), world, local))[0]
