"""Grids: staggered fields, components, reads, constants and weights give one rank's bits on any decomposition."""

from __future__ import annotations

import numpy as np
import pytest
from mpi4py import MPI
from ranks import check_collective

from anyrank import Kernel, Program, State, UsageError, advance, param
from anyrank.kernel import BODIES
from anyrank.layout import Layout, weighted_cuts
from anyrank.runtime.python import run
from anyrank.world import World

SPLITS = ("rows", "columns", "bricks")


def acoustic(new_p, new_u, new_v, p, u, v, k, c):
    """One step of linear acoustics on a staggered grid, all three fields from the old ones."""
    new_p[...] = p[1:-1, 1:-1] - c * k[1:-1, 1:-1] * (
        (u[1:-1, 2:] - u[1:-1, 1:-1]) + (v[2:, 1:-1] - v[1:-1, 1:-1]) + 0.1 * (k[1:-1, 2:] - k[1:-1, :-2])
    )
    new_u[...] = u[1:-1, 1:-1] - c * (p[1:-1, 1:-1] - p[1:-1, :-2])
    new_v[...] = v[1:-1, 1:-1] - c * (p[1:-1, 1:-1] - p[:-2, 1:-1]) + 0.01 * p[2:, 2:] * p[:-2, :-2]


ACOUSTIC = Kernel(acoustic)


def declare(state, boundary, shape=(12, 13)):
    grid = state.grid(shape, dims=("y", "x"), boundary=boundary)
    grid.field("p")
    grid.field("u", at="x")
    grid.field("v", at="y")
    grid.constant("k")


def start(state):
    for number, field in enumerate(state.fields()):
        field[...] = np.random.default_rng(number).normal(size=field.shape)[field.layout.slices]
    state.finish_constants()


def digest_of_steps(world, boundary, split="auto", halo_steps=1, steps=6, weights=()):
    state = State(world, split, halo_steps=halo_steps, weights=weights)
    declare(state, boundary)
    start(state)
    for state.step in range(steps):
        advance([state.p, state.u, state.v], ACOUSTIC, 0.3, reads=[state.k])
    return state.digest()


def by_hand(boundary, steps=6, shape=(12, 13)):
    """The three fields on one array, with NumPy's own padding for walls that reflect."""
    shapes = [shape, (shape[0], shape[1] + 1), (shape[0] + 1, shape[1]), shape]
    p, u, v, k = (np.random.default_rng(number).normal(size=size) for number, size in enumerate(shapes))

    def wide(field, at, rows, columns):
        """Pad by reflection: a field is symmetric about points on the wall, and between points otherwise."""
        for axis, most in ((0, rows), (1, columns)):
            width = [(1, most - field.shape[axis] + 1) if other == axis else (0, 0) for other in (0, 1)]
            field = np.pad(field, width, mode="reflect" if axis == at else "symmetric")
        return field

    m, n = shape[0] + 1, shape[1] + 1
    for _step in range(steps):
        new = [np.empty((m, n)) for _ in range(3)]
        acoustic(*new, wide(p, None, m, n), wide(u, 1, m, n), wide(v, 0, m, n), wide(k, None, m, n), 0.3)
        p, u, v = new[0][:-1, :-1], new[1][:-1], new[2][:, :-1]
    return p, u, v


