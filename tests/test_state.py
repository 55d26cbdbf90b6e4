"""State: declared members exist, everything else is refused."""

from __future__ import annotations

import numpy as np
import pytest
from ranks import check_collective

from anyrank.errors import AnyrankError, UsageError
from anyrank.state import State


@pytest.mark.ranks(1, 2, 3)
def test_state_members_are_attributes_and_scalars_assign(world):
    state = State(world)
    state.field("T", (7, 5), halo=1)
    state.scalar("hits", 0)
    state.scalar("time", 0.5)
    state.scalar("wet", True)
    j, i = state.T.indices
    state.T[...] = 10 * j + i
    state.hits += 3
    state.hits += np.int64(2)
    state.time = 2
    check_collective(world, (state.hits, state.time, state.wet) == (5, 2.0, True))
    whole = state.T.gather()
    check_collective(world, world.rank > 0 or np.array_equal(whole, 10 * np.arange(7)[:, None] + np.arange(5)))


@pytest.mark.ranks(1, 2, 4)
def test_state_digest_is_the_same_for_any_layout(world):
    digests = set()
    for split in ("rows", "columns", "bricks"):
        state = State(world, split)
        state.field("a", (9, 8), halo=1)
        state.field("b", (31,), np.int32)
        state.scalar("n", 4)
        state.a[...] = np.sqrt(state.a.layout.linear.astype(float))
        state.b[...] = state.b.layout.linear**2
        digests.add(state.digest())
        state.n = 5
        check_collective(world, state.digest() not in digests)
    check_collective(world, len(digests) == 1)
    first = world.bcast(digests)
    check_collective(world, first == digests)


@pytest.mark.ranks(2, 3)
def test_state_scalar_that_differs_is_an_error_on_all_ranks(world):
    state = State(world)
    state.scalar("n", 0)
    state.n = 7 if world.rank == 1 else 4
    with pytest.raises(AnyrankError, match=r"Scalar n must be the same on all ranks but is \[4, 7"):
        state.digests()


@pytest.mark.ranks(1)
def test_state_bad_declarations_are_refused(world):
    state = State(world)
    state.field("T", (4,))
    state.scalar("n", 0)
    with pytest.raises(UsageError, match="'T' is declared twice"):
        state.field("T", (4,))
    with pytest.raises(UsageError, match="'random' cannot name a member"):
        state.scalar("random", 0)
    with pytest.raises(UsageError, match="cannot name a member"):
        state.scalar("two words", 0)
    with pytest.raises(UsageError, match=r"must be one of antireflect, .*periodic"):
        state.field("b", (4,), boundary="open")
    with pytest.raises(UsageError, match="sizes ≥ 1"):
        state.field("c", (0,))
    with pytest.raises(UsageError, match="dtype float128 cannot be stored"):
        state.field("d", (4,), np.longdouble)
    with pytest.raises(UsageError, match="dtype <U3 cannot be stored"):
        state.scalar("text", "abc")
    with pytest.raises(AttributeError, match="declare it, or it is lost at resume"):
        state.extra = 1
    with pytest.raises(AttributeError, match=r"write its values with state.T\[...\]"):
        state.T = np.zeros(4)
    with pytest.raises(AttributeError, match=r"no member 'U'; declared are \['T', 'n'\]"):
        _ = state.U
    with pytest.raises(ValueError, match="not a single value of type int64"):
        state.n = 1.5
    assert state.n == 0
    with pytest.raises(UsageError, match="widest halo first"):
        state.field("wide", (4,), halo=5)


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("first", [0, 1, 2])
def test_state_shapes_that_differ_by_one_share_their_cuts(world, first):
    """Faces and cells are on the same rank, in any order of declaration: a difference is the same on any ranks."""
    shapes = {"p": (9, 7), "vx": (10, 7), "vy": (9, 8)}
    names = [*shapes][first:] + [*shapes][:first]
    state = State(world)
    for name in names:
        state.field(name, shapes[name], halo=1, boundary="fixed")
    inner = [[cut[:-1] for cut in field.layout.cuts] for field in state.fields()]
    check_collective(world, inner[0] == inner[1] == inner[2], str(inner))
    check_collective(world, all(field.layout.shape == shapes[field.name] for field in state.fields()))
    i, j = state.p.indices
    state.p[...] = i * i + 3 * j
    state.p.exchange()
    p = state.p.array
    across, along = p[1:, 1:-1] - p[:-1, 1:-1], p[1:-1, 1:] - p[1:-1, :-1]  # at every face of this rank's cells
    m, n = state.vx.local.shape[0], state.vy.local.shape[1]
    state.vx[...], state.vy[...] = across[:m], along[:, :n]
    result = [state.vx.gather(), state.vy.gather()]
    whole = np.pad(np.add.outer(np.arange(9.0) ** 2, 3 * np.arange(7.0)), 1)
    right = [np.diff(whole, axis=0)[:, 1:-1], np.diff(whole, axis=1)[1:-1]]
    check_collective(world, world.rank > 0 or all(map(np.array_equal, result, right)))


@pytest.mark.ranks(4)
def test_state_shape_too_small_for_shared_cuts_is_refused(world):
    state = State(world)
    state.field("faces", (4,), halo=1)
    with pytest.raises(UsageError, match=r"halo of 1 is wider than a rank's part of \(3,\), .*widest halo first"):
        state.field("cells", (3,), halo=1)


@pytest.mark.ranks(1, 3)
def test_state_random_depends_on_seed_stream_and_index_only(world):
    state = State(world, seed=7)
    state.field("x", (17,))
    state.x[...] = state.random(2).normal(state.x.indices[0], step=3)
    whole = state.x.gather()
    expected = State(world, seed=7).random(2).normal(np.arange(17), step=3)
    check_collective(world, world.rank > 0 or np.array_equal(whole, expected))


@pytest.mark.ranks(1)
def test_state_field_of_an_unknown_dtype_is_refused(world):
    with pytest.raises(UsageError, match=r"T: data type 'nope' not understood\. Use bool"):
        State(world).field("T", (4,), "nope")
