"""Counter-based random numbers: functions of the seed, the stream, the global index and the step only.

A number does not depend on the rank, the order or the number of calls that draw it, so that a checkpoint needs only
the seed. The bits are those of the kernel `philox`, the same with every body, and on a GPU, where one kernel computes
them for indices on the GPU.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from anyrank.elementary import LOG_TABLE, log
from anyrank.errors import UsageError
from anyrank.kernel import BODIES, Kernel

#: The dtype of the numbers of each method, and the shape of the numbers of one index.
RESULTS: dict[str, tuple[DTypeLike, tuple[int, ...]]] = {
    "words": (np.uint32, (4,)),
    "uniform": (np.float64, ()),
    "pair": (np.float64, (2,)),
    "normal": (np.float64, ()),
    "integers": (np.int64, ()),
}
#: The kernels of the methods on a GPU; the host computes all methods from `words`.
KERNELS = {method: Kernel("philox", method) for method in RESULTS}

#: Indices at a time, so that they and their numbers stay in the cache of a core.
CHUNK = 1 << 14
#: The number of bits of a stream; the bits above them are the number of the attempt.
STREAM_BITS = 24

# AS 241, PPND16: the coefficients of numerators and denominators, highest power first.
_CENTRE = (
    (2509.0809287301226727, 5226.495278852854561),
    (33430.575583588128105, 28729.085735721942674),
    (67265.770927008700853, 39307.89580009271061),
    (45921.953931549871457, 21213.794301586595867),
    (13731.693765509461125, 5394.1960214247511077),
    (1971.5909503065514427, 687.1870074920579083),
    (133.14166789178437745, 42.313330701600911252),
    (3.387132872796366608, 1.0),
)
_TAIL = (
    (7.7454501427834140764e-4, 1.05075007164441684324e-9),
    (0.0227238449892691845833, 5.475938084995344946e-4),
    (0.24178072517745061177, 0.0151986665636164571966),
    (1.27045825245236838258, 0.14810397642748007459),
    (3.64784832476320460504, 0.68976733498510000455),
    (5.7694972214606914055, 1.6763848301838038494),
    (4.6303378461565452959, 2.05319162663775882187),
    (1.42343711074968357734, 1.0),
)
_FAR_TAIL = (
    (2.01033439929228813265e-7, 2.04426310338993978564e-15),
    (2.71155556874348757815e-5, 1.4215117583164458887e-7),
    (0.0012426609473880784386, 1.8463183175100546818e-5),
    (0.026532189526576123093, 7.868691311456132591e-4),
    (0.29656057182850489123, 0.0148753612908506148525),
    (1.7848265399172913358, 0.13692988092273580531),
    (5.4637849111641143699, 0.59983220655588793769),
    (6.6579046435011037772, 1.0),
)


class Philox:
    """Random numbers of one seed and stream (Philox4x32-10: Salmon and others, SC'11).

    Every method takes global indices, integers of any shape, and returns one number for each, in an array of the same
    shape. For indices in an array on the GPU the result is there, too; only the smallest index of a signed dtype is
    copied to the host, to check it. A number is a function of the seed, the stream, the index, the step and the other
    arguments of the method. Within one method, numbers of different streams, indices or steps are independent.
    Different methods use the same random words: use a stream of its own for each quantity that must be independent.

    No method is collective.

    Parameters
    ----------
    seed, stream : int
        The seed in [0, 2^64), and the stream in [0, 2^24).

    Raises
    ------
    UsageError
        If the seed, the stream, an index (in [0, 2^64)) or a step (in [0, 2^32)) is out of range.

    Examples
    --------
    >>> random = Philox(seed=7)
    >>> random.integers([0, 1, 2], 1, 7)
    array([5, 5, 1])
    >>> random.integers(2, 1, 7)
    array(1)
    """

    def __init__(self, seed: int, stream: int = 0):
        self.seed = _integer("seed", seed, 0, 1 << 64, "Take it modulo 2**64.")
        self.stream = _integer("stream", stream, 0, 1 << STREAM_BITS, "Number streams from 0.")

    def words(self, indices: ArrayLike, step: int = 0) -> np.ndarray:
        """Return four random words for each index: uint32, with an additional last axis of 4.

        Parameters
        ----------
        indices, step : array_like of int, int
            See the class.
        """
        return self._evaluate("words", indices, step, self._words)

    def uniform(self, indices: ArrayLike, step: int = 0, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Return uniformly distributed numbers in [low, high): float64.

        They are low + (high − low)·u, rounded; u is a multiple of 2^−53 in [0, 1) from words 0 and 1.

        Parameters
        ----------
        indices, step : array_like of int, int
            See the class.
        low, high : float
            The interval; UsageError is raised unless high − low is above 0 and finite.
        """
        _check_interval(low, high)
        width = high - low

        def values(index: np.ndarray, step: int) -> np.ndarray:
            return low + width * _unit(self._pairs(index, step)[:, 0])

        return self._evaluate("uniform", indices, step, values, lambda: (low, width))

    def pair(self, indices: ArrayLike, step: int = 0) -> np.ndarray:
        """Return two independent numbers in [0, 1) for each index: float64, with an additional last axis of 2.

        The first number is that of `uniform`; the second one is computed from words 2 and 3.

        Parameters
        ----------
        indices, step : array_like of int, int
            See the class.
        """
        return self._evaluate("pair", indices, step, lambda *index_step: _unit(self._pairs(*index_step)))

    def normal(self, indices: ArrayLike, step: int = 0) -> np.ndarray:
        """Return standard normal numbers: float64, within ±8.3.

        They are the quantiles at u + 2^−54, where u is the number of `uniform`. For a mean μ and a standard deviation σ
        multiply by σ and add μ.

        Parameters
        ----------
        indices, step : array_like of int, int
            See the class.
        """

        def values(index: np.ndarray, step: int) -> np.ndarray:
            return quantile(self._pairs(index, step)[:, 0] >> np.uint64(11))

        return self._evaluate("normal", indices, step, values, lambda: (_quantile_table(BODIES.device),))

    def integers(self, indices: ArrayLike, low: int, high: int, step: int = 0) -> np.ndarray:
        """Return uniformly distributed integers in [low, high): int64.

        Parameters
        ----------
        indices, step : array_like of int, int
            See the class.
        low, high : int
            The interval: −2^63 ≤ low < high ≤ 2^63.

        Notes
        -----
        Lemire's method (ACM Trans. Model. Comput. Simul. 29 (2019) 3) on words 0 and 1; if it rejects them, on words
        2 and 3, and then on those of the next attempt, whose number is part of the counter.
        """
        low = _integer("low", low, -(1 << 63), 1 << 63, "Numbers are int64.")
        high = _integer("high", high, low + 1, (1 << 63) + 1, "It is the first number not to be drawn.")

        def values(index: np.ndarray, step: int) -> np.ndarray:
            numbers: np.ndarray = self._below(high - low, index, step) + np.uint64(low % (1 << 64))
            return numbers.view(np.int64)

        return self._evaluate("integers", indices, step, values, lambda: (low, high - low))

    def _evaluate(
        self,
        method: str,
        indices: ArrayLike,
        step: int,
        values: Callable[[np.ndarray, int], np.ndarray],
        others: Callable[[], tuple[Any, ...]] = tuple,
    ) -> np.ndarray:
        """Return the numbers of a method for each index.

        For indices on a GPU the kernel of the method computes them, with the further arguments `others`; on the host
        `values(some indices, step)` computes them in chunks.
        """
        step = _integer("step", step, 0, 1 << 32, "Go on in another stream.")
        device: Any = BODIES.device
        on_gpu = device.owns(indices)
        index = _check_indices(indices if on_gpu else np.asarray(indices))
        flat, (dtype, shape) = index.reshape(-1), RESULTS[method]
        result: np.ndarray = (device.cupy if on_gpu else np).empty((flat.size, *shape), dtype)
        if on_gpu:
            flat = flat.view(np.uint64) if flat.itemsize == 8 and flat.flags.c_contiguous else flat.astype(np.uint64)
            KERNELS[method](self.seed, self.stream, step, flat, *others(), result)
        for first in range(0, 0 if on_gpu else flat.size, CHUNK):
            part = flat[first : first + CHUNK].astype(np.uint64)
            result[first : first + CHUNK] = values(part, step)
        return result.reshape((*index.shape, *shape))

    def _words(self, index: np.ndarray, step: int, attempt: int = 0) -> np.ndarray:
        words = np.empty((index.size, 4), np.uint32)
        KERNELS["words"](self.seed, self.stream | attempt << STREAM_BITS, step, index, words)
        return words

    def _pairs(self, index: np.ndarray, step: int, attempt: int = 0) -> np.ndarray:
        """Return words 0 and 1, and words 2 and 3, as two uint64; the first word is the lower half."""
        pairs: np.ndarray = self._words(index, step, attempt).astype("<u4", copy=False).view("<u8")
        return pairs

    def _below(self, span: int, index: np.ndarray, step: int) -> np.ndarray:
        """Return uniformly distributed integers in [0, span): uint64."""
        result = np.empty(index.size, np.uint64)
        pending, attempt = np.arange(index.size), 0
        while pending.size:
            pairs = self._pairs(index[pending], step, attempt)
            for column in (0, 1):
                value, accepted = _scale(pairs[:, column], span)
                result[pending[accepted]] = value[accepted]
                pairs, pending = pairs[~accepted], pending[~accepted]
            attempt += 1  # at least half are accepted, so that 256 attempts are always enough
        return result


def _scale(x: np.ndarray, span: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ⌊x·span / 2^64⌋, and whether it is accepted: whether the remainder is at least 2^64 mod span.

    The product has 128 bits; its upper half is computed from products of 32-bit halves.
    """
    if span == 1 << 64:
        return x, np.ones(x.shape, bool)
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    s0, s1, x0, x1 = np.uint64(span & 0xFFFFFFFF), np.uint64(span >> 32), x & low, x >> half
    middle = x1 * s0 + (x0 * s0 >> half)
    high = x1 * s1 + (middle >> half) + (x0 * s1 + (middle & low) >> half)
    return high, x * np.uint64(span) >= np.uint64((1 << 64) % span)


def _unit(pairs: np.ndarray) -> np.ndarray:
    """Return the upper 53 bits of each element as a number in [0, 1)."""
    k: np.ndarray = pairs >> np.uint64(11)
    return k.astype(np.float64) * 2.0**-53


def quantile(k: np.ndarray) -> np.ndarray:
    """Return the quantile of the standard normal distribution at (k + ½)·2^−53, for k (uint64) in [0, 2^53): float64.

    The result is antisymmetric to the last bit, with a relative error below 8·10^−16. Wichura, Algorithm AS 241
    (PPND16), Applied Statistics 37 (1988) 477-484, with a fixed order of exactly rounded operations.
    """
    odd = 2 * k.astype(np.int64) + 1 - (1 << 53)  # 2^54 (p − ½), an odd integer, so that p is never rounded to 0 or 1
    q = odd * 2.0**-54
    result = np.empty(q.shape)
    centre = np.abs(q) <= 0.425
    near = q[centre]
    r = 0.180625 - near * near
    result[centre] = near * _ratio(_CENTRE, r)
    outer = ~centre
    r = np.sqrt(-log(((1 << 53) - np.abs(odd[outer])) * 2.0**-54))
    size = np.where(r <= 5.0, _ratio(_TAIL, r - 1.6), _ratio(_FAR_TAIL, r - 5.0))
    result[outer] = np.where(q[outer] < 0.0, -size, size)
    return result


def _ratio(coefficients: tuple[tuple[float, float], ...], r: np.ndarray) -> np.ndarray:
    upper = lower = np.zeros(r.shape)
    for a, b in coefficients:
        upper, lower = upper * r + a, lower * r + b
    return upper / lower


@lru_cache(maxsize=1)
def _quantile_table(device: Any) -> Any:
    """Return the `constants` of quantile.h of the kernel, as an array on a GPU."""
    table = device.from_host(np.concatenate([np.ravel([_CENTRE, _TAIL, _FAR_TAIL]), LOG_TABLE]))
    device.cupy.cuda.get_current_stream().synchronize()  # the copy is complete before another stream reads it
    return table


def _integer(name: str, value: Any, low: int, high: int, fix: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise UsageError(f"Philox: {name} {value!r} is not a whole number. {fix}") from None
    if not low <= number < high:
        raise UsageError(f"Philox: {name} {number} is out of range: it must be in [{low}, {high}). {fix}")
    return number


def _check_interval(low: float, high: float) -> None:
    if not 0.0 < high - low < np.inf:
        raise UsageError(
            f"Philox: low {low!r} and high {high!r} bound no interval: high - low must be above 0 and finite. "
            "Exchange or correct them."
        )


def _check_indices(index: Any) -> Any:
    if not np.issubdtype(index.dtype, np.integer):
        raise UsageError(
            f"Philox: indices of type {index.dtype} are not whole numbers: they are global indices. "
            "Give an array of integers, such as np.arange(n)."
        )
    if index.size and index.dtype.kind == "i" and (smallest := int(index.min())) < 0:
        raise UsageError(f"Philox: index {smallest} is out of range: it must be in [0, {1 << 64}). Number from 0.")
    return index
