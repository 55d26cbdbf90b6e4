"""Layout: every global index has one owner, for any grid of ranks."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyrank.errors import UsageError
from anyrank.layout import Layout, choose_grid, even_cuts, grids
from anyrank.runtime.options import Options


def world_of(rank: int, size: int):
    """A stand-in for a World with a rank and a size."""
    return SimpleNamespace(rank=rank, size=size)


@given(st.integers(0, 200), st.integers(1, 17))
def test_even_cuts_cover_all_and_differ_by_at_most_one(n, parts):
    sizes = np.diff(even_cuts(n, parts))
    assert sizes.sum() == n and len(sizes) == parts
    assert sizes.max() - sizes.min() <= 1


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.integers(1, 7),
    st.sampled_from(["auto", "rows", "columns", "bricks"]),
)
def test_layout_bricks_cover_the_index_space_once(shape, size, split):
    count = np.zeros(shape, int)
    for rank in range(size):
        layout = Layout.bricks(shape, world_of(rank, size), split)
        count[layout.slices] += 1
        assert layout.local_shape == count[layout.slices].shape
        expected = np.arange(np.prod(shape)).reshape(shape)[layout.slices]
        assert np.array_equal(layout.linear, expected)
    assert (count == 1).all()


def test_layout_owner_is_the_rank_of_the_brick():
    world = world_of(0, 6)
    layout = Layout.bricks((5, 7), world, "2x3")
    for rank, brick in layout.bricks_of_all():
        for index in np.ndindex(5, 7):
            inside = all(s.start <= i < s.stop for i, s in zip(index, brick, strict=True))
            assert (layout.owner(index) == rank) == inside
    with pytest.raises(IndexError, match="outside"):
        layout.owner((5, 0))


def test_layout_takes_any_cuts_and_empty_parts():
    layout = Layout((17,), world_of(1, 3), [(0, 3, 3, 17)])
    assert (layout.start, layout.stop, layout.local_shape) == ((3,), (3,), (0,))
    assert layout.owner((3,)) == 2


@pytest.mark.parametrize("cuts", [[(0, 5)], [(0, 3, 2, 4)], [(1, 4)], [(0, 2, 4), (0, 4)]])
def test_layout_cuts_that_do_not_cover_are_refused(cuts):
    with pytest.raises(ValueError, match=r"cuts|grid"):
        Layout((4,), world_of(0, 3 if len(cuts[0]) == 4 else 1), cuts)


def test_choose_grid_auto_minimises_the_halo():
    assert choose_grid((1000, 10), 4, "auto", (1, 1)) == (4, 1)
    assert choose_grid((10, 1000), 4, "auto", (1, 1)) == (1, 4)
    assert choose_grid((100, 100), 4, "auto", (1, 1)) == (4, 1)
    assert choose_grid((100, 100), 16, "auto", (1, 1)) == (4, 4)
    assert choose_grid((64, 64, 64), 8, "bricks", (1, 1, 1)) == (2, 2, 2)
    assert choose_grid((64, 64), 7, "bricks", (1, 1)) == (7, 1)


def test_grids_lists_all_ordered_factorizations():
    assert sorted(grids(6, 2)) == [(1, 6), (2, 3), (3, 2), (6, 1)]
    assert len(list(grids(8, 3))) == 10


def test_choose_grid_domain_too_small_suggests_what_fits():
    with pytest.raises(UsageError, match=r"domain of 4×4 .* 5 ranks.*at most 4 ranks"):
        choose_grid((4, 4), 5, "rows", (1, 1))
    with pytest.raises(UsageError, match=r"1×4 is too small for a halo of 2: .* narrower halo"):
        choose_grid((1, 4), 1, "rows", (2, 2))
    assert choose_grid((4, 4), 5, "rows", (0, 0)) == (5, 1)


@pytest.mark.parametrize("split", ["2x2", "0x6", "6", "1x2x3", "axb", "x"])
def test_choose_grid_that_does_not_fit_is_refused(split):
    with pytest.raises(UsageError, match=r"--split"):
        choose_grid((10, 10), 6, split, (0, 0))


def test_options_unknown_split_is_refused():
    with pytest.raises(UsageError, match=r"--split 'diagonal' must be one of auto, rows"):
        Options(split="diagonal")
