"""Fibonacci numbers by recursion: tasks of which the longest takes a third of the time of all.

    anyrank farm examples/fibonacci.py:fib -n 2 --table examples/fibonacci.csv --cost n --out runs/fibonacci
    python examples/fibonacci.py                # the same from Python

The time of a task grows as 1.618ⁿ. The longest ones start first (--cost), so that no rank waits for one at the end.
"""

from __future__ import annotations

import csv
from pathlib import Path

from anyrank import farm


def fib(n: int) -> int:
    """Return the n-th Fibonacci number; fib(34) makes 18 million calls."""
    return n if n < 2 else fib(n - 1) + fib(n - 2)


if __name__ == "__main__":
    with Path(__file__).with_suffix(".csv").open(newline="") as file:
        numbers = [int(row["n"]) for row in csv.DictReader(file)]
    for n, value in zip(numbers, farm.map(fib, numbers, ranks=2), strict=True):
        print(f"fib({n}) = {value}")
