"""The variance and the histogram of the numbers of all ranks, in no order."""

from __future__ import annotations

import math
from functools import partial
from operator import index
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike

from anyrank.errors import AnyrankError, UsageError
from anyrank.kernel import BODIES
from anyrank.kernels.exact_sum import ORIGIN
from anyrank.numerics.accumulator import quotient
from anyrank.numerics.elements import float64_of, local_elements
from anyrank.numerics.reduction import agree, code_of, ranks_of
from anyrank.numerics.strided import flat_tiles
from anyrank.numerics.totals import Total, add_elements, add_squares, totals, totals_along

if TYPE_CHECKING:
    from anyrank.numerics.accumulator import Numbers
    from anyrank.numerics.totals import Axis
    from anyrank.world import World


@overload
def variance(x: Numbers, ddof: int = 0, world: World | None = None, *, local: bool = False) -> float: ...
@overload
def variance(
    x: Numbers, ddof: int = 0, world: World | None = None, *, axis: Axis, local: bool = False
) -> np.ndarray: ...
def variance(
    x: Numbers, ddof: int = 0, world: World | None = None, *, axis: Axis | None = None, local: bool = False
) -> Any:
    """Return the variance Σ|x − mean|²/(n − ddof), correctly rounded; NaN if an element is not finite.

    It is computed as (n·Σ|x|² − |Σx|²)/(n·(n − ddof)) from the exact sums, in integers, which are rounded once: without
    the cancellation of this formula in floating point (T. Chan, G. Golub and R. LeVeque, Algorithms for computing the
    sample variance, The American Statistician 37 (1983) 242-247).

    Parameters
    ----------
    x : Field or array_like
        Numbers of any shape, real or complex.
    ddof : int
        0 for the variance of these numbers, 1 for the estimate from a sample.
    axis : int or tuple of int, optional
        The axes to reduce; all of them if none is given. The result is an array of the axes that remain.
    world, local : World, bool
        The ranks: see the module's docstring. The call is collective unless `local` is True.

    Raises
    ------
    AnyrankError
        If there are at most `ddof` elements, or none.

    Examples
    --------
    >>> exact.variance([1e9, 1e9 + 1, 1e9 + 2], ddof=1, local=True)
    1.0
    """
    if index(ddof) < 0:
        raise UsageError(f"exact.variance: ddof={ddof} must be at least 0.")
    terms = add_elements, add_squares
    if axis is not None:
        return totals_along("variance", x, axis, world, local, partial(_variance, ddof), terms)
    return _variance(ddof, *totals("variance", [(add, (x,)) for add in terms], world, local))


def _variance(ddof: int, linear: Total, squares: Total) -> float:
    n = linear.parts[0].count
    if n <= ddof:
        raise AnyrankError(f"the variance of {n} numbers with ddof={ddof} is not defined: give it more than {ddof}.")
    if not squares.parts[0].finite:
        return math.nan
    numerator = (n * squares.parts[0].fixed << ORIGIN) - sum(part.fixed**2 for part in linear.parts)
    return quotient(numerator, n * (n - ddof) << 2 * ORIGIN)


def histogram(
    x: Numbers,
    bins: int | ArrayLike,
    range: tuple[float, float] | None = None,
    world: World | None = None,
    *,
    local: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of elements in each bin, and the edges of the bins.

    The elements, as float64, are compared with the edges: a bin contains its lower edge, and the last one also its
    upper edge, as in `numpy.histogram`. Elements outside the edges, and NaN, are not counted.

    Parameters
    ----------
    x : Field or array_like
        Real numbers of any shape.
    bins : int or array_like
        The number of bins of one width, or the edges of the bins, which must not decrease.
    range : tuple of float, optional
        For a number of bins: the lowest and the highest edge, such as `(exact.min(x), exact.max(x))` of a Field.
    world, local : World, bool
        The ranks: see the module's docstring. The call is collective unless `local` is True.

    Returns
    -------
    counts : int64 array
        The number of elements of all ranks in each bin.
    edges : float64 array
        The given edges, or `numpy.linspace(*range, bins + 1)`.

    Raises
    ------
    UsageError
        If the bins or the range are not valid, or not the same on all ranks.

    Examples
    --------
    >>> exact.histogram([0.0, 1.0, 1.5, 4.0, 9.0], 4, (0.0, 4.0), local=True)
    (array([1, 2, 0, 1]), array([0., 1., 2., 3., 4.]))
    >>> exact.histogram([0.0, 1.0, 1.5, 4.0, 9.0], [0.0, 1.5, 10.0], local=True)[0]
    array([2, 3])
    """
    world = ranks_of("histogram", (x,), world, local)
    edges = _agreed_edges(x, bins, range, world)
    counts = _counts(local_elements(x), edges)
    return (counts if world is None else world.allreduce(counts)), edges


def _agreed_edges(x: Any, bins: Any, ends: tuple[float, float] | None, world: World | None) -> np.ndarray:
    """Return the edges of the bins; UsageError is raised if they are not the same on all ranks. Collective."""
    edges = np.empty(0)

    def facts() -> list[int]:
        nonlocal edges
        local_elements(x)
        edges = _edges(bins, ends)
        code = code_of(edges.tobytes())
        return [code, -code]

    code, minus_code = agree(world, 2, facts)
    if code != -minus_code:
        given = f"bins={bins!r}" if ends is None else f"bins={bins!r}, range={ends}"
        raise UsageError(
            f"exact.histogram: {given} on one rank, and others on another rank. They must be the same: use exact.min "
            "and exact.max for the range of all ranks."
        )
    return edges


def _edges(bins: Any, ends: tuple[float, float] | None) -> np.ndarray:
    if np.ndim(bins):
        return _given_edges(bins, ends)
    if index(bins) < 1:
        raise UsageError(f"exact.histogram: bins={bins} must be at least 1.")
    if ends is None:
        raise UsageError(
            f"exact.histogram: bins={bins} needs a range=(low, high), or give the edges: bins=[…]. For all elements of "
            "a Field: range=(exact.min(x), exact.max(x))."
        )
    low, high = map(float, ends)
    with np.errstate(all="ignore"):
        edges = np.linspace(low, high, index(bins) + 1)
    if not (edges[1:] > edges[:-1]).all():
        raise UsageError(
            f"exact.histogram: range={ends} must be two finite numbers, the lower one first, and far enough apart for "
            f"bins={bins}."
        )
    return edges


def _given_edges(bins: Any, ends: tuple[float, float] | None) -> np.ndarray:
    edges = np.array(bins, np.float64) + 0.0  # without −0
    if ends is not None:
        raise UsageError(f"exact.histogram: range={ends} is for a number of bins. Leave it out beside edges.")
    if edges.ndim > 1 or len(edges) < 2 or not (edges[1:] >= edges[:-1]).all():
        raise UsageError(
            f"exact.histogram: bins = {bins!r} must be two edges or more, of which none is below the last."
        )
    return edges


def _counts(array: Any, edges: np.ndarray) -> np.ndarray:
    """Return the counts of the elements of this rank, on the host: blocks are sorted, with NaN at their ends."""
    counts, device = np.zeros(len(edges) - 1, np.int64), BODIES.device
    on_gpu = device.owns(array)
    lower, last = (device.from_host(part) if on_gpu else part for part in (edges[:-1], edges[-1:]))
    for block in flat_tiles(array, False, array.strides):
        values = np.sort(float64_of(block).reshape(-1))
        places = np.concatenate([np.searchsorted(values, lower, "left"), np.searchsorted(values, last, "right")])
        counts += np.diff(device.to_host(places) if on_gpu else places)
    return counts
