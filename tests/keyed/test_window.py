"""Windows: as many bits as the sums need, the same on all ranks; a wider window keeps the sums."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ranks import check_collective

from anyrank.kernel import Kernel
from anyrank.kernels.group import EMPTY, MOST
from anyrank.keyed.window import Window, joint_span, span_of, widen

SPANS = st.tuples(st.integers(-1074, 1023), st.integers(0, 300)).map(lambda s: (s[0], min(s[0] + s[1], 1023)))


def whole(row):
    return int.from_bytes(row.tobytes(), "little", signed=True)


@given(SPANS, st.integers(1, 2**62), st.sampled_from([1, 2]))
def test_window_has_just_enough_words_for_the_largest_sum(span, rows, power):
    window = Window(*span, rows, power)
    largest = rows * ((2 ** (span[1] + 1 - span[0])) - 1) ** power
    assert largest < 2 ** (64 * window.words - 1) and window.origin == power * span[0]
    assert window.words == 2 or largest.bit_length() + 2 > 64 * (window.words - 1)


def test_window_has_room_for_all_doubles_and_integers():
    assert Window(-1074, 1023, 2**63 - 1).words == 34 and Window(-1074, 1023, 2**63 - 1, 2).words <= MOST
    assert Window(0, 63, 2**62).words == 2 and Window(0, 63, 2**62, 2).words == 3
    assert (Window(*EMPTY, 0).origin, Window(*EMPTY, 10**9).words) == (0, 2)


@given(
    SPANS, SPANS, st.integers(1, 2**40), st.lists(st.integers(-(2**400), 2**400), max_size=5), st.sampled_from([1, 2])
)
def test_widen_keeps_the_sums(span, other, rows, totals, power):
    old = Window(*span, rows, power)
    new = Window(min(span[0], other[0]), max(span[1], other[1]), 3 * rows, power)
    totals = [t % 2 ** (64 * old.words) - 2 ** (64 * old.words - 1) for t in totals]
    bits = power * (span[1] - span[0] + 1) + rows.bit_length()
    totals = [t >> max(0, 64 * old.words - 1 - bits) for t in totals]
    data = b"".join(t.to_bytes(8 * old.words, "little", signed=True) for t in totals)
    limbs = np.frombuffer(data, np.int64).reshape(-1, old.words)
    wide = widen(limbs, old, new)
    assert wide.shape == (len(totals), new.words) and wide.dtype == np.int64
    unit = Fraction(2) ** old.origin / Fraction(2) ** new.origin
    assert [whole(row) for row in wide] == [t * unit for t in totals]


def test_widen_of_an_empty_window_gives_zeros():
    wide = widen(np.zeros((3, 2), np.int64), Window(*EMPTY, 0), Window(100, 300, 5))
    assert wide.shape == (3, 4) and not wide.any()


@pytest.mark.ranks(1, 3)
def test_joint_span_is_that_of_all_ranks(world):
    x = np.ldexp(1.0 + np.arange(40) % 3, np.arange(40) - 20)
    expected = Kernel("group", "span")(x)
    check_collective(world, joint_span(span_of(x[world.rank :: world.size].copy()), world) == expected)
    check_collective(world, joint_span(span_of(np.empty(0)), world) == EMPTY)
    check_collective(world, joint_span((-world.rank, 5), world) == (1 - world.size, 5))
    check_collective(world, span_of(np.arange(3)) == (0, 63))
