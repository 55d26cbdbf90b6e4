"""Sums, dot products and norms over all ranks, correctly rounded and independent of the order of the terms.

The terms are added to a fixed-point number that is wide enough for every double and every product of two doubles (see
`anyrank.kernels.exact_sum`). The addition of integers is associative, so that the result is the same on any number of
ranks and with any decomposition: the exact result, rounded once, to nearest, ties to even, and ±∞ if it overflows. A
sum equals `math.fsum`, but does not raise OverflowError if only an intermediate sum overflows.

In all functions `x` is an array of any shape, on the host or on the GPU of this process, or a Field, of which every
rank adds the elements that it owns. Elements stay on the GPU: only limbs, or the extreme of a rank, are copied to the
host. Elements are bool, integers or real numbers of up to 8 bytes, in any byte order; others raise TypeError. NaN, or
+∞ with −∞, gives NaN. A zero sum is +0.0, whatever the signs of its terms are.

The ranks of a reduction are always explicit:

- for a Field: all ranks of its world; collective;
- for an array with `world=state.world`: all ranks of that world, each with its own array; collective;
- with `local=True`: this rank alone, and of a Field only the elements that it owns; not collective.

An array without either raises UsageError, because the result would be right on one rank and partial on several.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from anyrank.errors import AnyrankError
from anyrank.kernel import BODIES, Kernel, native
from anyrank.kernels.exact_sum import LIMBS, MINUS, NANS, ORIGIN, PLUS, SLOTS
from anyrank.numerics.extremes import LOWEST, decode, encode, extreme
from anyrank.numerics.reduction import Distributed, is_field, ranks_of
from anyrank.numerics.strided import flat_tiles, has_contiguous_rows

if TYPE_CHECKING:
    from anyrank.world import World

    Numbers: TypeAlias = np.ndarray | Distributed

_accumulate = Kernel("exact_sum", "accumulate")
_accumulate_products = Kernel("exact_sum", "accumulate_products")
_COUNT = SLOTS
#: The dtypes of the encoding of extremes: smaller integers and bool as int64, smaller floats as float64.
_KINDS = np.dtype(np.int64), np.dtype(np.uint64), np.dtype(np.float64)


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
        array = _local(x)
        for block in flat_tiles(array, array.dtype == np.float64, array.strides):
            for part in _as_doubles(block):
                _accumulate(part, self.limbs)
        self.limbs[_COUNT] += array.size

    def add_product(self, x: Numbers | float, y: Numbers | float) -> None:
        """Add the product of each pair of elements. Not collective.

        Parameters
        ----------
        x, y : Field, array_like or float
            Numbers of one shape, else ValueError is raised.
        """
        a, b = _local(x), _local(y)
        if a.shape != b.shape:
            raise ValueError(f"a sum of products takes arrays of one shape, not {a.shape} and {b.shape}")
        if BODIES.device.owns(a) != BODIES.device.owns(b):
            a, b = (v if BODIES.device.owns(v) else BODIES.device.from_host(v) for v in (a, b))
        whole = a.dtype == b.dtype == np.float64 and has_contiguous_rows(a) and has_contiguous_rows(b)
        for left, right in zip(*(flat_tiles(v, whole, a.strides, b.strides) for v in (a, b)), strict=True):
            for p in _as_doubles(left):
                for q in _as_doubles(right):
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
    def fixed(self) -> int:
        """The sum of the finite terms as an integer, in units of 2^−ORIGIN: its digits of 32 bits are the limbs."""
        words = self.limbs[: LIMBS - 1].astype("<u4").tobytes()
        return int.from_bytes(words, "little") + (int(self.limbs[LIMBS - 1]) << 8 * len(words))

    def value(self) -> float:
        """Return the sum, correctly rounded; 0.0 if nothing was added."""
        return self._special_or(lambda: _quotient(self.fixed, 1 << ORIGIN))

    def mean(self) -> float:
        """Return the sum divided by the number of terms, correctly rounded; raise AnyrankError without terms."""
        if not self.count:
            raise AnyrankError("the mean of no numbers is not defined: give it at least one.")
        return self._special_or(lambda: _quotient(self.fixed, self.count << ORIGIN))

    def root(self) -> float:
        """Return the square root of the sum, correctly rounded; NaN if the sum is negative."""
        return self._special_or(lambda: _square_root(self.fixed))

    def _special_or(self, finite: Callable[[], float]) -> float:
        """Return NaN or ±∞ if a term was one, else the finite result."""
        plus, minus, nans = (self.limbs[slot] > 0 for slot in (PLUS, MINUS, NANS))
        if nans or (plus and minus):
            return math.nan
        return (math.inf if plus else -math.inf) if plus or minus else finite()


def sum(x: Numbers, world: World | None = None, *, local: bool = False) -> float:
    """Return the sum: correctly rounded float64, or an exact int for integers and bool.

    Parameters
    ----------
    x : Field or array_like
        Numbers of any shape.
    world, local : World, bool
        The ranks: see the module's docstring. The call is collective unless `local` is True.

    Examples
    --------
    >>> exact.sum([0.1] * 10, local=True)
    1.0
    """
    total, integral = _sum("sum", (x,), world, local)
    return total.fixed >> ORIGIN if integral else total.value()


def mean(x: Numbers, world: World | None = None, *, local: bool = False) -> float:
    """Return the arithmetic mean, rounded once, correctly; raise AnyrankError without elements.

    Parameters
    ----------
    x : Field or array_like
        Numbers of any shape.
    world, local : World, bool
        The ranks: see the module's docstring. The call is collective unless `local` is True.

    Examples
    --------
    >>> exact.mean([1, 2], local=True)
    1.5
    """
    return _sum("mean", (x,), world, local)[0].mean()


def dot(x: Numbers, y: Numbers, world: World | None = None, *, local: bool = False) -> float:
    """Return the dot product Σ x·y: correctly rounded float64, or an exact int for integers and bool.

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
    total, integral = _sum("dot", (x, y), world, local)
    return total.fixed >> ORIGIN if integral else total.value()


