"""Random numbers on the GPU: `words`, and the distributions that anyrank.random computes from words on the host.

Like `words`, the other functions take seed, stream, step and `index`, then their parameters, then `out`: n elements
(n × 2 for `pair`), int64 for `integers` and float64 otherwise. `out` must not overlap `index`. The results have the
same bits as those of the host.
"""

from typing import Any

import numpy as np

THREADS = 256
ENOUGH = 1 << 18  # this number of threads occupies one GPU


def words(gpu: Any, seed: int, stream: int, step: int, index: Any, out: Any) -> None:
    """Write the four words of each index into a row of `out`."""
    _launch(gpu, "words", seed, stream, step, index, out)


def uniform(gpu: Any, seed: int, stream: int, step: int, index: Any, low: float, width: float, out: Any) -> None:
    """Write a number in [low, low + width) for each index."""
    _launch(gpu, "uniform", seed, stream, step, index, np.float64(low), np.float64(width), out)


def pair(gpu: Any, seed: int, stream: int, step: int, index: Any, out: Any) -> None:
    """Write two numbers in [0, 1) for each index."""
    _launch(gpu, "pair", seed, stream, step, index, out)


def normal(gpu: Any, seed: int, stream: int, step: int, index: Any, table: Any, out: Any) -> None:
    """Write a standard normal number for each index; `table` holds the `constants` of quantile.h."""
    each = min(max(index.shape[0] // ENOUGH, 1), 32)
    _launch(gpu, "normal", seed, stream, step, index, table, np.int32(each), out, each=each)


def integers(gpu: Any, seed: int, stream: int, step: int, index: Any, low: int, span: int, out: Any) -> None:
    """Write an integer in [low, low + span) for each index."""
    numbers = (np.uint64(number) for number in (low % (1 << 64), span % (1 << 64), (1 << 64) % span))
    _launch(gpu, "integers", seed, stream, step, index, *numbers, out)


def _launch(
    gpu: Any, function: str, seed: int, stream: int, step: int, index: Any, *others: Any, each: int = 1
) -> None:
    n = index.shape[0]
    if n:
        key = (np.uint64(seed), np.uint32(stream), np.uint32(step))
        gpu.launch(function, (-(-n // (each * THREADS)),), (THREADS,), (*key, index, *others, np.int64(n)))
