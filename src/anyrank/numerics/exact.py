"""Sums, dot products and norms that are correctly rounded and have no order, over all ranks.

Terms go into a fixed-point number wide enough for every double and every product of two (see
`anyrank.kernels.exact_sum`). Adding integers has no order, so the result is the same on any number of
ranks and with any split: it is the exact result, rounded once, to nearest, ties to even, and ±∞ where it
is too large. A sum equals `math.fsum`, but where that raises OverflowError for what overflows on the way.

Everywhere here `x` is an array of any shape, of NumPy or of this process's GPU, or a Field, of which every rank
adds what it owns. Elements stay where they are: limbs alone come from a GPU, and the extreme of a rank.
Elements are bool, integers or real numbers of up to 8 bytes, in any byte order. NaN, or +∞ with −∞, gives NaN.
A sum that is zero is +0.0, whatever the signs of its terms. Other elements raise TypeError.

Which ranks a function reduces over is never a guess:

- of a Field: all ranks of its world; collective;
- of an array and `world=state.world`: all ranks of that world, each with its own array; collective;
- with `local=True`: this rank alone, of a Field the part that it owns; not collective.

An array without either raises UsageError, for on one rank the result would be right, and on several that of a part.
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
from anyrank.numerics.extremes import LOWEST, code_of, decoded, reduced
from anyrank.numerics.reduction import Distributed, is_field, ranks_of
from anyrank.numerics.strided import flat_blocks, has_contiguous_rows

if TYPE_CHECKING:
    from anyrank.world import World

    Numbers: TypeAlias = np.ndarray | Distributed

_accumulate = Kernel("exact_sum", "accumulate")
_accumulate_products = Kernel("exact_sum", "accumulate_products")
_COUNT = SLOTS
#: Types whose extremes are coded each in its own way; smaller integers and bool as int64, smaller floats as float64.
_KINDS = np.dtype(np.int64), np.dtype(np.uint64), np.dtype(np.float64)


class Accumulator:
    """A sum that goes on: exact, and complete in `limbs`, an int64 array of Accumulator.SIZE elements.

    `Accumulator(limbs)` continues with an array that was kept, for instance in the State, and changes it
    in place. Limbs of ranks may be added up in any order; `allreduce` does.
    """

    SIZE = SLOTS + 1

    def __init__(self, limbs: np.ndarray | None = None):
        self.limbs = np.zeros(self.SIZE, np.int64) if limbs is None else limbs
        if self.limbs.shape != (self.SIZE,) or self.limbs.dtype != np.int64 or not self.limbs.flags.c_contiguous:
            raise ValueError(f"the limbs of an Accumulator are a contiguous int64 array of {self.SIZE} elements")

    def add(self, x: Numbers | float) -> None:
        """Add all elements of `x`; of a Field, those that this rank owns. Not collective."""
        array = _local(x)
        for block in flat_blocks(array, array.dtype == np.float64, array.strides):
            for part in _doubles(block):
                _accumulate(part, self.limbs)
        self.limbs[_COUNT] += array.size

    def add_product(self, x: Numbers | float, y: Numbers | float) -> None:
        """Add every element of `x` times that of `y`, which has the same shape. Not collective."""
        a, b = _local(x), _local(y)
        if a.shape != b.shape:
            raise ValueError(f"a sum of products takes arrays of one shape, not {a.shape} and {b.shape}")
        if BODIES.device.owns(a) != BODIES.device.owns(b):
            a, b = (v if BODIES.device.owns(v) else BODIES.device.from_host(v) for v in (a, b))
        whole = a.dtype == b.dtype == np.float64 and has_contiguous_rows(a) and has_contiguous_rows(b)
        for left, right in zip(*(flat_blocks(v, whole, a.strides, b.strides) for v in (a, b)), strict=True):
            for p in _doubles(left):
                for q in _doubles(right):
                    _accumulate_products(p, q, self.limbs)
        self.limbs[_COUNT] += a.size

    def merge(self, other: Accumulator) -> None:
        """Add what `other` has summed. Not collective."""
        self.limbs += other.limbs
        self._settle()

    def allreduce(self, world: World | None) -> Accumulator:
        """The sum of all ranks' accumulators, as a new one on all ranks. Collective over `world`."""
        total = Accumulator(self.limbs.copy() if world is None else world.allreduce(self.limbs))
        total._settle()
        return total

    def _settle(self) -> None:
        _accumulate(np.empty((0, 0)), self.limbs)  # settles the carries, and adds nothing

    @property
    def count(self) -> int:
        """How many terms have been added."""
        return int(self.limbs[_COUNT])

    @property
    def fixed(self) -> int:
        """The sum of the finite terms as an integer, in units of 2^−ORIGIN."""
        words = self.limbs[: LIMBS - 1].astype("<u4").tobytes()
        return int.from_bytes(words, "little") + (int(self.limbs[LIMBS - 1]) << 8 * len(words))

    def value(self) -> float:
        """The sum, correctly rounded; 0.0 where nothing has been added."""
        return self._finish(lambda: _quotient(self.fixed, 1 << ORIGIN))

    def mean(self) -> float:
        """The sum over the number of terms, correctly rounded. Raises AnyrankError where there is none."""
        if not self.count:
            raise AnyrankError("the mean of no numbers is not defined: give it at least one.")
        return self._finish(lambda: _quotient(self.fixed, self.count << ORIGIN))

    def root(self) -> float:
        """The square root of the sum, correctly rounded; NaN where the sum is negative."""
        return self._finish(lambda: _square_root(self.fixed))

    def _finish(self, finite: Callable[[], float]) -> float:
        plus, minus, nans = (self.limbs[slot] > 0 for slot in (PLUS, MINUS, NANS))
        if nans or (plus and minus):
            return math.nan
        return (math.inf if plus else -math.inf) if plus or minus else finite()


