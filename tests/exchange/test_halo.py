"""Halo exchange: every ghost cell holds its owner's value, corners included, for any split."""

from __future__ import annotations

import numpy as np
import pytest
from halos import ghost_values, layouts, make
from ranks import check_collective

from anyrank.errors import UsageError
from anyrank.exchange import Halo, gather
from anyrank.exchange import advance as advance_module
from anyrank.exchange.advance import advance
from anyrank.kernel import Kernel
from anyrank.layout import Layout
from anyrank.state import State
from anyrank.world import World


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("halo", [1, 2])
@pytest.mark.parametrize("shape", [(17,), (9, 11), (8, 9, 10)])
@pytest.mark.parametrize("boundary", ["periodic", "fixed", "mixed"])
def test_halo_ghosts_hold_their_owners_values(world, shape, halo, boundary):
    kinds = tuple(("fixed", "periodic")[axis % 2] for axis in range(len(shape))) if boundary == "mixed" else boundary
    whole = np.random.default_rng(5).normal(size=shape)
    for layout in layouts(shape, world, halo):
        field = make(layout, halo, kinds)
        field[...] = whole[layout.slices]
        field.exchange()
        check_collective(world, np.array_equal(field.array, ghost_values(field, whole)), str(layout.cuts))


@pytest.mark.ranks(1, 2, 3, 4)
def test_halo_fields_of_several_types_share_one_message(world):
    layout = Layout.bricks((13, 10), world)
    whole = {
        np.float64: np.random.default_rng(1).normal(size=(13, 10)),
        np.uint8: np.arange(130).reshape(13, 10),
    }
    fields = [make(layout, 1, "periodic", dtype, dtype.__name__) for dtype in whole]
    for field, values in zip(fields, whole.values(), strict=True):
        field[...] = values[layout.slices]
    halo = Halo(fields, tag=world.tag())
    for _ in range(3):
        halo.start()
        halo.finish()
    for field, values in zip(fields, whole.values(), strict=True):
        check_collective(world, np.array_equal(field.array, ghost_values(field, values)), field.name)


def smooth(new, old, weights, calls):
    """A stencil that reads corner points; `calls` counts how often each point is computed."""
    m, n = new.shape
    new[...] = sum(w * old[a : a + m, b : b + n] for w, (a, b) in zip(weights, np.ndindex(3, 3), strict=True))
    calls += 1


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("overlap", [True, False])
def test_advance_gives_one_ranks_bits_on_any_layout(world, overlap, monkeypatch):
    monkeypatch.setattr(advance_module, "OVERLAP_POINTS", 1 if overlap else 10**9)
    weights = np.random.default_rng(2).normal(size=9)
    start = np.random.default_rng(3).normal(size=(12, 14))
    expected = start.copy()
    for _ in range(4):
        new = np.empty_like(expected)
        smooth(new, np.pad(expected, 1, mode="wrap"), weights, 0)
        expected = new
    for layout in layouts((12, 14), world, 1):
        field, calls = make(layout), make(layout, halo=0, name="calls")
        field[...] = start[layout.slices]
        for _ in range(4):
            advance([field], Kernel(smooth), weights, calls)
        check_collective(world, np.array_equal(field.local, expected[layout.slices]), str(layout.cuts))
        check_collective(world, (calls.local == 4).all(), "every point is computed once a step")


@pytest.mark.ranks(1, 2, 3)
def test_advance_field_of_another_layout_is_refused(world):
    field = make(Layout.bricks((12, 14), world))
    other = make(Layout.bricks((12, 15), world), halo=0, name="staggered")
    with pytest.raises(UsageError, match=r"field staggered \(12, 15\) and T \(12, 14\) are split diff.* .state.grid"):
        advance([field], Kernel(smooth), np.ones(9), other)


@pytest.mark.ranks(1, 3)
def test_advance_field_that_would_lose_its_halo_is_refused(world):
    field, calls = make(Layout.bricks((12, 14), world)), []
    wide = make(field.layout, halo=1, name="wide")
    with pytest.raises(UsageError, match=r"field wide .* without its halo of 1: .* Give it as reads=\[wide\]"):
        advance([field], Kernel(lambda *arguments: calls.append(arguments)), wide)
    check_collective(world, not calls, "before any work")


@pytest.mark.ranks(1, 3, 4)
@pytest.mark.parametrize("stride", [1, 2, 5])
def test_gather_with_a_stride_samples_the_global_array(world, stride):
    whole = np.arange(11 * 13.0).reshape(11, 13)
    for layout in layouts((11, 13), world, 1):
        got = gather(layout, whole[layout.slices], stride)
        check_collective(world, (got is None) == (world.rank > 0))
        check_collective(world, got is None or np.array_equal(got, whole[::stride, ::stride]))


@pytest.mark.ranks(2, 3)
def test_gather_type_of_rank_0_does_not_convert_others(world):
    layout = Layout((5,), world, [[0, *[0] * (world.size - 1), 5]])
    got = gather(layout, np.empty(0, np.int64) if world.rank < world.size - 1 else np.arange(5) / 2)
    check_collective(world, world.rank > 0 or got.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0])


@pytest.mark.ranks(2)
def test_regions_cover_the_block_once(world):
    for layout in layouts((9, 11), world, 1):
        field = make(layout)
        halo = Halo([field], tag=world.tag())
        count = np.zeros(layout.local_shape, int)
        inner, borders = halo.regions(field.extended_block((0, 0)))
        for region in [inner, *borders]:
            count[region] += 1
        check_collective(world, (count == 1).all())


def test_halo_fields_of_other_layouts_are_refused():

    world = World()
    layout = Layout.bricks((8, 8), world)
    with pytest.raises(ValueError, match="share their layout"):
        Halo([make(layout), make(Layout.bricks((9, 8), world))], tag=0)
    with pytest.raises(ValueError, match="share their periodic axes"):
        Halo([make(layout), make(layout, boundary="fixed")], tag=0)
    with pytest.raises(ValueError, match="have a halo"):
        Halo([make(layout, halo=0)], tag=0)


@pytest.mark.ranks(1, 2)
def test_field_ghost_cells_cannot_be_written_by_hand(world):
    field = State(world).field("u", (9, 7), halo=1, boundary="fixed", boundary_value=2.5)
    with pytest.raises(ValueError, match="read-only"):
        field.array[0] = 1.0
    field.local[...] = 3.0
    check_collective(world, (field.array[1:-1, 1:-1] == 3.0).all())
