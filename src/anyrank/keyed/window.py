"""Windows: the range of bits that exact sums by group need, for the limbs of `anyrank.kernels.group`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anyrank.kernel import Kernel
from anyrank.world import World

_SPAN, _WITHIN = Kernel("group", "span"), Kernel("group", "within")
#: The exponent span of 64-bit integers, signed or not.
INTEGERS = (0, 63)


@dataclass(frozen=True)
class Window:
    """The bits that hold the sum of `rows` numbers (`power` 1) or of their squares (`power` 2) without rounding.

    Every finite number is a multiple of 2^least and less than 2^(greatest + 1) in magnitude. A sum has `words` words
    in units of 2^`origin`. All ranks must use the same Window: compute span and rows from all data, see `joint_span`.
    """

    least: int
    greatest: int
    rows: int
    power: int = 1

    @property
    def origin(self) -> int:
        """The exponent of the unit."""
        return self.power * self.least if self._any else 0

    @property
    def words(self) -> int:
        """The number of 64-bit words, including one for the sign: at least 2."""
        bits = self.power * (self.greatest - self.least + 1) if self._any else 0
        return max(2, -(-(bits + self.rows.bit_length() + 1) // 64))

    @property
    def _any(self) -> bool:
        return self.least <= self.greatest


def span_of(x: np.ndarray) -> tuple[int, int]:
    """Return the least and the greatest exponent of float64 or integers, for a Window. Not collective."""
    if x.dtype.kind != "f":
        return INTEGERS
    least, greatest = _SPAN(x)
    return int(least), int(greatest)


def add_to_span(span: tuple[int, int], x: np.ndarray) -> tuple[int, int]:
    """Return the span that covers `span` and the numbers x. Not collective."""
    if x.dtype.kind == "f" and _WITHIN(x, *span):
        return span
    least, greatest = span_of(x)
    return min(least, span[0]), max(greatest, span[1])


def joint_span(span: tuple[int, int], world: World) -> tuple[int, int]:
    """Return the span that covers the spans of all ranks. Collective."""
    low, high = world.allreduce(np.array([span[0], -span[1]], np.int64), "min").tolist()
    return low, -high


def widen(limbs: np.ndarray, old: Window, new: Window) -> np.ndarray:
    """Convert sums to a window that covers the old one: int64, shape (groups, new.words). Not collective."""
    if old == new:
        return limbs
    wide = np.zeros((len(limbs), new.words), np.uint64)
    if not old._any:
        return wide.view(np.int64)
    # A shift to the left by the difference of the units: by whole words, and by the remaining bits.
    skipped, bits = divmod(old.origin - new.origin, 64)
    sign = (limbs[:, -1] >> 63).view(np.uint64)
    lower_word = np.zeros_like(sign)
    for k in range(new.words - skipped):
        word = limbs[:, k].view(np.uint64) if k < limbs.shape[1] else sign
        wide[:, skipped + k] = word << np.uint64(bits) | (lower_word >> np.uint64(64 - bits) if bits else 0)
        lower_word = word
    return wide.view(np.int64)
