"""Single points of a Field, and the whole array on all ranks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from ranks import check_collective

from anyrank import AnyrankError, Kernel, State, UsageError
from anyrank.kernel import BODIES

SHAPE = (9, 7)
POINTS = [(0, 0), (8, 6), (4, 3), (4, 3), (2, 5)]


@pytest.fixture(params=["auto", "shim"])
def state(request, world) -> Iterator[State]:
    """A State on the host and on the emulated GPU."""
    BODIES.prefer(request.param)
    yield State(world, "bricks")
    BODIES.prefer("auto")


def values(shape, dtype="f8"):
    return np.random.default_rng(1).integers(0, 200, shape).astype(dtype)


def filled(state, name="u", dtype="f8", **options):
    field = state.field(name, SHAPE, dtype, **options)
    whole = values(field.shape, dtype)
    field[...] = whole[field.layout.slices]
    return field, whole


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "?", "u1", "i8", "c16", "c8"])
def test_probe_and_allgather_any_dtype_equal_the_array(state, world, dtype):
    u, whole = filled(state, dtype=dtype, halo=2)
    rows, columns = np.array(POINTS).T
    found = u.probe(POINTS)
    assert found.dtype == u.dtype and found.tobytes() == whole[rows, columns].tobytes()
    everything = u.allgather()
    assert everything.dtype == u.dtype and everything.tobytes() == whole.tobytes()
    assert u.at(4, 3).read() == whole[4, 3] and u.probe([]).shape == (0,)


@pytest.mark.ranks(1, 2, 3, 4)
def test_probe_of_nan_and_minus_zero_keeps_the_bits(state, world):
    u, _ = filled(state)
    bits = np.array([0x7FF8_0000_0000_1234, 1 << 63], np.uint64)
    for point, value in zip(POINTS, bits.view("f8"), strict=False):
        u.at(*point).write(value)
    assert u.probe(POINTS[:2]).view(np.uint64).tolist() == bits.tolist()


@pytest.mark.ranks(1, 2, 3, 4)
def test_probe_of_components_has_them_first(state, world):
    v, whole = filled(state, components=3, halo=1)
    rows, columns = np.array(POINTS).T
    assert np.array_equal(v.probe(POINTS), whole[:, rows, columns])
    assert np.array_equal(v.probe(POINTS, component=2), whole[2, rows, columns])
    assert np.array_equal(v.at(8, 6).read(), whole[:, 8, 6]) and v.at(8, 6, component=1).read() == whole[1, 8, 6]
    v.at(8, 6).write([1, 2, 3])
    v.at(8, 6).add(10)
    v.at(8, 6, component=1).add(100)
    assert v.at(8, 6).read().tolist() == [11, 112, 13]


@pytest.mark.ranks(1, 2, 3, 4)
def test_point_write_and_add_change_only_the_point(state, world):
    u, whole = filled(state, halo=1)
    for point in POINTS[:3]:
        u.at(*point).write(-1)
        u.at(*point).add(0.25)
        whole[point] = -0.75
    assert np.array_equal(u.allgather(), whole)
    u.exchange()
    assert u.at(np.int64(2), 5).read() == whole[2, 5]


@pytest.mark.ranks(1, 3)
def test_point_of_staggered_field_may_be_on_the_wall(world):
    grid = State(world).grid((5, 4), dims=("y", "x"), boundary="reflect")
    u, p = grid.field("u", at="x"), grid.field("p")
    u.at(3, 4).write(2.5)
    assert u.probe([(3, 4), (0, 0)]).tolist() == [2.5, 0.0] and u.allgather()[3, 4] == 2.5
    with pytest.raises(UsageError, match=r"field p: the point \(3, 4\) has the index 4 along axis 1, .* 0 to 3"):
        p.at(3, 4)


@pytest.mark.ranks(1, 2)
@pytest.mark.parametrize(
    ("index", "message"),
    [
        ((9, 0), r"field u: the point \(9, 0\) has the index 9 along axis 0, which must be a whole number from 0 to 8"),
        ((0, -1), r"has the index -1 along axis 1, .* from 0 to 6: indices are global. Use one of these"),
        ((0, 1.0), r"has the index 1.0 along axis 1"),
        ((True, 1), r"has the index True along axis 0"),
        ((1,), r"the point \(1\) has 1 indices, and the shape \(9, 7\) has 2 axes. Give one each"),
        ((1, 2, 3), r"has 3 indices"),
    ],
)
def test_point_that_is_not_there_is_refused(world, index, message):
    u = State(world).field("u", SHAPE)
    with pytest.raises(UsageError, match=message):
        u.at(*index)


@pytest.mark.ranks(1, 2)
@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([(0, 0), (3, 7)], r"field u: the point \(3, 7\) has the index 7 along axis 1, .* 0 to 6"),
        ([(0.0, 1.0)], r"field u: points is an array of float64 .* must be whole numbers of shape \(n, 2\)"),
        ([0, 1], r"of shape \(2,\), but must be"),
        ([(1, 2, 3)], r"of shape \(1, 3\), but must be"),
    ],
)
def test_probe_of_wrong_points_is_refused(world, points, message):
    with pytest.raises(UsageError, match=message):
        State(world).field("u", SHAPE).probe(points)


@pytest.mark.ranks(1, 2)
@pytest.mark.parametrize(
    ("components", "component", "message"),
    [
        (2, 2, "field v: component=2 must be a whole number from 0 to 1"),
        (2, -1, "component=-1 must be"),
        (None, 0, "field v: component=0 must be left out: the field has no components"),
    ],
)
def test_component_that_is_not_there_is_refused(world, components, component, message):
    v = State(world).field("v", SHAPE, components=components)
    with pytest.raises(UsageError, match=message):
        v.at(0, 0, component=component)
    with pytest.raises(UsageError, match=message):
        v.probe([(0, 0)], component=component)


@pytest.mark.ranks(1, 2)
@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("i8", 0.5, r"field u: the value 0.5 of point \(1, 2\) must be one number of a kind that int64 holds"),
        ("f8", 1j, "of a kind that float64 holds"),
        ("f8", "3", "must be one number"),
        ("f8", [1, 2], r"the value \[1, 2\] of point \(1, 2\) must be one number"),
        ("u1", 256, "the value 256 .* must be in the range of uint8"),
        ("u1", -1, "must be in the range of uint8"),
    ],
)
def test_point_value_that_does_not_fit_is_refused(world, dtype, value, message):
    u = State(world).field("u", SHAPE, dtype)
    for change in (u.at(1, 2).write, u.at(1, 2).add):
        with pytest.raises(UsageError, match=message):
            change(value)
    check_collective(world, not u.local.any())


@pytest.mark.ranks(1, 2)
def test_point_of_protected_field_is_not_written(world):
    state = State(world, "rows", halo_steps=2)
    k, u = state.constant("k", SHAPE), state.field("u", SHAPE, halo=1)
    k.at(1, 1).write(3)
    state.finish_constants()
    with pytest.raises(UsageError, match="constant k is written after the method constants"):
        k.at(1, 1).add(1)
    assert k.at(1, 1).read() == 3
    u.advance(Kernel(lambda new, old: new.__setitem__(..., old[1:-1, 1:-1] + 1)))
    with pytest.raises(UsageError, match="field u is written between steps"):
        u.at(0, 0).write(1)
    assert u.at(0, 0).read() == 1


@pytest.mark.ranks(2, 3)
def test_probe_of_different_points_on_ranks_is_an_error(world):
    u, _ = filled(State(world))
    with pytest.raises(AnyrankError, match="field u: the ranks ask for different points"):
        u.probe([(world.rank, 0)])


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("points", [[(0, 0)], [(0, 0), (1, 1), (2, 2)]])
def test_probe_of_other_counts_on_ranks_is_an_error(world, points):
    u, _ = filled(State(world))
    with pytest.raises(AnyrankError, match="the ranks ask for different points"):
        u.probe(points if world.rank else [(0, 0), (1, 1)])
    assert u.probe([(1, 1)]).shape[-1] == 1, "the ranks are still in step"


@pytest.mark.ranks(2, 3)
def test_probe_bad_points_on_one_rank_are_refused_on_all(world):
    u, _ = filled(State(world))
    with pytest.raises(UsageError, match="must be a whole number from 0"):
        u.probe([(0, 0 if world.rank else 10**6)])
