"""Accumulator: an exact running sum of numbers or products, in integer limbs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from anyrank.errors import AnyrankError
from anyrank.kernel import BODIES, Kernel
from anyrank.kernels.exact_sum import LIMBS, MINUS, NANS, ORIGIN, PLUS, SLOTS
from anyrank.numerics.elements import as_doubles, local_elements
from anyrank.numerics.reduction import Distributed
from anyrank.numerics.strided import flat_tiles, has_contiguous_rows

if TYPE_CHECKING:
    from anyrank.world import World

    Numbers: TypeAlias = np.ndarray | Distributed

_accumulate = Kernel("exact_sum", "accumulate")
_accumulate_products = Kernel("exact_sum", "accumulate_products")
_COUNT = SLOTS


class Accumulator:
    """An exact running sum. The limbs of ranks may be added in any order, as `allreduce` does.

    Parameters
    ----------
    limbs : int64 array of SIZE elements, optional
        The whole state of a sum, for instance in the State, which is continued and changed in place.

    Raises
    ------
    ValueError
        If the array has another dtype or shape, or is not contiguous.

    Examples
    --------
    >>> total = exact.Accumulator()
    >>> total.add([1e300, 1.0])
    >>> total.add(-1e300)
    >>> total.value(), total.count
    (1.0, 3)
    """

    SIZE = SLOTS + 1

    def __init__(self, limbs: np.ndarray | None = None):
        self.limbs = np.zeros(self.SIZE, np.int64) if limbs is None else limbs
        if self.limbs.shape != (self.SIZE,) or self.limbs.dtype != np.int64 or not self.limbs.flags.c_contiguous:
            raise ValueError(f"the limbs of an Accumulator are a contiguous int64 array of {self.SIZE} elements")

    def add(self, x: Numbers | float) -> None:
        """Add all elements. Not collective.

        Parameters
        ----------
        x : Field, array_like or float
            Numbers of any shape; of a Field, the elements that this rank owns.
        """
        array = local_elements(x)
        for block in flat_tiles(array, array.dtype == np.float64, array.strides):
            for part in as_doubles(block):
                _accumulate(part, self.limbs)
        self.limbs[_COUNT] += array.size

    def add_product(self, x: Numbers | float, y: Numbers | float) -> None:
        """Add the product of each pair of elements. Not collective.

        Parameters
        ----------
        x, y : Field, array_like or float
            Numbers of one shape, else ValueError is raised.
        """
        a, b = local_elements(x), local_elements(y)
        if a.shape != b.shape:
            raise ValueError(f"a sum of products takes arrays of one shape, not {a.shape} and {b.shape}")
        if BODIES.device.owns(a) != BODIES.device.owns(b):
            a, b = (v if BODIES.device.owns(v) else BODIES.device.from_host(v) for v in (a, b))
        whole = a.dtype == b.dtype == np.float64 and has_contiguous_rows(a) and has_contiguous_rows(b)
        for left, right in zip(*(flat_tiles(v, whole, a.strides, b.strides) for v in (a, b)), strict=True):
            for p in as_doubles(left):
                for q in as_doubles(right):
                    _accumulate_products(p, q, self.limbs)
        self.limbs[_COUNT] += a.size

    def merge(self, other: Accumulator) -> None:
        """Add the sum of another accumulator. Not collective.

        Parameters
        ----------
        other : Accumulator
            The sum to add.
        """
        self.limbs += other.limbs
        self._propagate_carries()

    def allreduce(self, world: World | None) -> Accumulator:
        """Return the sum of the accumulators of all ranks, as a new one on all ranks. Collective.

        Parameters
        ----------
        world : World or None
            The ranks; None for this rank alone.
        """
        total = Accumulator(self.limbs.copy() if world is None else world.allreduce(self.limbs))
        total._propagate_carries()
        return total

    def _propagate_carries(self) -> None:
        _accumulate(np.empty((0, 0)), self.limbs)  # an empty sum only propagates the carries

    @property
    def count(self) -> int:
        """The number of terms that were added."""
        return int(self.limbs[_COUNT])

    @property
    def finite(self) -> bool:
        """Whether no term was NaN or ±∞."""
        return not self.limbs[[PLUS, MINUS, NANS]].any()

    @property
    def fixed(self) -> int:
        """The sum of the finite terms as an integer, in units of 2^−ORIGIN: its digits of 32 bits are the limbs."""
        words = self.limbs[: LIMBS - 1].astype("<u4").tobytes()
        return int.from_bytes(words, "little") + (int(self.limbs[LIMBS - 1]) << 8 * len(words))

    def value(self) -> float:
        """Return the sum, correctly rounded; 0.0 if nothing was added."""
        return self._special_or(lambda: quotient(self.fixed, 1 << ORIGIN))

    def mean(self) -> float:
        """Return the sum divided by the number of terms, correctly rounded; raise AnyrankError without terms."""
        if not self.count:
            raise AnyrankError("the mean of no numbers is not defined: give it at least one.")
        return self._special_or(lambda: quotient(self.fixed, self.count << ORIGIN))

    def root(self) -> float:
        """Return the square root of the sum, correctly rounded; NaN if the sum is negative."""
        return self._special_or(lambda: _square_root(self.fixed))

    def _special_or(self, finite: Callable[[], float]) -> float:
        """Return NaN or ±∞ if a term was one, else the finite result."""
        plus, minus, nans = (self.limbs[slot] > 0 for slot in (PLUS, MINUS, NANS))
        if nans or (plus and minus):
            return math.nan
        return (math.inf if plus else -math.inf) if plus or minus else finite()


class RowSums:
    """One exact sum for each row of arrays with two axes: `add` and `add_product` as those of an Accumulator.

    Parameters
    ----------
    limbs : int64 array of shape (rows, Accumulator.SIZE)
        The state of each sum, changed in place.
    """

    def __init__(self, limbs: np.ndarray):
        self.limbs = limbs

    def add(self, x: Any) -> None:
        """Add each row to its sum. Not collective."""
        for part in as_doubles(x):
            _accumulate(_with_contiguous_rows(part), self.limbs)
        self.limbs[:, _COUNT] += x.shape[1]

    def add_product(self, x: Any, y: Any) -> None:
        """Add the products of each row of `x` and `y` to its sum. Not collective."""
        for left in map(_with_contiguous_rows, as_doubles(x)):
            for right in map(_with_contiguous_rows, as_doubles(y)):
                _accumulate_products(left, right, self.limbs)
        self.limbs[:, _COUNT] += x.shape[1]


def _with_contiguous_rows(array: Any) -> Any:
    return array if has_contiguous_rows(array) else array.copy()


def quotient(numerator: int, denominator: int) -> float:
    """Return the quotient, correctly rounded; ±∞ if it overflows."""
    try:
        return numerator / denominator  # Python rounds the quotient of integers correctly, also to subnormals
    except OverflowError:
        return math.inf if numerator > 0 else -math.inf


def _square_root(fixed: int) -> float:
    """√(fixed·2^−ORIGIN), correctly rounded.

    The root is computed as an integer in units of 2^−(ORIGIN/2 + 64), which are far below the last bit of any double.
    An additional bit, set if the integer root is not exact ("sticky bit"), takes the place of all further bits.
    """
    if fixed < 0:
        return math.nan
    square = fixed << 128
    root = math.isqrt(square)
    return quotient(2 * root + (root * root != square), 1 << (ORIGIN // 2 + 65))
