"""Boundary conditions: ghost cells outside the domain, compared with NumPy on one array."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from ranks import check_collective

from anyrank.errors import UsageError
from anyrank.exchange.boundaries import Boundary
from anyrank.exchange.boundaries.declare import conditions
from anyrank.kernel import BODIES
from anyrank.state import State
from anyrank.world import World

SHAPE = (9, 10)
#: NumPy's `pad` for a condition of a field of cell centres whose wall is half a cell outside.
PADS = {
    "fixed": {"constant_values": 2.5},
    "reflect": {"mode": "symmetric"},
    "periodic": {"mode": "wrap"},
}


def whole_array(shape=SHAPE):
    return np.random.default_rng(3).normal(size=shape)


def padded(whole, axis, kind, halo, on_wall=False):
    """Return an array with ghost cells along one axis, by NumPy."""
    width = [(halo, halo) if other == axis else (0, 0) for other in range(whole.ndim)]
    if kind in ("fixed", "periodic"):
        return np.pad(whole, width, **PADS[kind])
    even = np.pad(whole, width, mode="reflect" if on_wall else "symmetric")
    odd = np.pad(whole, width, mode="reflect" if on_wall else "symmetric", reflect_type="odd")
    inside = tuple(slice(low, low + n) for (low, _), n in zip(width, whole.shape, strict=True))
    if kind == "reflect":
        return even
    if kind == "antireflect":  # NumPy's odd reflection is about the edge value: 2 a - f; ours is about 2.5
        result = 5.0 - even
        result[inside] = whole
        return result
    assert odd.shape == even.shape
    distance = 2 * np.arange(halo, 0, -1) - (0 if on_wall else 1)
    result = even.copy()
    for layer, d in enumerate(distance):
        for position in (layer, result.shape[axis] - 1 - layer):
            index = (slice(None),) * axis + (position,)
            result[index] = even[index] + 2.5 * (float(d) * 0.5)
    return result


def two_axes(whole, kinds, halo, at=()):
    for axis, kind in enumerate(kinds):
        if kind == "periodic":  # first: the ghost cells across a periodic boundary are the owners' values
            whole = padded(whole, axis, kind, halo)
    for axis, kind in enumerate(kinds):
        if kind != "periodic":
            whole = padded(whole, axis, kind, halo, axis in at)
    return whole


def block_of(whole, field):
    """Return the part of a padded global array that a rank's `array` holds."""
    return whole[
        tuple(slice(a, b + 2 * h) for a, b, h in zip(field.layout.start, field.layout.stop, field.halo, strict=True))
    ]


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("halo", [1, 2])
@pytest.mark.parametrize("kinds", [*product(["fixed", "reflect", "antireflect", "neumann", "periodic"], repeat=2)])
def test_exchange_centred_field_fills_ghosts_as_numpy(world, kinds, halo):
    whole = whole_array()
    for split in ("rows", "columns", "bricks"):
        state = State(world, split)
        grid = state.grid(SHAPE, dims=("y", "x"), spacing=0.5, halo=halo, boundary=kinds, boundary_value=2.5)
        field = grid.field("T")
        field[...] = whole[field.layout.slices]
        field.exchange()
        check_collective(world, np.array_equal(field.array, block_of(two_axes(whole, kinds, halo), field)), split)


@pytest.mark.ranks(1, 2, 4)
@pytest.mark.parametrize("kinds", [*product(["reflect", "antireflect", "neumann", "fixed"], repeat=2)])
def test_exchange_staggered_field_fills_ghosts_as_numpy(world, kinds):
    whole = whole_array((SHAPE[0], SHAPE[1] + 1))
    if kinds[1] in ("antireflect", "fixed"):  # they prescribe the points on the wall
        whole[:, [0, -1]] = 2.5
    for split in ("rows", "columns", "bricks"):
        grid = State(world, split).grid(SHAPE, dims=("y", "x"), spacing=0.5, boundary=kinds, boundary_value=2.5)
        field = grid.field("u", at="x")
        field[...] = whole_array((SHAPE[0], SHAPE[1] + 1))[field.layout.slices]
        field.exchange()
        check_collective(world, np.array_equal(field.array, block_of(two_axes(whole, kinds, 1, (1,)), field)), split)


