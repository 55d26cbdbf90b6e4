"""Count the random points of the unit square that are in the quarter circle.

`quarter_circle(seed, stream, first, count)` returns the number of hits among the points first … first + count − 1,
as an int; first + count is at most 2^63. The coordinates of point k are in the Philox block (see `philox`) of
index k >> 1 at step 0: words 0 and 1 if k is even, words 2 and 3 if k is odd. A coordinate is the upper 31 bits of
the word, an integer x or y in [0, 2^31). The point is a hit if x² + y² < 2^62. All arithmetic is in integers, so
that the hits of a range are exactly the sum of the hits of its parts.

A lattice point represents the square above and to the right of it. The lattice has about 2^31 more points in the
quarter circle than its area π/4·2^62. The fraction of hits is therefore too large by 2^−31, and the estimate of π by
4·2^−31 = 1.9·10^−9. The standard error of π from 10^12 points is 1.6·10^−6; only with 10^18 points does it become
as small as the discretization error.
"""

from typing import Any

OPERATIONS = ("quarter_circle",)


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Return arguments for about `size` points around the index at which the high word of the counter changes."""
    return (0x0123456789ABCDEF, 5, 2**33 - size // 2, size), size, "points"
