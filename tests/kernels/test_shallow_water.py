"""The shallow-water step: NCAR's bits, and every body gives the bits of the reference, for any block."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anyrank.device import open_device
from anyrank.device.source import inline_includes
from anyrank.kernel import Kernel
from anyrank.kernels.shallow_water import example, gpu
from anyrank.kernels.shallow_water.reference import shallow_water as reference

Step = Callable[..., None]
Mesh = tuple[np.ndarray, ...]

ANSWERS = Path(__file__).parents[1] / "answers" / "swm-64x64"
SHA256 = {
    "p": "200ce83ca1a4e1a9bc4bbdf8618ad32fcee5d33c58397d897a309f699f715613",
    "u": "3cc48668ccd21b581db6f05320c2d544398c6fe4c87d096db710fcbce5392693",
    "v": "9febcccb0e6e616f0d48b7a148b1a8941d682c02c78f294911df7c7254eeed5c",
}
DT, ALPHA, DX, DY = 90.0, 0.001, 1e5, 1e5
SIZES = [(1, 1), (1, 7), (5, 1), (17, 33), (129, 65), (3, 5000)]
#: Larger than what the Cython body stores through the cache.
LARGE = (61, 6007)
BODIES = ("numba", "cython", "shim")


@pytest.fixture(params=BODIES)
def body(request: pytest.FixtureRequest) -> Step:
    return load(request.param)


def load(name: str) -> Step:
    return Kernel("shallow_water").load(name, open_device(name))


def bits(array: np.ndarray) -> np.ndarray:
    """As integers, so that −0 differs from 0 and NaN equals itself."""
    return np.ascontiguousarray(array).view(np.uint64)


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, "<f8").tobytes()).hexdigest()


def ncar_start(m: int, n: int) -> Mesh:
    """NCAR's initial p, u, v, with sine and cosine of the C library."""
    a, tpi, el = 1e6, math.pi + math.pi, n * DX
    di, dj = tpi / m, tpi / n
    pcf = math.pi * math.pi * a * a / (el * el)
    sin_i = np.array([a * math.sin((i + 0.5) * di) for i in range(m + 1)])
    sin_j = np.array([math.sin((j + 0.5) * dj) for j in range(n + 1)])
    cos_i = np.array([math.cos((2 * i) * di) for i in range(m)])
    cos_j = np.array([math.cos((2 * j) * dj) for j in range(n)])
    psi = sin_i[:, None] * sin_j
    p = pcf * (cos_i[:, None] + cos_j) + 50000.0
    u = np.roll(-(psi[1:, 1:] - psi[1:, :-1]) / DY, 1, axis=0)
    v = np.roll((psi[1:, 1:] - psi[:-1, 1:]) / DX, 1, axis=1)
    return p, u, v


def run(step: Step, start: Mesh, steps: int) -> Mesh:
    """Step a periodic plane in one block."""
    now = tuple(np.pad(field, 1, mode="wrap") for field in start)
    new = tuple(np.empty_like(field) for field in now)
    old = tuple(field.copy() for field in start)
    for k in range(steps):
        tdt = DT if k == 0 else DT + DT
        step(*(field[1:-1, 1:-1] for field in new), *now, *old, tdt, ALPHA, DX, DY, k == 0)
        now, new = new, now
        for field in now:
            field[0], field[-1] = field[-2], field[1]
            field[:, 0], field[:, -1] = field[:, -2], field[:, 1]
    return tuple(field[1:-1, 1:-1] for field in now)


def block(m: int, n: int, apart: int = 0) -> list[np.ndarray]:
    """New, current and old levels of m × n random cells; `apart` adds space between rows and arrays."""
    random = np.random.default_rng(m * 10000 + n)

    def array(rows: int, columns: int, middle: float, place: int) -> np.ndarray:
        wide = np.full((rows, columns + 9 * apart), np.nan)
        view = wide[:, place * apart : place * apart + columns]
        view[...] = middle + 10.0 * random.standard_normal((rows, columns))
        return view

    middles = (50000.0, 0.0, 0.0) * 3
    halo = (0, 0, 0, 2, 2, 2, 0, 0, 0)
    return [array(m + h, n + h, at, place) for place, (h, at) in enumerate(zip(halo, middles, strict=True))]


def step_block(step: Step, arrays: list[np.ndarray], first: bool, **options: Any) -> list[np.ndarray]:
    step(*arrays, DT if first else DT + DT, ALPHA, DX, DY, first, **options)
    return arrays


