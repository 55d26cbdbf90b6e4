"""Measure the memory bandwidth of one core by McCalpin's STREAM triad, a[i] = b[i] + q·c[i], compiled when it runs.

`python benchmarks/triad.py [BYTES]` prints GB/s for one core, counting 24 bytes per point as STREAM does.
The stores are plain, as in stream.c, so the processor also reads `a` before it writes it: 32 bytes per point are
transferred. The second line is for the same loop with stores that bypass the cache.

Source: J. McCalpin, Memory bandwidth and machine balance in current high performance computers, IEEE
TCCA Newsletter (1995); https://www.cs.virginia.edu/stream/.
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SOURCE = """
#include <stddef.h>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

void triad(double *restrict a, const double *restrict b, const double *restrict c, double q, size_t n)
{
    for (size_t i = 0; i < n; i++)
        a[i] = b[i] + q * c[i];
}

void triad_streaming(double *restrict a, const double *restrict b, const double *restrict c, double q, size_t n)
{
    size_t i = 0;
#if defined(__x86_64__)
    for (; (size_t)(a + i) % 16; i++)
        a[i] = b[i] + q * c[i];
    for (; i + 2 <= n; i += 2)
        _mm_stream_pd(a + i, _mm_add_pd(_mm_loadu_pd(b + i), _mm_mul_pd(_mm_set1_pd(q), _mm_loadu_pd(c + i))));
    _mm_sfence();
#endif
    for (; i < n; i++)
        a[i] = b[i] + q * c[i];
}
"""


@functools.cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "triad.c"), Path(folder, "triad.so")
        source.write_text(SOURCE)
        subprocess.run(["cc", "-O3", "-march=native", "-shared", "-fPIC", "-o", library, source], check=True)
        return ctypes.CDLL(str(library))


def triad(n_bytes: int = 3 << 28, repeats: int = 10, streaming: bool = False) -> float:
    """Return the best GB/s of `repeats` triads over three arrays with `n_bytes` in total, at 24 bytes per point.

    Each array should have four times the size of the last-level cache, or more. With `streaming`, stores bypass the
    cache.
    """
    points = max(1, n_bytes // 24)
    a, b, c = np.zeros(points), np.ones(points), np.full(points, 2.0)
    function = getattr(_library(), "triad_streaming" if streaming else "triad")
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (a, b, c)]
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        function(*pointers, ctypes.c_double(3.0), ctypes.c_size_t(points))
        best = min(best, time.perf_counter() - start)
    if not np.all(a == 7.0):
        raise RuntimeError("the triad is wrong: b + q·c must be 7 everywhere")
    return 24e-9 * points / best


if __name__ == "__main__":
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 3 << 28
    print(f"triad            {triad(size):7.1f} GB/s")
    print(f"triad, streaming {triad(size, streaming=True):7.1f} GB/s")