@pytest.mark.ranks(1, 2, 3, 4)
def test_advance_staggered_fields_equals_one_array_by_hand(world):
    expected = by_hand("reflect")
    for split in SPLITS:
        state = State(world, split)
        declare(state, "reflect")
        start(state)
        for state.step in range(6):
            advance([state.p, state.u, state.v], ACOUSTIC, 0.3, reads=[state.k])
        for field, whole in zip((state.p, state.u, state.v), expected, strict=True):
            check_collective(world, np.array_equal(field.local, whole[field.layout.slices]), f"{split} {field.name}")


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize(
    "boundary",
    ["periodic", "antireflect", ("periodic", "reflect"), {"y": ("fixed", "extrapolate"), "x": ("neumann", "reflect")}],
)
def test_advance_on_grid_any_decomposition_gives_one_digest(world, boundary, monkeypatch):
    expected = digest_of_steps(World(MPI.COMM_SELF), boundary)
    weights = [1.0 + rank for rank in range(world.size)]
    monkeypatch.setattr("anyrank.exchange.advance.OVERLAP_POINTS", 1)
    found = {(split, n): digest_of_steps(world, boundary, split, n) for split in SPLITS for n in (1, 3)}
    found["weights"] = digest_of_steps(world, boundary, "rows", weights=weights)
    check_collective(world, set(found.values()) == {expected}, str(found))


@pytest.mark.ranks(1, 3)
def test_advance_on_grid_on_gpu_gives_the_hosts_digest(world):
    boundary = {"y": ("antireflect", "extrapolate"), "x": ("neumann", "reflect")}
    expected = digest_of_steps(World(MPI.COMM_SELF), boundary)
    BODIES.prefer("shim")
    try:
        found = digest_of_steps(world, boundary), digest_of_steps(world, boundary, "columns", 2)
    finally:
        BODIES.prefer("auto")
    check_collective(world, found == (expected, expected), f"{expected} {found}")


def stream(new_f, f, velocity, indices):
    """Move component k of f along x by k − 1 cells, and mix in the global indices."""
    y, x = indices
    for k in range(3):
        new_f[k] = f[k, :, 1 - (k - 1) : f.shape[2] - 1 - (k - 1)] + velocity * (y + 2 * x)


STREAM = Kernel(stream, indices=True)


@pytest.mark.ranks(1, 2, 3, 4)
def test_advance_field_with_components_and_indices(world):
    whole = np.random.default_rng(1).normal(size=(3, 8, 9))
    y, x = np.ogrid[0:8, 0:9]
    expected = whole
    for _step in range(3):
        expected = np.stack([np.roll(expected[k], k - 1, axis=1) + 0.5 * (y + 2 * x) for k in range(3)])
    for split, halo_steps in (("rows", 1), ("columns", 1), ("columns", 2)):
        state = State(world, split, halo_steps=halo_steps)
        f = state.field("f", (8, 9), components=3, halo=(0, 1))
        f[...] = whole[f.layout.slices]
        for _step in range(3):
            f.advance(STREAM, 0.5)
        check_collective(world, f.shape == (3, 8, 9) and f.layout.grid[0] == 1)
        check_collective(world, np.array_equal(f.local, expected[f.layout.slices]), f"{split} {halo_steps}")


def test_field_indices_and_xp_are_of_the_device():
    for body, module in (("reference", "numpy"), ("shim", "anyrank.device.emulated.fake")):
        BODIES.prefer(body)
        try:
            state = State(World())
            field = state.field("T", (4, 5), halo=1)
            y, x = field.indices
            field[...] = 10 * y + x
            assert state.xp.__name__ == module
            assert field.device.to_host(field.local)[3].tolist() == [30, 31, 32, 33, 34]
        finally:
            BODIES.prefer("auto")


class Channel(Program):
    """A tracer in a channel with a variable velocity, an inflow that depends on the step, and an outflow."""

    n: int = param(20, "cells", ge=3)
    steps: int = param(9, "time steps", ge=0)

    def declare(self, state):
        def inflow(x, step):
            return 1.0 + 0.25 * step + 0 * x

        grid = state.grid((self.n,), dims=("x",), boundary=(("fixed", "neumann"),))
        grid.field("c", boundary_value=((inflow, None),))
        grid.constant("velocity", at="x")

    def constants(self, state):
        (x,) = state.velocity.indices
        state.velocity[...] = 0.3 + 0.01 * (x % 5)

    def step(self, state):
        state.c.advance(UPWIND, reads=[state.velocity])