@pytest.mark.ranks(1, 2, 3)
def test_exchange_sides_differ_and_take_functions(world):
    def inflow(y, x, step):
        return 10.0 * step + y + 0 * x

    def copy_of_second(inside, y, x, step):
        return [inside[1], 2 * inside[0]]

    whole = whole_array()
    for split in ("rows", "columns"):
        state = State(world, split)
        sides = {"y": ("extrapolate", copy_of_second), "x": ("fixed", "neumann")}
        grid = state.grid(SHAPE, dims=("y", "x"), halo=(2, 1), boundary=sides)
        field = grid.field("T", boundary_value={"x": (inflow, None)})
        field[...] = whole[field.layout.slices]
        state.step = 3
        field.exchange()
        top = [whole[0] + 2 * (whole[0] - whole[1]), whole[0] + (whole[0] - whole[1])]
        tall = np.vstack([*top, whole, whole[-2], 2 * whole[-1]])
        left = 30.0 + np.arange(-2, SHAPE[0] + 2)
        wide = np.hstack([left[:, None], tall, tall[:, -1:]])
        check_collective(world, np.array_equal(field.array, block_of(wide, field)), split)


@pytest.mark.ranks(1, 3)
@pytest.mark.parametrize("kind", sorted(Boundary.kinds))
def test_exchange_on_gpu_fills_ghosts_as_on_host(world, kind):
    def ghosts():
        grid = State(world).grid((8, 9), dims=("y", "x"), halo=2, boundary=kind)
        fields = [grid.field("T"), grid.field("u", at=("y", "x")), grid.field("f", components=3)]
        for number, field in enumerate(fields):
            shape = field.shape
            field[...] = np.random.default_rng(number).normal(size=shape)[field.layout.slices]
            field.exchange()
        return [field.device.to_host(field.array) for field in fields]

    expected = ghosts()
    BODIES.prefer("shim")
    try:
        found = ghosts()
    finally:
        BODIES.prefer("auto")
    check_collective(world, all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boundary": "open"}, "boundary of axis y: 'open' must be one of antireflect, .*, reflect, or a function"),
        ({"boundary": {"z": "fixed"}}, "boundary: there is no axis 'z': the axes are y, x"),
        ({"boundary": ("fixed",)}, r"must have one entry for each axis \(y, x\)|each of the axes y, x"),
        ({"boundary": {"y": ("fixed", "reflect", "fixed")}}, "of axis y = .* must be one entry, or a pair"),
        ({"boundary": {"y": ("periodic", "fixed")}}, "boundary of axis y is periodic on one side"),
        ({"boundary": "reflect", "boundary_value": {"y": 1.0}}, "reflect takes no boundary_value"),
        ({"boundary": "fixed", "boundary_value": {"y": "hot"}}, "boundary_value 'hot' must be a number, or a function"),
        ({"boundary": "fixed", "boundary_value": 1j}, "boundary_value 1j is complex, but the dtype is float64"),
        (
            {"boundary": "fixed", "boundary_value": 0.5, "dtype": np.int32},
            "boundary_value 0.5 is not a value of the dtype",
        ),
        ({"boundary": "antireflect", "dtype": np.uint8}, "needs a dtype with negative values, and not uint8"),
        ({"boundary": "extrapolate", "shape": (1, 4)}, "extrapolate needs 2 points along axis 0"),
        ({"halo": 3, "boundary": "reflect", "shape": (2, 8)}, "too small for a halo of 3|needs 3 points"),
        ({"spacing": (1.0, 2.0, 3.0)}, "spacing = .* must be a number|one number, or one for each axis"),
        ({"halo": -1}, "needs a halo ≥ 0"),
        ({"dims": ("y", "y")}, "dims .* must be one name for each axis"),
    ],
)
def test_grid_invalid_declaration_is_refused(options, message):
    options = {"shape": (6, 7), "dims": ("y", "x"), **options}
    dtype = options.pop("dtype", np.float64)
    with pytest.raises(UsageError, match=message):
        State(World()).grid(options.pop("shape"), **options).field("T", dtype)


