"""exact.min and exact.max: the same for every split over ranks, on the CPU and on a GPU."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numerics.arrays import error_of, make_field, numbers
from numerics.equality import same
from ranks import check_collective

from anyrank import exact
from anyrank.device.emulated import fake
from anyrank.errors import AnyrankError, UsageError
from anyrank.kernel import BODIES
from anyrank.numerics import extremes
from anyrank.state import State


@pytest.mark.parametrize("order", "<>")
def test_exact_extremes_of_uint64_in_either_byte_order(order):
    x = np.array([2**63 + 1, 2**64 - 1], f"{order}u8")
    assert (exact.min(x, local=True), exact.max(x, local=True)) == (2**63 + 1, 2**64 - 1)
    assert exact.min(np.array([5], f"{order}u8"), local=True) == 5


@given(st.lists(st.floats(), min_size=1, max_size=10))
def test_exact_extremes_do_not_depend_on_the_order(values):
    x = np.array(values)
    if np.isnan(x).any():
        assert math.isnan(exact.min(x, local=True)) and math.isnan(exact.max(x, local=True))
    else:
        ordered = sorted(values, key=lambda v: (v, math.copysign(1, v)))
        assert same(exact.min(x, local=True), ordered[0]) and same(exact.max(x, local=True), ordered[-1])


GAPS = {
    "1-D every third": ((31,), lambda x: x[::3]),
    "1-D reversed": ((31,), lambda x: x[::-1]),
    "2-D inside": ((9, 12), lambda x: x[1:-1, 1:-1]),
    "2-D high": ((23, 4), lambda x: x[:, 1:-1]),
    "2-D turned": ((9, 12), lambda x: x.T[2:-2, ::2]),
    "2-D a column": ((9, 12), lambda x: x[:, 3:4]),
    "3-D inside": ((7, 8, 12), lambda x: x[2:-2, 1:-1, 1:-1]),
    "3-D strided": ((7, 8, 12), lambda x: x[::-2, 1::3, ::-1]),
    "4-D inside": ((3, 6, 5, 4), lambda x: x[:, 1:-1, 1:-1, 1:-1]),
    "4-D one repeated": ((3, 1, 5, 4), lambda x: x[::2, :, :, ::2]),
}


@pytest.fixture
def strict_shim(monkeypatch):
    """The shim's body, on a device that reduces no array with gaps in one call."""
    now = fake._run_now

    def strict(call, arguments, named):
        array = getattr(call, "__self__", None)
        if getattr(call, "__name__", "") in ("min", "max", "any", "all") and "axis" not in named:
            assert array.flags.c_contiguous or array.flags.f_contiguous, "CuPy takes one block of threads for this"
        return now(call, arguments, named)

    monkeypatch.setattr(fake, "_run_now", strict)
    BODIES.prefer("shim")
    yield BODIES.device
    BODIES.prefer("auto")


@pytest.mark.parametrize("view", GAPS)
@pytest.mark.parametrize("each", [4, 1 << 12])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_])
def test_exact_extremes_gpu_array_with_gaps_match_host(strict_shim, monkeypatch, view, each, dtype):
    """Each element in turn is the extreme; then zeros of both signs, NaN and infinities occur."""
    monkeypatch.setattr(extremes, "_PER_BLOCK", each)
    shape, view = GAPS[view]
    size = math.prod(shape)
    x = np.random.default_rng(size).permutation(size).reshape(shape) % 251
    cases = [x, -x, x == 3, x * 0]
    if np.dtype(dtype).kind == "f":
        special = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1.0, -1.0, 6e-8])
        cases += [-0.0 * x, np.copysign(0.0, x - 9), *(special[x % k][..., :] for k in (2, 3, 4)), special[2 + x % 3]]
        cases += [np.where(x == k, special[1], special[5]) for k in (0, 5)] + [
            np.where(x == k, 0.0, -1.0) for k in (0, 5)
        ]
        cases += [np.where(x == k, np.nan, x) for k in range(0, min(size, 251), 17)]
    for values in cases:
        host = values.astype(dtype)
        on_gpu = view(strict_shim.from_host(host))
        assert on_gpu.flags.c_contiguous is view(host).flags.c_contiguous
        for function in (exact.min, exact.max):
            assert same(function(on_gpu, local=True), function(view(host), local=True)), (function, host)