def assert_same(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for k, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert np.isfinite(b).all()
        assert np.array_equal(bits(a), bits(b)), f"array {k}"


def test_shallow_water_stored_answer_is_ncars() -> None:
    for name, expected in SHA256.items():
        assert sha256(np.fromfile(ANSWERS / f"{name}.bin", "<f8").reshape(65, 65)[:64, :64]) == expected


@pytest.mark.parametrize("name", ["reference", *BODIES])
def test_shallow_water_gives_every_bit_of_ncars_answer(name: str) -> None:
    fields = run(load(name), ncar_start(64, 64), 4000)
    assert {name: sha256(field) for name, field in zip("puv", fields, strict=True)} == SHA256


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("apart", [0, 1, 8])
@pytest.mark.parametrize("size", SIZES)
def test_shallow_water_body_gives_the_references_bits(
    body: Step, size: tuple[int, int], apart: int, first: bool
) -> None:
    expected = step_block(reference, block(*size), first)
    assert_same(step_block(body, block(*size, apart), first), expected)


@pytest.mark.parametrize("apart", [0, 1, 8])
@pytest.mark.parametrize("lanes", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(17, 33), LARGE])
def test_shallow_water_width_of_vectors_changes_no_bit(size: tuple[int, int], lanes: int, apart: int) -> None:
    expected = step_block(reference, block(*size), False)
    assert_same(step_block(load("cython"), block(*size, apart), False, lanes=lanes), expected)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("size", [(3, 3), (40, 57)])
def test_shallow_water_regions_give_the_whole_block(body: Step, size: tuple[int, int], first: bool) -> None:
    m, n = size
    expected = step_block(reference, block(m, n), first)
    arrays = block(m, n, apart=1)
    inside, west, east = slice(1, m - 1), slice(0, 1), slice(n - 1, n)
    regions = [(inside, slice(1, n - 1)), (slice(0, 1), slice(0, n)), (slice(m - 1, m), slice(0, n))]
    for rows, columns in [*regions, (inside, west), (inside, east)]:
        ring = (slice(rows.start, rows.stop + 2), slice(columns.start, columns.stop + 2))
        step_block(body, [a[ring] if 3 <= k < 6 else a[rows, columns] for k, a in enumerate(arrays)], first)
    assert_same(arrays, expected)


@pytest.mark.parametrize("missing", [None, 1, 2])
def test_shallow_water_cuda_needs_barriers_but_no_thread_order(
    missing: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier = "__syncthreads();"
    parts = inline_includes(Path(str(gpu.__file__)).with_name("gpu.cu")).split(barrier)
    assert len(parts) == 3
    if missing:
        parts[missing - 1 : missing + 1] = ["".join(parts[missing - 1 : missing + 1])]
    source = tmp_path / "gpu.cu"
    source.write_text(barrier.join(parts))
    size = (20, 300)
    expected = step_block(reference, block(*size), False)
    same = []
    for order in ("", "reverse"):
        monkeypatch.setenv("ANYRANK_SHIM_ORDER", order)
        arrays = step_block(partial(gpu.shallow_water, open_device("shim").load(source)), block(*size), False)
        same.append(all(np.array_equal(bits(a), bits(b)) for a, b in zip(arrays, expected, strict=True)))
    assert all(same) == (missing is None)


def test_shallow_water_writes_nothing_outside_its_region(body: Step) -> None:
    arrays = block(9, 30, apart=2)
    step_block(body, arrays, False)
    for array in arrays:
        assert np.count_nonzero(~np.isnan(array.base)) == array.size, "the rest of the base was NaN"


def test_shallow_water_takes_a_read_only_current_level(body: Step) -> None:
    arrays = block(6, 11)
    expected = step_block(reference, block(6, 11), False)
    for field in arrays[3:6]:
        field.flags.writeable = False
    assert_same(step_block(body, arrays, False), expected)


@pytest.mark.parametrize(
    ("place", "wrong", "rule"),
    [
        (1, np.zeros((6, 10)), "6 × 11, not 6 × 10"),
        (4, np.zeros((6, 11)), "8 × 13, not 6 × 11"),
        (7, np.zeros((6, 11), np.float32), "float64"),
        (8, np.zeros((11, 6)).T, "contiguous"),
        (3, np.zeros(13), "two axes"),
    ],
)
def test_shallow_water_cython_refuses_arrays_of_wrong_shape(place: int, wrong: np.ndarray, rule: str) -> None:
    arrays = block(6, 11)
    arrays[place] = wrong
    with pytest.raises(ValueError, match=rule):
        step_block(load("cython"), arrays, False)


@pytest.mark.parametrize("size", [1, 2, 300, 5000])
def test_shallow_water_example_has_about_the_requested_size(body: Step, size: int) -> None:
    arguments, amount, unit = example("shallow_water", size)
    expected, _, _ = example("shallow_water", size)
    assert size <= amount <= 2 * size and unit == "cell-steps"
    body(*arguments)
    reference(*expected)
    assert_same(list(arguments[:9]), list(expected[:9]))
