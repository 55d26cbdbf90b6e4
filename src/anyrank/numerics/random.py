"""Random numbers that belong to global indices: functions of seed, stream, index and step, and of nothing else.

Which rank draws a number, in what order and in how many pieces makes no difference, and nothing has to be
kept in a checkpoint but the seed. The bits are those of the kernel `philox`, the same with every body, and the
same on a GPU, where one kernel makes them of indices that are there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from anyrank.errors import UsageError
from anyrank.kernel import BODIES, Kernel
from anyrank.numerics.elementary import LOG_TABLE, log

#: Each method's numbers: their type, and for how many of them an index stands.
RESULTS: dict[str, tuple[DTypeLike, tuple[int, ...]]] = {
    "words": (np.uint32, (4,)),
    "uniform": (np.float64, ()),
    "pair": (np.float64, (2,)),
    "normal": (np.float64, ()),
    "integers": (np.int64, ()),
}
#: What makes them on a GPU; the host makes all of words.
KERNELS = {method: Kernel("philox", method) for method in RESULTS}

#: Indices at a time: they and what is made of them stay in a core's cache.
CHUNK = 1 << 14
#: The stream's bits above these hold the number of the attempt.
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

    Every method takes global indices, integers of any shape, and gives one number for each, in an array
    of that shape. Indices that are an array of the GPU in use give one there: nothing crosses to the host but,
    for a signed type, the least index, which is checked. A number is a function of seed, stream, index, step and
    the method's other arguments. Within one method, numbers of different streams, indices or steps are
    independent; different methods make theirs of the same random words, so quantities that must be independent
    take streams of their own.

    `seed` is in [0, 2^64), `stream` in [0, 2^24), indices in [0, 2^64) and `step` in [0, 2^32). Anything
    else raises UsageError. No method is collective.
    """

    def __init__(self, seed: int, stream: int = 0):
        self.seed = _whole("seed", seed, 0, 1 << 64, "Take it modulo 2**64.")
        self.stream = _whole("stream", stream, 0, 1 << STREAM_BITS, "Number streams from 0.")

    def words(self, indices: ArrayLike, step: int = 0) -> np.ndarray:
        """Four random words for each index: uint32, with one more axis, of 4, at the end."""
        return self._each("words", indices, step, self._words)

    def uniform(self, indices: ArrayLike, step: int = 0, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Numbers spread evenly over [low, high): float64.

        They are low + (high − low)·u, rounded, with u a multiple of 2^−53 in [0, 1) made of words 0 and 1.
        """
        _check_interval(low, high)
        width = high - low

        def made(index: np.ndarray, step: int) -> np.ndarray:
            return low + width * _unit(self._pairs(index, step)[:, 0])

        return self._each("uniform", indices, step, made, lambda: (low, width))

    def pair(self, indices: ArrayLike, step: int = 0) -> np.ndarray:
        """Two independent numbers in [0, 1) for each index: float64, with one more axis, of 2, at the end.

        The first is what `uniform` gives; the second is made of words 2 and 3.
        """
        return self._each("pair", indices, step, lambda *at: _unit(self._pairs(*at)))

    def normal(self, indices: ArrayLike, step: int = 0) -> np.ndarray:
        """Standard normal numbers: float64, none beyond ±8.3. Times σ plus μ for others.

        They are the quantiles at u + 2^−54, u being what `uniform` gives.
        """

        def made(index: np.ndarray, step: int) -> np.ndarray:
            return quantile(self._pairs(index, step)[:, 0] >> np.uint64(11))

        return self._each("normal", indices, step, made, lambda: (_quantile_table(BODIES.device),))

    def integers(self, indices: ArrayLike, low: int, high: int, step: int = 0) -> np.ndarray:
        """Whole numbers in [low, high), each as likely as any other: int64; −2^63 ≤ low < high ≤ 2^63.

        Lemire's method (ACM Trans. Model. Comput. Simul. 29 (2019) 3) on words 0 and 1; where it rejects, on
        words 2 and 3, and then on those of the next attempt, which is part of the counter.
        """
        low = _whole("low", low, -(1 << 63), 1 << 63, "Numbers are int64.")
        high = _whole("high", high, low + 1, (1 << 63) + 1, "It is the first number not to be drawn.")

        def made(index: np.ndarray, step: int) -> np.ndarray:
            numbers: np.ndarray = self._below(high - low, index, step) + np.uint64(low % (1 << 64))
            return numbers.view(np.int64)

        return self._each("integers", indices, step, made, lambda: (low, high - low))

    def _each(
        self,
        method: str,
        indices: ArrayLike,
        step: int,
        values: Callable[[np.ndarray, int], np.ndarray],
        others: Callable[[], tuple[Any, ...]] = tuple,
    ) -> np.ndarray:
        """The method's numbers for each index: by its kernel where the indices are a GPU's, with the arguments
        `others`, and else by `values(some indices, step)`, in chunks."""
        step = _whole("step", step, 0, 1 << 32, "Go on in another stream.")
        device: Any = BODIES.device
        here = device.owns(indices)
        index = _checked(indices if here else np.asarray(indices))
        flat, (dtype, shape) = index.reshape(-1), RESULTS[method]
        result: np.ndarray = (device.cupy if here else np).empty((flat.size, *shape), dtype)
        if here:
            flat = flat.view(np.uint64) if flat.itemsize == 8 and flat.flags.c_contiguous else flat.astype(np.uint64)
            KERNELS[method](self.seed, self.stream, step, flat, *others(), result)
        for first in range(0, 0 if here else flat.size, CHUNK):
            part = flat[first : first + CHUNK].astype(np.uint64)
            result[first : first + CHUNK] = values(part, step)
        return result.reshape((*index.shape, *shape))

    def _words(self, index: np.ndarray, step: int, attempt: int = 0) -> np.ndarray:
        words = np.empty((index.size, 4), np.uint32)
        KERNELS["words"](self.seed, self.stream | attempt << STREAM_BITS, step, index, words)
        return words

    def _pairs(self, index: np.ndarray, step: int, attempt: int = 0) -> np.ndarray:
        """Words 0 and 1, and 2 and 3, as two uint64, the first word the lower half."""
        pairs: np.ndarray = self._words(index, step, attempt).astype("<u4", copy=False).view("<u8")
        return pairs

    def _below(self, span: int, index: np.ndarray, step: int) -> np.ndarray:
        """Whole numbers in [0, span): uint64."""
        result = np.empty(index.size, np.uint64)
        pending, attempt = np.arange(index.size), 0
        while pending.size:
            pairs = self._pairs(index[pending], step, attempt)
            for column in (0, 1):
                value, accepted = _scaled(pairs[:, column], span)
                result[pending[accepted]] = value[accepted]
                pairs, pending = pairs[~accepted], pending[~accepted]
            attempt += 1  # half are accepted at the least, so that the 256 attempts never run out
        return result


def _scaled(x: np.ndarray, span: int) -> tuple[np.ndarray, np.ndarray]:
    """x·span / 2^64 rounded down, and whether it is accepted: the remainder is at least 2^64 mod span."""
    if span == 1 << 64:
        return x, np.ones(x.shape, bool)
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    s0, s1, x0, x1 = np.uint64(span & 0xFFFFFFFF), np.uint64(span >> 32), x & low, x >> half
    middle = x1 * s0 + (x0 * s0 >> half)
    high = x1 * s1 + (middle >> half) + (x0 * s1 + (middle & low) >> half)
    return high, x * np.uint64(span) >= np.uint64((1 << 64) % span)


def _unit(pairs: np.ndarray) -> np.ndarray:
    """The upper 53 bits of each as a number in [0, 1)."""
    k: np.ndarray = pairs >> np.uint64(11)
    return k.astype(np.float64) * 2.0**-53


def quantile(k: np.ndarray) -> np.ndarray:
    """The standard normal's quantile at (k + ½)·2^−53, for k (uint64) in [0, 2^53): float64.

    Antisymmetric to the last bit; within 8·10^−16 of the true value, relatively. Wichura, Algorithm AS 241
    (PPND16), Applied Statistics 37 (1988) 477-484, in one written order of exactly rounded operations.
    """
    odd = 2 * k.astype(np.int64) + 1 - (1 << 53)  # 2^54 (p − ½): an odd number, so that no rounding moves p to 0 or 1
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
    """The `constants` of the kernel's quantile.h as an array of a GPU."""
    table = device.from_host(np.concatenate([np.ravel([_CENTRE, _TAIL, _FAR_TAIL]), LOG_TABLE]))
    device.cupy.cuda.get_current_stream().synchronize()  # it is there, whichever stream will read it
    return table


def _whole(name: str, value: Any, low: int, high: int, fix: str) -> int:
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


def _checked(index: Any) -> Any:
    if not np.issubdtype(index.dtype, np.integer):
        raise UsageError(
            f"Philox: indices of type {index.dtype} are not whole numbers: they are global indices. "
            "Give an array of integers, such as np.arange(n)."
        )
    if index.size and index.dtype.kind == "i" and (least := int(index.min())) < 0:
        raise UsageError(f"Philox: index {least} is out of range: it must be in [0, {1 << 64}). Number things from 0.")
    return index