@pytest.mark.ranks(2)
def test_exact_extremes_of_two_types_are_refused_by_all(world):
    for first, other, types in ((1, 0.5, "int64 and float64"), (1, np.uint64(3), "int64 and uint64")):
        with pytest.raises(TypeError, match=rf"exact\.max takes arrays of one kind .*, not {types}"):
            exact.max(other if world.rank else first, world=world)
    check_collective(world, exact.max(np.int8(3) if world.rank else np.uint32(2), world=world) == 3)


def first_index(x, largest):
    """The index of the first extreme in C order: NaN before all, −0 below +0."""

    def key(value):
        return (value, math.copysign(1, value)) if isinstance(value, float) else value

    flat = x.ravel().tolist()
    nans = [k for k, value in enumerate(flat) if value != value]
    keys = [*map(key, flat)]
    first = nans[0] if nans else keys.index((max if largest else min)(keys))
    return tuple(int(i) for i in np.unravel_index(first, x.shape))


EXTREMES = {
    "ties": lambda r: r.integers(0, 3, (6, 8)).astype(float),
    "zeros": lambda r: r.choice([0.0, -0.0], (6, 8)),
    "negative": lambda r: r.choice([0.0, -0.0, -1.0], (6, 8)),
    "nan": lambda r: r.choice([0.0, math.nan, math.inf], (6, 8)),
    "infinite": lambda r: r.choice([1.0, -math.inf, math.inf], (6, 8)),
    "float32": lambda r: r.choice(np.array([0.0, 1e-40, -1e-40, -0.0], np.float32), (6, 8)),
    "int64": lambda r: r.choice([2**62, 2**62 + 1, -3], (6, 8)),
    "uint64": lambda r: r.choice(np.array([2**63, 2**64 - 1], np.uint64), (6, 8)),
    "bool": lambda r: r.choice([True, False], (6, 8)),
}


@pytest.mark.ranks(1, 2, 3, 4)
def test_exact_argmax_and_argmin_are_the_first_global_index(world):
    for body in ("auto", "shim"):
        BODIES.prefer(body)
        for split in ("rows", "columns", "auto")[body == "shim" :: 2]:
            state = State(world, split)
            for name, make in EXTREMES.items():
                x = make(np.random.default_rng(len(name)))
                field = state.field(name, x.shape, x.dtype, halo=1)
                field[...] = x[field.layout.slices]
                found = exact.argmax(field), exact.argmin(field)
                expected = first_index(x, True), first_index(x, False)
                check_collective(world, found == expected, f"{body}, {split}, {name}: {found}, {expected}")
                check_collective(world, same(x[found[0]].item() * 1, exact.max(field) * 1), name)
                own = x[field.layout.slices]
                mine = tuple(i - a for i, a in zip(exact.argmax(field, local=True), field.layout.start, strict=True))
                check_collective(world, mine == first_index(own, True) == exact.argmax(own, local=True))
    BODIES.prefer("auto")


@pytest.mark.ranks(2)
def test_exact_argmax_of_arrays_and_components(world):
    state = State(world)
    x = numbers((3, 4, 6))
    check_collective(world, exact.argmin(make_field(state, "u", x, components=True)) == first_index(x, False))
    for options in ({}, {"world": world}):
        error = error_of(lambda options=options: exact.argmax(np.zeros(3), **options))
        check_collective(world, isinstance(error, UsageError) and "exact.argmax at test_extremes.py" in str(error))
    short = state.field("short", (1,))
    short[...] = -2.5
    check_collective(world, exact.argmax(short) == (0,), "a rank without elements")


@pytest.mark.parametrize("function", [exact.argmax, exact.argmin])
def test_exact_argmax_of_no_or_complex_numbers_is_refused(function):
    with pytest.raises(AnyrankError, match="at least one"):
        function(np.zeros((0, 3)), local=True)
    with pytest.raises(TypeError, match="not complex128"):
        function(np.array([1j]), local=True)
