"""The variance and the histogram of the numbers of all ranks, in no order."""

from __future__ import annotations

import math
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from anyrank.errors import AnyrankError, UsageError
from anyrank.kernel import BODIES
from anyrank.kernels.exact_sum import ORIGIN
from anyrank.numerics.accumulator import quotient
from anyrank.numerics.elements import float64_of, local_elements
from anyrank.numerics.extremes import encode
from anyrank.numerics.reduction import agree, ranks_of
from anyrank.numerics.strided import flat_tiles
from anyrank.numerics.totals import add_elements, add_squares, totals

if TYPE_CHECKING:
    from anyrank.numerics.accumulator import Numbers
    from anyrank.world import World


def variance(x: Numbers, ddof: int = 0, world: World | None = None, *, local: bool = False) -> float:
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
    linear, squares = totals("variance", [(add_elements, (x,)), (add_squares, (x,))], world, local)
    n = linear.parts[0].count
    if n <= ddof:
        raise AnyrankError(f"the variance of {n} numbers with ddof={ddof} is not defined: give it more than {ddof}.")
    if not squares.parts[0].finite:
        return math.nan
    numerator = (n * squares.parts[0].fixed << ORIGIN) - sum(part.fixed**2 for part in linear.parts)
    return quotient(numerator, n * (n - ddof) << 2 * ORIGIN)


def histogram(
    x: Numbers, bins: int, range: tuple[float, float], world: World | None = None, *, local: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of elements in each of several bins of one width, and the edges of the bins.

    The elements, as float64, are compared with the edges: a bin contains its lower edge, and the last one also its
    upper edge, as in `numpy.histogram`. Elements outside the range, and NaN, are not counted.

    Parameters
    ----------
    x : Field or array_like
        Real numbers of any shape.
    bins : int
        The number of bins.
    range : tuple of float
        The lowest and the highest edge, the same on all ranks, such as `(exact.min(x), exact.max(x))` of a Field.
    world, local : World, bool
        The ranks: see the module's docstring. The call is collective unless `local` is True.

    Returns
    -------
    counts : int64 array of `bins` elements
        The number of elements of all ranks.
    edges : float64 array of `bins + 1` elements
        `numpy.linspace(*range, bins + 1)`.

    Raises
    ------
    UsageError
        If the bins or the range are not valid, or not the same on all ranks.

    Examples
    --------
    >>> exact.histogram([0.0, 1.0, 1.5, 4.0, 9.0], 4, (0.0, 4.0), local=True)
    (array([1, 2, 0, 1]), array([0., 1., 2., 3., 4.]))
    """
    world = ranks_of("histogram", (x,), world, local)

    def facts() -> list[int]:
        local_elements(x)
        ends = _edges(bins, range)[[0, -1]]
        same = [index(bins), *(encode(float(end), ends.dtype, True) for end in ends)]
        return [*same, *(-n for n in same)]

    agreed = agree(world, 6, facts)
    if (agreed[:3] != -agreed[3:]).any():
        raise UsageError(
            f"exact.histogram: bins={bins}, range={range} on one rank, and others on another rank. They must be the "
            "same: use exact.min and exact.max for the range of all ranks."
        )
    edges = _edges(bins, range)
    counts = _counts(local_elements(x), edges)
    return (counts if world is None else world.allreduce(counts)), edges


def _edges(bins: int, ends: tuple[float, float]) -> np.ndarray:
    if index(bins) < 1:
        raise UsageError(f"exact.histogram: bins={bins} must be at least 1.")
    low, high = map(float, ends)
    with np.errstate(all="ignore"):
        edges = np.linspace(low, high, bins + 1)
    if not (edges[1:] > edges[:-1]).all():
        raise UsageError(
            f"exact.histogram: range={ends} must be two finite numbers, the lower one first, and far enough apart for "
            f"bins={bins}."
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