def sum(x: Numbers, world: World | None = None, *, local: bool = False) -> float:
    """Sum all elements. Collective unless `local`.

    Parameters
    ----------
    x : Field or array_like
        Numbers of any shape.
    world, local
        The ranks that hold them: see the module's docstring.

    Returns
    -------
    float or int
        Correctly rounded float64, or an exact int where `x` holds integers or bool.

    """
    total, whole = _summed("sum", (x,), world, local)
    return total.fixed >> ORIGIN if whole else total.value()


def mean(x: Numbers, world: World | None = None, *, local: bool = False) -> float:
    """Return the arithmetic mean of all elements. Collective unless `local`.

    Parameters
    ----------
    x : Field or array_like
        Numbers of any shape.
    world, local
        The ranks that hold them: see the module's docstring.

    Returns
    -------
    float
        Rounded once, correctly.

    Raises
    ------
    AnyrankError
        Where there are no elements.

    """
    return _summed("mean", (x,), world, local)[0].mean()


def dot(x: Numbers, y: Numbers, world: World | None = None, *, local: bool = False) -> float:
    """Return Σ x·y. Collective unless `local`.

    Parameters
    ----------
    x, y : Field or array_like
        Numbers, of one shape.
    world, local
        The ranks that hold them: see the module's docstring.

    Returns
    -------
    float or int
        Correctly rounded even where a product underflows or overflows; an exact int of integers and bool.

    Raises
    ------
    ValueError
        Where the shapes differ, or the Fields are split otherwise.

    """
    total, whole = _summed("dot", (x, y), world, local)
    return total.fixed >> ORIGIN if whole else total.value()


def norm(x: Numbers, world: World | None = None, *, local: bool = False) -> float:
    """Return the Euclidean norm √Σx². Collective unless `local`.

    Parameters
    ----------
    x : Field or array_like
        Numbers of any shape.
    world, local
        The ranks that hold them: see the module's docstring.

    Returns
    -------
    float
        Correctly rounded, without overflow or underflow on the way.

    """
    return _summed("norm", (x, x), world, local)[0].root()


def min(x: Numbers, world: World | None = None, *, local: bool = False) -> float:
    """Return the smallest element. Collective unless `local`.

    Parameters
    ----------
    x : Field or array_like
        Numbers of any shape.
    world, local
        The ranks that hold them: see the module's docstring.

    Returns
    -------
    float or int
        NaN where there is one; −0 is below +0.

    Raises
    ------
    AnyrankError
        Where there are no elements.

    """
    return _extreme("min", x, world, local)


def max(x: Numbers, world: World | None = None, *, local: bool = False) -> float:
    """Return the largest element. Collective unless `local`.

    Parameters
    ----------
    x : Field or array_like
        Numbers of any shape.
    world, local
        The ranks that hold them: see the module's docstring.

    Returns
    -------
    float or int
        NaN where there is one; +0 is above −0.

    Raises
    ------
    AnyrankError
        Where there are no elements.

    """
    return _extreme("max", x, world, local)


