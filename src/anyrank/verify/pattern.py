"""Where the elements that differ are, relative to the blocks of the ranks, and what this suggests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

#: Elements within this distance of a border between blocks count as next to it.
NEAR = 2
#: Larger arrays are not looked at.
_MOST = 1 << 24

BORDERS = (
    "All of them are next to borders between blocks. The likely cause are ghost cells that are not exchanged, or a "
    "kernel that reads further than the halo: call field.exchange() before field.array is read, or let advance do it "
    "(reads=[field]), and declare halo= as wide as the kernel reads."
)
_INDEX = (
    "an index within the block in the place of the global index, or a value that depends on the rank: use "
    "field.indices, and state.random() with global indices."
)
NOT_THE_FIRST = f"None of them is in the block of rank 0. The likely cause is {_INDEX}"
BOTH = f"{BORDERS} None of them is in the block of rank 0. So another possible cause is {_INDEX}"
_REDUCTION = (
    "The likely cause is a reduction over the elements of one rank, such as np.sum, or a floating-point sum over "
    "ranks: use exact.sum(field), or exact.sum(array, world=state.world)."
)
EVERYWHERE = f"Nearly all elements that are not 0 differ. {_REDUCTION}"
WHOLE_BLOCK = f"All elements of a block differ. {_REDUCTION}"
LAST_DIGITS = f"More than half of the elements that are not 0 differ, only in their last digits. {_REDUCTION}"


def pattern(path: Path, other: Path, name: str) -> str:
    """Return what the places of the elements suggest that differ between two checkpoints; empty if nothing."""
    with h5py.File(path, "r") as file, h5py.File(other, "r") as other_file:
        values, compared = (it.get(f"fields/{name}") for it in (file, other_file))
        if values is None or compared is None or not 0 < values.size <= _MOST or values.shape != compared.shape:
            return ""
        borders = max((_borders(it) for it in (values, compared)), key=lambda cuts: prod(len(cut) - 1 for cut in cuts))
        first, second = values[...], compared[...]
    unlike = (first[..., None].view(np.uint8) != second[..., None].view(np.uint8)).any(axis=-1)
    if all(len(cut) == 2 for cut in borders):
        return ""
    share = unlike[(first != 0) | (second != 0) | unlike].mean()  # a factor does not change 0
    last_digits = LAST_DIGITS if share > 0.5 and _is_rounding(first, second) else ""
    blocks = product(*([slice(*ends) for ends in pairwise(cut)] for cut in borders))
    whole = any(unlike[block].all() for block in blocks)
    reduction = EVERYWHERE if share > 0.9 else WHOLE_BLOCK if whole else ""
    return _place(unlike, borders, whole) or last_digits or reduction


def _borders(values: Any) -> list[np.ndarray]:
    """Return the indices at which the blocks of the ranks begin and end, for each axis."""
    grid = [int(parts) for parts in values.attrs["ranks"]]
    return np.split(values.attrs["borders"], np.cumsum([parts + 1 for parts in grid])[:-1])


def _place(unlike: np.ndarray, borders: list[np.ndarray], whole: bool) -> str:
    near = not whole and any(_only_near(unlike, borders, distance) for distance in range(1, NEAR + 1))
    if unlike[tuple(slice(0, cut[1]) for cut in borders)].any():
        return BORDERS if near else ""
    return BOTH if near else NOT_THE_FIRST


def _only_near(unlike: np.ndarray, borders: list[np.ndarray], distance: int) -> bool:
    """Return whether elements are unlike within this distance of a border between blocks, and no others are."""
    between = _near(unlike.shape, [cut[1:-1] for cut in borders], distance)
    # The ends of the domain are borders, too, if it is periodic.
    near = between | _near(unlike.shape, [cut if len(cut) > 2 else cut[:0] for cut in borders], distance)
    return bool(unlike[between].any() and not unlike[~near].any() and not near.all())


def _near(shape: tuple[int, ...], borders: Sequence[np.ndarray], distance: int) -> np.ndarray:
    """Return which elements are within this distance of the borders, which are given for each axis."""
    near = np.zeros(shape, bool)
    for axis, border in ((axis, border) for axis, cut in enumerate(borders) for border in cut):
        near[(slice(None),) * axis + (slice(max(0, border - distance), border + distance),)] = True
    return near


def _is_rounding(first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether floats differ by no more than rounding errors; false if there is a NaN."""
    if first.dtype.kind not in "fc":
        return False
    with np.errstate(all="ignore"):
        return bool(abs(first - second).max() <= 1000 * np.finfo(first.dtype).eps * abs(first).max())
