"""Locate a difference: the first element of the state that differs, from checkpoints at that step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from anyrank.verify.case import PERTURBATIONS
from anyrank.verify.explain import Finding, first_difference
from anyrank.verify.pattern import pattern
from anyrank.verify.runner import SAME, Outcome, Runner

#: How often two cases are repeated, if they then differ at another step or not at all.
ROUNDS = 4
#: The number of elements that are compared at a time.
_BLOCK = 1 << 20
#: A text that says where two states differ, and the two values, if a single element is named.
Location = tuple[str, tuple[str, ...]]


def locate(runner: Runner, finding: Finding) -> Location | None:
    """Repeat both cases up to the first step that differs, and compare them; None if the states are equal.

    This sets `reproducible` of the finding. A failure is repeated only if a perturbation seems to be its cause.
    """
    if finding.failed:
        finding.reproducible = finding.cause not in PERTURBATIONS or _fails_again(runner, finding)
        return None
    first = first_difference(finding.nearest.trace, finding.other.trace)
    if first is None:
        return None
    step, members = first
    if not members:
        ends = [max(outcome.trace) for outcome in (finding.nearest, finding.other)]
        return f"The states are equal, but one run ends at step {ends[0]}, the other at step {ends[1]}", ()
    for _ in range(ROUNDS):
        nearest, other = (runner.run(outcome.case, step) for outcome in (finding.nearest, finding.other))
        finding.reproducible &= _repeats(finding.nearest, nearest) and _repeats(finding.other, other)
        again = first_difference(nearest.trace, other.trace) if nearest.verdict == other.verdict == SAME else None
        if again is not None and again[0] == step:
            paths = nearest.checkpoint(step), other.checkpoint(step)
            words, values = compare(*paths, again[1])
            if finding.cause in ("ranks", "weights", "split"):
                finding.hint = pattern(*paths, again[1][0])
            return f"First at step {step}, in {words}{'' if finding.reproducible else CHANCE}", values
        step = min(step, again[0]) if again is not None else step
    finding.reproducible = False
    return f"First at step {step}, in {', '.join(members)}, but not when repeated{CHANCE}", ()


CHANCE = "; the runs are not reproducible: they depend on random numbers or on a race"


def _fails_again(runner: Runner, finding: Finding) -> bool:
    """Return whether one of the two cases fails again, and the other does not."""
    return all(runner.run(outcome.case).verdict == outcome.verdict for outcome in (finding.nearest, finding.other))


def _repeats(before: Outcome, after: Outcome) -> bool:
    return all(before.trace.get(step) == digests for step, digests in after.trace.items())


def compare(path: Path, other: Path, members: Sequence[str]) -> Location:
    """Find the first element of the first member whose bits differ between two checkpoint files."""
    name, *others = members
    more = f" (and in {', '.join(others)})" if others else ""
    with h5py.File(path, "r") as file, h5py.File(other, "r") as other_file:
        first, second = (_dataset(it, name) for it in (file, other_file))
        kinds = ["missing" if it is None else f"{it.dtype} of shape {it.shape}" for it in (first, second)]
        if kinds[0] != kinds[1]:
            return f"{name}{more}: {kinds[0]} in one and {kinds[1]} in the other", ()
        index, count = _differing(first, second)
        where = f"[{', '.join(map(str, index))}]{more}; {count} of {first.size} elements differ" if index else more
        return name + where, tuple(f"{_value(it, index)}  owned by {_owner(it, index)}" for it in (first, second))


def _dataset(file: Any, name: str) -> Any:
    return next((group[name] for group in file.values() if isinstance(group, h5py.Group) and name in group), None)


def _differing(first: Any, second: Any) -> tuple[tuple[int, ...], int]:
    """Return the first index at which two datasets differ, and the number of elements that differ."""
    first_index: tuple[int, ...] = ()
    count = 0
    for part in _parts(first.shape):
        # Compare bytes, so that equal NaNs are equal and −0 differs from 0.
        a, b = (np.asarray(values[part])[..., None].view(np.uint8) for values in (first, second))
        unlike = (a != b).any(axis=-1)
        if not count and unlike.any() and part:
            row, *rest = np.unravel_index(int(np.argmax(unlike)), unlike.shape)
            first_index = (int(row) + part[0].start, *map(int, rest))
        count += int(unlike.sum())
    return first_index, count


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Yield slabs along the first axis that fit into memory."""
    if not shape:
        yield ()
        return
    rows = max(1, _BLOCK // max(1, math.prod(shape[1:])))
    yield from ((slice(row, min(row + rows, shape[0])),) for row in range(0, shape[0], rows))


def _value(values: Any, index: tuple[int, ...]) -> str:
    value = values[index]
    return f"{value!s}  0x{np.asarray(value).astype(values.dtype.newbyteorder('>')).tobytes().hex()}"


def _owner(values: Any, index: tuple[int, ...]) -> str:
    """Return the rank that owned the element, from the process grid that wrote the file."""
    grid = tuple(int(parts) for parts in values.attrs.get("ranks", ()))
    if not grid:
        return "all ranks"
    cuts = np.split(values.attrs["borders"], np.cumsum([parts + 1 for parts in grid])[:-1])
    position = [bisect_right(cut, i) - 1 for cut, i in zip(cuts, index, strict=True)]
    return f"rank {np.ravel_multi_index(position, grid)} of {'x'.join(map(str, grid))}"
