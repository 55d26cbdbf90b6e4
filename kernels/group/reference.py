"""Reductions by group with Python's integers and fractions."""

from collections.abc import Callable, Iterable
from fractions import Fraction

import numpy as np

from anyrank.kernels.group import EMPTY, MINUS, NANS, PLUS


def add(sums: np.ndarray, gids: np.ndarray, x: np.ndarray | None) -> None:
    """Add every x, or 1, to the sum of its group."""
    _check(sums, gids, x)
    np.add.at(sums, gids, np.int64(1) if x is None else x)


def least(values: np.ndarray, gids: np.ndarray, x: np.ndarray) -> None:
    """Update the minimum of every group."""
    _extreme(values, gids, x, lambda new, old: new < old)


def greatest(values: np.ndarray, gids: np.ndarray, x: np.ndarray) -> None:
    """Update the maximum of every group."""
    _extreme(values, gids, x, lambda new, old: new > old)


def limbs(limbs: np.ndarray, specials: np.ndarray, gids: np.ndarray, x: np.ndarray, origin: int) -> None:
    """Add every x to the sum of its group."""
    _gather(limbs, specials, gids, x, origin, 1)


def squares(limbs: np.ndarray, specials: np.ndarray, gids: np.ndarray, x: np.ndarray, origin: int) -> None:
    """Add the square of every x to the sum of its group."""
    _gather(limbs, specials, gids, x, origin, 2)


def merge(limbs: np.ndarray, gids: np.ndarray, other: np.ndarray) -> None:
    """Add rows of limbs to the sums of their groups."""
    if limbs.shape[1:] != other.shape[1:]:
        raise ValueError(f"limbs of shape {other.shape} cannot be added to limbs of shape {limbs.shape}")
    _check(limbs, gids, other)
    for gid, term in zip(gids.tolist(), _whole(other), strict=True):
        _add(limbs, gid, term)


def span(x: np.ndarray) -> tuple[int, int]:
    """Return the exponents of the smallest unit and of the largest magnitude, or EMPTY."""
    values = [abs(Fraction(v)) for v in x.tolist() if np.isfinite(v) and v]
    if not values:
        return EMPTY
    # The denominator is a power of two; if it is 1, the trailing zeros of the numerator give the unit.
    units = [_log2(v.numerator & -v.numerator) - _log2(v.denominator) for v in values]
    largest = float(max(values))
    return min(units), int(np.frexp(largest)[1]) - 1


def within(x: np.ndarray, least: int, greatest: int) -> bool:
    """Return whether the span of x is surely within the given one."""
    low, high = span(x)
    inside = (low, high) == EMPTY or (least <= low and high <= min(greatest, least + 1023))
    return bool(np.isfinite(x).all()) and -1023 <= least <= 0 and inside


def quotient(limbs: np.ndarray, counts: np.ndarray, origin: int, specials: np.ndarray) -> np.ndarray:
    """Return the sums divided by the counts, correctly rounded."""
    groups = zip(_whole(limbs), counts.tolist(), specials.tolist(), strict=True)
    return np.array([_quotient(total, n, origin, special) for total, n, special in groups], np.float64)


def variance(
    limbs: np.ndarray, squares: np.ndarray, counts: np.ndarray, origin: int, specials: np.ndarray, ddof: int
) -> np.ndarray:
    """Return the variances, correctly rounded."""
    groups = zip(_whole(limbs), _whole(squares), counts.tolist(), specials.tolist(), strict=True)
    return np.array(
        [
            np.nan if special or n <= ddof else _rounded(n * square - total * total, n * (n - ddof), 2 * origin)
            for total, square, n, special in groups
        ],
        np.float64,
    )


def _check(gathered: np.ndarray, gids: np.ndarray, x: np.ndarray | None) -> None:
    if x is not None and len(x) != len(gids):
        raise ValueError(f"{len(x)} values of {len(gids)} rows")
    if gids.size and int(gids.max()) >= len(gathered):
        raise IndexError(f"group {gids.max()} of {len(gathered)}")


def _extreme(
    values: np.ndarray,
    gids: np.ndarray,
    x: np.ndarray,
    better: Callable[[tuple[float, bool], tuple[float, bool]], bool],
) -> None:
    _check(values, gids, x)
    for gid, new in zip(gids.tolist(), x, strict=True):
        old = values[gid]
        if new != new or old != old:
            values[gid] = np.nan
        elif better((new, not np.signbit(new)), (old, not np.signbit(old))):
            values[gid] = new


def _gather(limbs: np.ndarray, specials: np.ndarray, gids: np.ndarray, x: np.ndarray, origin: int, power: int) -> None:
    _check(limbs, gids, x)
    if x.dtype.kind != "f" and origin:
        raise ValueError(f"integers have the origin 0, not {origin}")
    for gid, value in zip(gids.tolist(), x.tolist(), strict=True):
        if value - value == 0:
            _add(limbs, gid, int(Fraction(value) ** power / Fraction(2) ** origin))
        else:
            specials[gid] |= NANS if value != value else PLUS if value > 0 else MINUS


def _whole(limbs: np.ndarray) -> Iterable[int]:
    return (int.from_bytes(row.tobytes(), "little", signed=True) for row in limbs.astype("<i8", copy=False))


def _add(limbs: np.ndarray, gid: int, term: int) -> None:
    size = limbs[gid].nbytes
    total = (int.from_bytes(limbs[gid].tobytes(), "little") + term) % (1 << 8 * size)
    limbs[gid] = np.frombuffer(total.to_bytes(size, "little"), "<i8")


def _quotient(total: int, count: int, origin: int, special: int) -> float:
    if not special:
        return _rounded(total, count, origin) if count else np.nan
    return {PLUS: np.inf, MINUS: -np.inf}.get(special, np.nan) if count else np.nan


def _rounded(numerator: int, denominator: int, exponent: int) -> float:
    """Return numerator/denominator · 2^exponent; Python rounds the quotient of integers correctly, also subnormals."""
    try:
        return (numerator << max(exponent, 0)) / (denominator << max(-exponent, 0))
    except OverflowError:
        return np.inf if numerator > 0 else -np.inf


def _log2(power: int) -> int:
    return power.bit_length() - 1
