"""Combine the values of the rows with equal keys: sums, minimum, maximum, exact sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from anyrank.errors import UsageError
from anyrank.kernel import Kernel
from anyrank.kernels.group import EMPTY
from anyrank.keyed.window import Window, add_to_span, joint_span, widen
from anyrank.world import World

ArraysBySuffix = dict[str, np.ndarray]


class Combine:
    """One combined value per key, independent of the order of rows. A subclass is selected by its `name`.

    `arrays` holds the values, one element or row per key number, by the suffix of their name in a checkpoint.
    """

    name: ClassVar[str] = ""
    known: ClassVar[dict[str, type[Combine]]] = {}
    arrays: ArraysBySuffix

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.name:
            Combine.known[cls.name] = cls

    def __init__(self, dtype: np.dtype[Any]):
        self.dtype = dtype
        self.arrays = {"": np.empty(0, dtype)}

    def new(self) -> Combine:
        """Return an empty object of the same type with the same metadata."""
        return type(self)(self.dtype)

    @property
    def metadata(self) -> np.ndarray:
        """What `merge` must know to interpret the arrays: int64, empty if nothing."""
        return np.empty(0, np.int64)

    @metadata.setter
    def metadata(self, values: np.ndarray) -> None:
        """Set the metadata before any value is added."""

    def agree(self, world: World) -> None:
        """Make the metadata equal on all ranks, so that `merge` accepts values from other ranks. Collective."""

    @property
    def neutral(self) -> Any:
        """The value of a key without rows."""
        return 0

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def make_room(self, keys: int) -> None:
        """Grow the arrays to hold at least this number of keys."""
        for suffix, array in self.arrays.items():
            if len(array) < keys:
                larger = np.empty((max(keys, 2 * len(array)), *array.shape[1:]), array.dtype)
                larger[: len(array)] = array
                larger[len(array) :] = self.neutral if not suffix else 0
                self.arrays[suffix] = larger

    def add(self, gids: np.ndarray, x: np.ndarray) -> None:
        """Combine the row values `x` into the keys with numbers `gids`."""
        raise NotImplementedError

    def take(self, gids: np.ndarray) -> ArraysBySuffix:
        """Return the values of the keys with numbers `gids`, in the form that `merge` accepts."""
        return {suffix: array[gids] for suffix, array in self.arrays.items()}

    def convert(self, parts: Mapping[str, np.ndarray], metadata: np.ndarray) -> ArraysBySuffix:
        """Return values that `take` returned when the metadata were others, in the form that `merge` accepts now."""
        return dict(parts)

    def merge(self, gids: np.ndarray, parts: Mapping[str, np.ndarray]) -> None:
        """Combine values that `take` returned, here or on another rank."""
        self.add(gids, parts[""])


_add, _merge = Kernel("group", "add"), Kernel("group", "merge")


class Sum(Combine):
    """Sums of int64 modulo 2⁶⁴."""

    name = "sum"

    def add(self, gids: np.ndarray, x: np.ndarray) -> None:
        """See `Combine`."""
        _add(self.arrays[""], gids, np.ascontiguousarray(x, np.int64))


class Min(Combine):
    """The minimum: NaN if any value is NaN; −0 is less than +0."""

    name = "min"
    kernel: ClassVar[Kernel] = Kernel("group", "least")

    @property
    def neutral(self) -> Any:
        """See `Combine`."""
        return np.inf if self.dtype.kind == "f" else np.iinfo(self.dtype).max

    def add(self, gids: np.ndarray, x: np.ndarray) -> None:
        """See `Combine`."""
        self.kernel(self.arrays[""], gids, np.ascontiguousarray(x, self.dtype))


class Max(Min):
    """The maximum: NaN if any value is NaN; +0 is greater than −0."""

    name = "max"
    kernel = Kernel("group", "greatest")

    @property
    def neutral(self) -> Any:
        """See `Combine`."""
        return -np.inf if self.dtype.kind == "f" else np.iinfo(self.dtype).min


class MinWide(Combine):
    """The minimum of integers of two words: int64, shape (n, 2), the lower word first."""

    name = "min_wide"
    sign = 1

    def __init__(self, dtype: np.dtype[Any]):
        super().__init__(dtype)
        self.arrays = {"": np.empty((0, 2), np.int64)}

    @property
    def neutral(self) -> Any:
        """See `Combine`."""
        high = np.iinfo(np.int64).max if self.sign > 0 else np.iinfo(np.int64).min
        return [-1 if self.sign > 0 else 0, high]

    def add(self, gids: np.ndarray, x: np.ndarray) -> None:
        """See `Combine`."""
        keys = np.unique(gids)
        gids, x = np.concatenate([gids, keys]), np.concatenate([x, self.arrays[""][keys]])
        order = np.lexsort([np.ascontiguousarray(x[:, 0]).view(np.uint64), x[:, 1], gids])
        order = order[:: self.sign]
        _, first = np.unique(gids[order], return_index=True)
        self.arrays[""][keys] = x[order[first]]


class MaxWide(MinWide):
    """The maximum of integers of two words."""

    name = "max_wide"
    sign = -1


class Exact(Combine):
    """Exact sums, independent of order: integer limbs in a window wide enough for all values added so far.

    `window` covers the values of this rank; after `agree` it covers the values of all ranks.
    """

    name = "exact"
    power = 1
    kernel: ClassVar[Kernel] = Kernel("group", "limbs")

    def __init__(self, dtype: np.dtype[Any]):
        super().__init__(dtype)
        self._span, self._rows, self._agreed = EMPTY, 0, 0
        self.arrays = {"": np.empty((0, self.window.words), np.int64), "_special": np.empty(0, np.uint8)}

    @property
    def window(self) -> Window:
        """The window of the values added so far."""
        return Window(self._span[0], self._span[1], self._rows, self.power)

    @property
    def metadata(self) -> np.ndarray:
        """See `Combine`: the exponent span of all values, and their number."""
        return np.array([*self._span, self._rows], np.int64)

    @metadata.setter
    def metadata(self, values: np.ndarray) -> None:
        least, greatest, rows = values.tolist()
        self._agreed = rows
        self._widen((least, greatest), rows)

    def new(self) -> Exact:
        """See `Combine`."""
        copy = type(self)(self.dtype)
        copy.metadata = self.metadata
        return copy

    def _widen(self, span: tuple[int, int], rows: int) -> None:
        before = self.window
        self._span, self._rows = span, rows
        self.arrays[""] = self._widened(self.arrays[""], before)

    def _widened(self, limbs: np.ndarray, before: Window) -> np.ndarray:
        same = (before.origin, before.words) == (self.window.origin, self.window.words)
        return limbs if same else widen(limbs, before, self.window)

    def convert(self, parts: Mapping[str, np.ndarray], metadata: np.ndarray) -> ArraysBySuffix:
        """See `Combine`."""
        least, greatest, rows = metadata.tolist()
        return {**parts, "": self._widened(parts[""], Window(least, greatest, rows, self.power))}

    def add(self, gids: np.ndarray, x: np.ndarray) -> None:
        """See `Combine`."""
        x = np.ascontiguousarray(x, self.dtype)
        self._widen(add_to_span(self._span, x), self._rows + len(x))
        self.kernel(self.arrays[""], self.arrays["_special"], gids, x, self.window.origin)

    def merge(self, gids: np.ndarray, parts: Mapping[str, np.ndarray]) -> None:
        """See `Combine`."""
        _merge(self.arrays[""], gids, parts[""])
        np.bitwise_or.at(self.arrays["_special"], gids, parts["_special"])

    def agree(self, world: World) -> None:
        """See `Combine`."""
        # A rank that was cleared has lost the agreed number of rows; all ranks must use the same window.
        before = int(world.allreduce(np.array([self._agreed], np.int64), "max")[0])
        rows = before + world.sum(self._rows - self._agreed)
        self._widen(joint_span(self._span, world), rows)
        self._agreed = rows


class Squares(Exact):
    """Exact sums of squares."""

    name = "squares"
    power = 2
    kernel = Kernel("group", "squares")


def combine_called(name: str, dtype: np.dtype[Any]) -> Combine:
    """Return an empty Combine by name. Raises UsageError for an unknown name or an unsupported dtype."""
    if name not in Combine.known:
        raise UsageError(f"values cannot be combined by {name!r}: it must be one of {', '.join(Combine.known)}.")
    if dtype not in (np.dtype(np.int64), np.dtype(np.uint64), np.dtype(np.float64)):
        raise UsageError(f"values of {dtype} cannot be combined: they must be int64, uint64 or float64.")
    if name == "sum" and dtype.kind == "f":
        raise UsageError("a sum of float64 depends on the order of its terms. Combine by 'exact' instead.")
    return Combine.known[name](dtype)