def _summed(call: str, numbers: tuple[Any, ...], world: World | None, local: bool) -> tuple[Accumulator, bool]:
    """The sum of an array, or of the products of two, over the ranks that the caller names; whether it is whole.

    All ranks answer alike: the type of a rank's array counts where it has elements, or no rank has any.
    """
    world = ranks_of(call, numbers, world, local)
    total, integral = Accumulator(), all(map(_integral, numbers))
    total.add(*numbers) if len(numbers) == 1 else total.add_product(*numbers)
    kinds = np.array([not integral, total.count and not integral, total.count and integral], np.int64)
    if world is not None:
        both = world.allreduce(np.concatenate([total.limbs, kinds]))
        total, kinds = Accumulator(both[: Accumulator.SIZE]).allreduce(None), both[Accumulator.SIZE :]
    some_real, real, whole = kinds.tolist()
    return total, not real and (whole > 0 or not some_real)


def _local(x: Any) -> Any:
    """This process's elements, where they are."""
    array = native(x.local if is_field(x) else x if BODIES.device.owns(x) else np.asarray(x))
    if array.dtype.kind not in "biuf" or array.itemsize > 8:
        raise TypeError(f"exact arithmetic takes bool, integers and real numbers of 64 bits, not {array.dtype}")
    return array


def _integral(x: Any) -> bool:
    return (x if hasattr(x, "dtype") else np.asarray(x)).dtype.kind in "biu"


def _doubles(x: Any) -> Iterator[Any]:
    """One or two arrays of float64 whose sum is `x`, exactly."""
    if x.dtype.kind in "iu" and x.itemsize == 8:
        yield (x >> 32).astype(np.float64) * 2.0**32
        x = x & 0xFFFFFFFF
    yield _widened(x) if _flushed(x) else x.astype(np.float64, copy=False)


def _flushed(x: Any) -> bool:
    """Whether it is float32 of a GPU: CuPy compiles its own code, and ours, so that subnormals count as zeros there."""
    return x.dtype == np.float32 and not isinstance(x, np.ndarray)


def _widened(x: Any) -> Any:
    """float32 as float64, subnormals by their bits."""
    bits = x.view(np.uint32)
    size = (bits & 0x7FFFFF).astype(np.float64) * 2.0**-149
    subnormal = np.where(bits > 0x7FFFFFFF, -size, size)
    return np.where((bits & 0x7F800000) != 0, x.astype(np.float64), subnormal)


def _quotient(numerator: int, denominator: int) -> float:
    try:
        return numerator / denominator  # Python rounds it correctly, also to subnormals
    except OverflowError:
        return math.inf if numerator > 0 else -math.inf


def _square_root(fixed: int) -> float:
    """√(fixed·2^−ORIGIN): 64 bits below the smallest double, and one that says whether there are more."""
    if fixed < 0:
        return math.nan
    square = fixed << 128
    root = math.isqrt(square)
    return _quotient(2 * root + (root * root != square), 1 << ORIGIN // 2 + 65)


def _extreme(call: str, x: Any, world: World | None, local: bool) -> float:
    """The smallest or largest element of all ranks: the largest of integers in the elements' order, or reversed."""
    world, array, largest = ranks_of(call, (x,), world, local), _local(x), call == "max"
    mine = [-1, -len(_KINDS), LOWEST]
    if array.size:
        kind = 2 if array.dtype.kind == "f" else int(array.dtype == np.uint64)
        mine = [kind, -kind, code_of(_local_extreme(array, largest), array.dtype, largest)]
    found = np.array(mine, np.int64)
    most, least, code = (found if world is None else world.allreduce(found, "max")).tolist()
    if most < 0:
        raise AnyrankError("the smallest or largest of no numbers is not defined: give it at least one.")
    if most != -least:
        kinds = f"{_KINDS[-least]} and {_KINDS[most]}"
        raise TypeError(f"exact.{call} takes arrays of one kind on all ranks that have elements, not {kinds}")
    return decoded(code, _KINDS[most], largest)


def _local_extreme(array: Any, largest: bool) -> float:
    value = reduced(array, largest).item()
    if _flushed(array) and abs(value) < 2.0**-126:
        found = (_local_extreme(_widened(block), largest) for block in flat_blocks(array, False, array.strides))
        return builtins.max(found, key=lambda one: code_of(one, np.dtype(np.float64), largest))
    if value == 0 and array.dtype.kind == "f":
        # If 0 is the largest, +0 is, unless all zeros and all else are negative: as integers, too.
        bits = array.view(array.dtype.str.replace("f", "i"))
        return -0.0 if reduced(bits, largest).item() < 0 else 0.0
    return value  # type: ignore[no-any-return]
