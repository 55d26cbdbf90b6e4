"""Random points of the unit square that fall in the quarter circle.

`quarter_circle(seed, stream, first, count)` returns how many of the points first … first + count − 1 do, as an
int; first + count is at most 2^63. Point k takes its coordinates from the Philox block (see `philox`) of
index k >> 1 at step 0: from words 0 and 1 if k is even, 2 and 3 if it is odd. A coordinate is the word's
upper 31 bits, as an integer x or y in [0, 2^31), and the point is a hit if x² + y² < 2^62. All of it is done
in integers, so that the hits of a range are the sum of the hits of its parts, everywhere.

A lattice point stands for the square above and to the right of it, and the lattice has about 2^31 more points
in the quarter circle than its area, π/4·2^62, says: the share of hits is too large by 2^−31, and with it π
by 4·2^−31 = 1.9·10^−9. The standard error of π from 10^12 points is 1.6·10^−6, and it takes 10^18 points to
bring it down to the discretisation's.
"""

from typing import Any

OPERATIONS = ("quarter_circle",)


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """About `size` points, on both sides of the index at which the counter's high word changes."""
    return (0x0123456789ABCDEF, 5, 2**33 - size // 2, size), size, "points"
