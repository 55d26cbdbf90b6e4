"""The case "parts": `advance` calls kernels on small, unequal regions of a block instead of the whole block."""

from __future__ import annotations

from itertools import pairwise, product

from anyrank.exchange import Region, advance


def cut_regions() -> None:
    """Let `advance` call kernels on parts of every region, with interior and border separate for any block size."""
    advance.OVERLAP_POINTS = 1
    advance.parts_of = parts_of


def parts_of(region: Region) -> list[Region]:
    """Return disjoint parts that cover a region: up to three along every axis, the first of one row.

    Their order is fixed and differs from that in memory: every second part from the last to the first, then the others.
    """
    parts = list(product(*map(_cuts, region)))
    return parts[::-2] + parts[-2::-2]


def _cuts(axis: slice) -> list[slice]:
    """Return up to three unequal slices, the first of one row; an empty slice stays as it is."""
    n = axis.stop - axis.start
    borders = sorted({0, min(1, n), 1 + (n - 1) // 3, n})
    return [slice(axis.start + a, axis.start + b) for a, b in pairwise(borders)] or [axis]