def upwind(new, c, velocity):
    flux = velocity[1:] * c[:-1]
    new[...] = c[1:-1] - (flux[1:] - flux[:-1])


def upwind_parts(new, c, velocity):
    n = new.shape[0]
    flux = velocity[1 : n + 2] * c[: n + 1]
    new[...] = c[1 : n + 1] - (flux[1:] - flux[:-1])


UPWIND = Kernel(upwind_parts)


def test_run_with_constants_resumes_with_the_same_digest(tmp_path):
    through = run(Channel(), out=tmp_path / "a")
    run(Channel(), out=tmp_path / "b", stop_at=4)
    resumed = run(Channel(), out=tmp_path / "b")
    assert resumed.summary["digest"] == through.summary["digest"] and resumed.summary["resumed_from"] == 4
    assert [*through.fields] == ["c"], "constants are in no checkpoint"
    c, v = np.zeros(20), 0.3 + 0.01 * (np.arange(21) % 5)
    for step in range(9):
        flux = v * np.array([1.0 + 0.25 * step, *c])
        c = c - (flux[1:] - flux[:-1])
    assert np.array_equal(through.fields["c"], c)


@pytest.mark.ranks(2)
def test_constant_written_after_constants_is_refused(world):
    state = State(world)
    k = state.constant("k", (6, 5), halo=1)
    k[...] = 2.0
    state.finish_constants()
    with pytest.raises(UsageError, match="the constant k is written after the method constants"):
        k[0, 0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        k.local[0, 0] = 1.0
    with pytest.raises(UsageError, match=r"replaces the values of k, a constant: list it in reads="):
        k.advance(ACOUSTIC)
    check_collective(world, (k.array == 2.0).all() and not k.stored() and state.digests() == {})


@pytest.mark.parametrize(
    ("declare_fields", "message"),
    [
        (lambda grid: grid.field("u", at="z"), "field u: at='z' must be 'centre', or some of the axes y, x|or one"),
        (lambda grid: grid.field("u", at=("x", "x")), "at="),
        (lambda grid: grid.field("u", components=0), "components=0 must be at least 1"),
        (lambda grid: grid.field("u", boundary="periodic"), "axis is periodic for all fields of a grid or for none"),
        (
            lambda grid: (grid.field("p").storage, grid.field("u", at="x")),
            "declare the staggered fields of a grid",
        ),
        (lambda grid: (grid.field("p"), grid.field("p")), "'p' is declared twice"),
    ],
)
def test_grid_field_invalid_declaration_is_refused(declare_fields, message):
    with pytest.raises(UsageError, match=message):
        declare_fields(State(World()).grid((4, 5), dims=("y", "x"), boundary="reflect"))


def test_advance_staggered_field_of_another_grid_is_refused():
    state = State(World())
    grid = state.grid((4, 5), dims=("y", "x"), boundary="reflect")
    u, other = grid.field("u", at="x"), state.field("other", (4, 5), boundary="reflect")
    with pytest.raises(UsageError, match=r"field other \(4, 5\) and u \(4, 6\) are split differently"):
        u.advance(ACOUSTIC, other)


def test_layout_weights_cut_in_proportion():
    assert weighted_cuts(100, [2, 1, 1], 0) == (0, 50, 75, 100)
    assert weighted_cuts(10, [100, 1, 1], 2) == (0, 6, 8, 10)
    assert weighted_cuts(10, [1, 1, 100], 2) == (0, 2, 4, 10)


@pytest.mark.ranks(4)
def test_layout_weights_of_bricks_are_sums_over_ranks(world):
    layout = Layout.bricks((40, 30), world, "2x2", weights=[3, 1, 3, 1])
    check_collective(world, layout.cuts == ((0, 20, 40), (0, 22, 30)), str(layout.cuts))
    for weights in ([1, 2], [1, 1, 1, 0]):
        with pytest.raises(UsageError, match=r"--weights .* must be 4 positive numbers, one for each rank|one a rank"):
            Layout.bricks((40, 30), world, weights=weights)


class Tide(Program):
    """A constant on a grid whose boundary value depends on the step."""

    steps: int = param(4, "time steps", ge=0)

    def declare(self, state):
        grid = state.grid((9,), dims=("x",), boundary=("fixed",), boundary_value=lambda x, step: 1.0 + step + 0 * x)
        grid.field("h")
        grid.constant("depth")

    def constants(self, state):
        state.depth[...] = 2.0

    def step(self, state):
        state.h.advance(FLOW, reads=[state.depth])


def flow(new, h, depth):
    new[...] = h[1:-1] + 0.1 * (depth[2:] * h[2:] - depth[:-2] * h[:-2])


FLOW = Kernel(flow)


def test_constant_ghost_cells_are_the_same_after_a_resume(tmp_path):
    through = run(Tide(), out=tmp_path / "a")
    run(Tide(), out=tmp_path / "b", stop_at=2)
    assert run(Tide(), out=tmp_path / "b").digest == through.digest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"origin": (0.0, float("inf"))}, r"origin = \(0.0, inf\) must be finite"),
        ({"origin": (0.0,)}, "origin = .* must be one number, or one for each axis"),
        ({"unit": ("m",)}, "unit = .* must be one unit, or one for each axis"),
    ],
)
def test_grid_bad_origin_or_unit_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        State(World()).grid((4, 5), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda u, v: advance([u, u], FLOW), "advance lists a field twice: u, u"),
        (lambda u, v: advance([], FLOW), "advance takes Fields in lists"),
        (lambda u, v: advance([u], FLOW, reads=v), "advance takes Fields in lists"),
    ],
)
def test_advance_bad_lists_of_fields_are_refused(call, message):
    grid = State(World()).grid((9,))
    with pytest.raises(UsageError, match=message):
        call(grid.field("u"), grid.field("v"))


