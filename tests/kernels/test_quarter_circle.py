"""Points in the quarter circle: every body, instruction set and split gives the same hits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyrank.device import open_device
from anyrank.kernel import Kernel
from anyrank.kernels.philox.reference import words
from anyrank.kernels.quarter_circle import cpu_cython, example, gpu

SEED, STREAM = 0xFEDCBA9876543210, 3
END = 2**63


def body(name):
    return Kernel("quarter_circle").load(name, open_device(name))


@pytest.fixture(params=["reference", "cython", "shim"])
def quarter_circle(request):
    return body(request.param)


def is_hit(seed, stream, k):
    """One point, in Python's integers, from the words of its block."""
    block = np.zeros((1, 4), np.uint32)
    words(seed, stream, 0, np.array([k >> 1], np.uint64), block)
    x, y = (int(word) >> 1 for word in block[0, 2 * (k & 1) :][:2])
    return x**2 + y**2 < 2**62


RANGES = [
    *((first, count) for first in (0, 1, 2, 3) for count in (0, 1, 2, 3, 4)),
    (7, 1000),
    (10, 95),
    (2**33 - 200, 401),  # the block's index exceeds 2^32
    (2**33, 96),
    (2**34 - 97, 98),
    (END - 301, 301),
    (END - 1, 1),
]


@pytest.mark.parametrize(("first", "count"), RANGES)
def test_quarter_circle_hits_are_those_of_single_points(quarter_circle, first, count):
    hits = quarter_circle(SEED, STREAM, first, count)
    assert type(hits) is int
    assert hits == sum(is_hit(SEED, STREAM, k) for k in range(first, first + count))


@pytest.mark.parametrize("first", [12345, 2**33 - 250_001, END - 500_001])
def test_quarter_circle_bodies_count_the_same(quarter_circle, first):
    count = 500_001  # more than the reference takes at a time, and more than one block of GPU threads
    assert quarter_circle(SEED, STREAM, first, count) == body("reference")(SEED, STREAM, first, count)


@pytest.mark.parametrize(("first", "count"), [(0, 200_000), (2**33 - 60_001, 99_999), (END - 50_000, 50_000)])
def test_quarter_circle_gpu_counts_many_points_and_the_rest(monkeypatch, first, count):
    monkeypatch.setattr(gpu, "MOST_BLOCKS", 3)
    assert body("shim")(SEED, STREAM, first, count) == body("reference")(SEED, STREAM, first, count)


@pytest.mark.parametrize("instructions", cpu_cython.INSTRUCTIONS)
@pytest.mark.parametrize(("first", "count"), [*RANGES, (2**33 - 50_001, 100_003)])
def test_quarter_circle_instruction_sets_count_the_same(instructions, first, count):
    hits = cpu_cython.count_with(instructions, SEED, STREAM, first, count)
    assert hits == body("reference")(SEED, STREAM, first, count)


@given(st.integers(0, END - 30_000), st.lists(st.integers(0, 10_000), max_size=3))
def test_quarter_circle_hits_add_up_over_any_split(first, counts):
    count, whole, parts = body("cython"), sum(counts), 0
    expected = count(SEED, STREAM, first, whole)
    for part in counts:
        parts += count(SEED, STREAM, first, part)
        first += part
    assert parts == expected


def test_quarter_circle_seed_and_stream_choose_the_points(quarter_circle):
    keys = [(1, 0), (2, 0), (1 << 32, 0), (1, 1), (1, 2**24 - 1)]
    assert len({quarter_circle(*key, 0, 100_000) for key in keys}) == len(keys)


def test_quarter_circle_share_of_hits_is_a_quarter_of_pi():
    n = 10**8
    share = body("cython")(1, 0, 0, n) / n
    assert abs(share - math.pi / 4) < 3 * math.sqrt(math.pi / 4 * (1 - math.pi / 4) / n)


def test_quarter_circle_example_has_its_size():
    (_, _, first, count), amount, unit = example("quarter_circle", 1000)
    assert (count, amount, unit) == (1000, 1000, "points")
    assert first < 2**33 < first + count