def test_conditions_default_fills_missing_axes():
    sides = conditions("f", ("y", "x"), {"x": "reflect"}, None, [("fixed", "neumann"), ("periodic", "periodic")])
    assert [[side.name for side in pair] for pair in sides] == [["fixed", "neumann"], ["reflect", "reflect"]]


def test_boundary_with_a_name_in_use_is_refused():
    with pytest.raises(TypeError, match="two boundary conditions with the name fixed"):
        type("Other", (Boundary,), {"name": "fixed"})


@pytest.mark.parametrize("count", [1, 2, 3])
def test_function_returns_a_layer_for_each_of_the_halo(count):
    def outside(inside, y, x, step):
        assert len(inside) == 3
        return [inside[0] + layer for layer in range(count)]

    grid = State(World()).grid((6, 7), dims=("y", "x"), halo=2, boundary={"x": outside, "y": "reflect"})
    field = grid.field("T")
    grid.field("u", at="x")  # then arrays of the grid have one layer more at the upper wall
    field[...] = 1.0
    if count == 3:
        with pytest.raises(UsageError, match="lower side of axis x: function outside returned 3 layers for a halo of"):
            field.exchange()
    else:
        field.exchange()
        assert field.array[2, -2:].tolist() == [1.0, 1.0 + (count == 2)]


WRONG_SHAPES = {
    "fixed": ("fixed", lambda y, x, step: np.zeros(3)),
    "fixed, too many axes": ("fixed", lambda y, x, step: np.zeros((2, 9, 1))),
    "antireflect": ("antireflect", lambda y, x, step: np.zeros((1, 7))),
    "neumann": ("neumann", lambda y, x, step: np.zeros((9, 2))),
    "function": (lambda inside, y, x, step: inside[0][1:], None),
    "layers": (lambda inside, y, x, step: [inside[0][:, 0]], None),
}


def on_device(value):
    """The same function, which returns an array of the device."""
    return value and (lambda *arguments: BODIES.device.from_host(value(*arguments)))


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize("case", WRONG_SHAPES)
def test_boundary_function_of_another_shape_is_refused(world, case):
    """Only the last rank has the wall, so that only it raises the error."""
    kind, value = WRONG_SHAPES[case]
    for body in ("auto", "shim"):
        BODIES.prefer(body)
        sides = {"boundary": {"x": ("reflect", kind)}, "boundary_value": {"x": (None, on_device(value))}}
        field = State(world, "columns").grid((9, 10), dims=("y", "x"), **sides).field("T")
        message = ""
        try:
            field.exchange()
        except UsageError as error:
            message = str(error)
        parts = (
            "of field T, upper side of axis x: ",
            " has the shape (",
            "this rank the shape (11, 1). Return",
        )
        is_last = world.rank == world.size - 1
        check_collective(world, all(part in message for part in parts) if is_last else not message, body)
    BODIES.prefer("auto")


@pytest.mark.parametrize("values", [1.0, np.float32(2), np.zeros((11, 1)), np.zeros((1, 1)), np.zeros(1)])
def test_boundary_function_of_a_shape_that_broadcasts_is_used(values):
    grid = State(World()).grid((9, 10), dims=("y", "x"), boundary={"x": (lambda inside, y, x, step: values, "reflect")})
    field = grid.field("T")
    field.exchange()
    assert (field.array[:, 0] == np.ravel(values)[0]).all()