def norm(x: Numbers, world: World | None = None, *, local: bool = False) -> float:
    """Return the Euclidean norm √Σx², correctly rounded, without intermediate overflow or underflow.

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
    return _sum("norm", (x, x), world, local)[0].root()


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
    return _extreme("min", x, world, local)


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
    return _extreme("max", x, world, local)


def _sum(call: str, numbers: tuple[Any, ...], world: World | None, local: bool) -> tuple[Accumulator, bool]:
    """Return the sum of an array, or of the products of two, over the ranks, and whether the terms are integers.

    The second result is the same on all ranks: a dtype counts only on ranks with elements, unless no rank has any.
    """
    world = ranks_of(call, numbers, world, local)
    total, integral = Accumulator(), all(map(_integral, numbers))
    total.add(*numbers) if len(numbers) == 1 else total.add_product(*numbers)
    # Summed over the ranks: ranks with a real dtype, ranks with real numbers, and ranks with integers.
    kinds = np.array([not integral, total.count > 0 and not integral, total.count > 0 and integral], np.int64)
    if world is not None:
        both = world.allreduce(np.concatenate([total.limbs, kinds]))
        total, kinds = Accumulator(both[: Accumulator.SIZE]).allreduce(None), both[Accumulator.SIZE :]
    real_dtypes, real_numbers, integers = kinds.tolist()
    return total, not real_numbers and (integers > 0 or not real_dtypes)


def _local(x: Any) -> Any:
    """Return the elements of this process, on their device."""
    array = native(x.local if is_field(x) else x if BODIES.device.owns(x) else np.asarray(x))
    if array.dtype.kind not in "biuf" or array.itemsize > 8:
        raise TypeError(f"exact arithmetic takes bool, integers and real numbers of 64 bits, not {array.dtype}")
    return array


def _integral(x: Any) -> bool:
    return (x if hasattr(x, "dtype") else np.asarray(x)).dtype.kind in "biu"


def _as_doubles(x: Any) -> Iterator[Any]:
    """Return one or two arrays of float64 whose sum is `x`, exactly."""
    if x.dtype.kind in "iu" and x.itemsize == 8:
        yield (x >> 32).astype(np.float64) * 2.0**32
        x = x & 0xFFFFFFFF
    yield _float64_of(x) if _flushes_subnormals(x) else x.astype(np.float64, copy=False)


def _flushes_subnormals(x: Any) -> bool:
    """Return whether it is float32 on a GPU, where CuPy compiles all code such that subnormals count as zeros."""
    return x.dtype == np.float32 and not isinstance(x, np.ndarray)


def _float64_of(x: Any) -> Any:
    """Convert float32 to float64; the values of subnormals are computed from their bits."""
    bits = x.view(np.uint32)
    size = (bits & 0x7FFFFF).astype(np.float64) * 2.0**-149
    subnormal = np.where(bits > 0x7FFFFFFF, -size, size)
    return np.where((bits & 0x7F800000) != 0, x.astype(np.float64), subnormal)


def _quotient(numerator: int, denominator: int) -> float:
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
    return _quotient(2 * root + (root * root != square), 1 << (ORIGIN // 2 + 65))


def _extreme(call: str, x: Any, world: World | None, local: bool) -> float:
    """Return the smallest or largest element of all ranks, by the maximum of its codes."""
    world, array, largest = ranks_of(call, (x,), world, local), _local(x), call == "max"
    own = [-1, -len(_KINDS), LOWEST]  # a rank without elements changes none of the three maxima
    if array.size:
        kind = 2 if array.dtype.kind == "f" else int(array.dtype == np.uint64)
        own = [kind, -kind, encode(_local_extreme(array, largest), array.dtype, largest)]
    result = np.array(own, np.int64)
    last_kind, minus_first_kind, code = (result if world is None else world.allreduce(result, "max")).tolist()
    if last_kind < 0:
        raise AnyrankError("the smallest or largest of no numbers is not defined: give it at least one.")
    if last_kind != -minus_first_kind:
        kinds = f"{_KINDS[-minus_first_kind]} and {_KINDS[last_kind]}"
        raise TypeError(f"exact.{call} takes arrays of one kind on all ranks that have elements, not {kinds}")
    return decode(code, _KINDS[last_kind], largest)


def _local_extreme(array: Any, largest: bool) -> float:
    value = extreme(array, largest).item()
    if _flushes_subnormals(array) and abs(value) < 2.0**-126:
        values = (_local_extreme(_float64_of(block), largest) for block in flat_tiles(array, False, array.strides))
        return builtins.max(values, key=lambda value: encode(value, np.dtype(np.float64), largest))
    if value == 0 and array.dtype.kind == "f":
        # The sign of a zero extreme: the bits as integers have the order of the values, and only −0 is negative.
        bits = array.view(array.dtype.str.replace("f", "i"))
        return -0.0 if extreme(bits, largest).item() < 0 else 0.0
    return value  # type: ignore[no-any-return]