@pytest.mark.parametrize(
    ("boundary", "value", "message"),
    [
        (lambda inside, x, step: None, None, "lower side of axis x: the result of function <lambda> is None. Return"),
        (lambda inside, x, step: 1j * inside[0], None, "the result of function <lambda> is complex, for float64"),
        (lambda inside, x, step: [None], None, "a layer of function <lambda> is None"),
        ("fixed", lambda x, step: None, "field u, lower side of axis x: its value is None"),
    ],
)
def test_boundary_function_bad_result_is_refused(boundary, value, message):
    sides = {"boundary": ((boundary, "reflect"),), "boundary_value": ((value, None),)}
    field = State(World()).grid((9,), dims=("x",), **sides).field("u")
    with pytest.raises(UsageError, match=message):
        field.exchange()


def test_boundary_function_cannot_write_the_domain():
    def outside(inside, x, step):
        inside[0] *= 0.5
        return inside[0]

    field = State(World()).grid((9,), boundary=((outside, "reflect"),)).field("u")
    with pytest.raises(ValueError, match="read-only"):
        field.exchange()


@pytest.mark.ranks(3)
def test_grid_layout_fits_the_halo_of_its_first_field(world):
    state = State(world, halo_steps=3, weights=(1, 2, 1))
    field = state.grid((18,)).field("u", halo=2)
    check_collective(world, min(np.diff(field.cells.cuts[0])) == 6)


def test_advance_list_that_changes_later_has_no_effect():
    grid = State(World()).grid((4,), dims=("x",))
    fields = [grid.field("a"), grid.field("b")]
    first, second = fields

    def fill(new, other, old, old_other):
        new[...], other[...] = 1.0, 2.0

    kernel = Kernel(fill)
    advance(fields, kernel)
    fields.reverse()
    advance([first, second], kernel)
    assert (first.local == 1.0).all() and (second.local == 2.0).all()
