"""Merge sort as a graph of tasks: each half is sorted by a task, and a task that needs both merges them.

    python examples/merge_sort.py sort.csv      # writes the graph of a sort of 8000 numbers
    anyrank farm examples/merge_sort.py:sort -n 2 --table sort.csv --id part --after halves --out runs/sort

The task of the part 0-8000 needs those of 0-4000 and 4000-8000, and so on. Its value is the sorted list. This shows how
tasks use the values of others; `anyrank run sort` sorts tables that are larger than memory.
"""

from __future__ import annotations

import csv
import heapq
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from anyrank import Philox, farm

NUMBERS, LEAF = 8000, 1000


def sort(part: str) -> list[int]:
    """Return the numbers of a part in order: its halves, merged, or a short part, sorted."""
    halves = farm.task().needed.values()
    return [*heapq.merge(*halves)] if halves else sorted(numbers(*map(int, part.split("-"))))


def numbers(begin: int, end: int) -> list[int]:
    """Return random numbers that depend on their index only."""
    return (Philox(seed=1).uniform(np.arange(begin, end)) * 1e6).astype(int).tolist()


def graph(begin: int, end: int) -> Iterator[tuple[str, str]]:
    """Yield the tasks that sort a part, each with the tasks that it needs."""
    middle = (begin + end) // 2
    halves = [(begin, middle), (middle, end)] if end - begin > LEAF else []
    for half in halves:
        yield from graph(*half)
    yield f"{begin}-{end}", " ".join(f"{a}-{b}" for a, b in halves)


if __name__ == "__main__":
    with Path(sys.argv[1]).open("w", newline="") as file:
        csv.writer(file).writerows([("part", "halves"), *graph(0, NUMBERS)])
