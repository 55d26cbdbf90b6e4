"""Digests of global arrays: one value for every split, memory layout and body, and another for every change."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ranks import check_collective

from anyrank.device.emulated import fake
from anyrank.kernel import BODIES
from anyrank.numerics.digest import digest_of_parts, hexadecimal, local_digest
from anyrank.state import State

DTYPES = ["f8", "f4", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16"]
SHAPES = [(), (1,), (17,), (3, 5), (4, 1), (4, 3, 5), (2, 3, 4, 5)]


def whole_digest(array):
    return local_digest(array, array.shape, (0,) * array.ndim)


def numbers(shape, dtype="f8", seed=0):
    random = np.random.default_rng(seed)
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    octets = random.integers(0, 2 if dtype == "?" else 256, count, np.uint8)
    return octets.view(dtype).reshape(shape)


def bricks(shape, cuts):
    """The parts of an array between the cuts of every axis."""
    grid = [[0, *sorted(cut), n] for cut, n in zip(cuts, shape, strict=True)]
    for index in np.ndindex(*(len(borders) - 1 for borders in grid)):
        yield tuple(slice(borders[i], borders[i + 1]) for borders, i in zip(grid, index, strict=True))


@pytest.mark.parametrize("body", ["reference", "cython"])
def test_digest_known_values_never_change(body):
    """Users have these values in files."""
    BODIES.prefer(body)
    try:
        assert hexadecimal(whole_digest(np.arange(12.0).reshape(3, 4))) == "d3cf585969b0dd5b"
        assert hexadecimal(whole_digest(np.arange(7, dtype=np.int32))) == "abab356d96ff5097"
        assert hexadecimal(whole_digest(np.array([1 + 2j]))) == "7a132fea38e07d8e"
        assert hexadecimal(whole_digest(np.array(-0.0))) == "481ec0a212a9f3db"
    finally:
        BODIES.prefer("auto")


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.sampled_from(SHAPES), st.data())
def test_digest_of_any_split_is_that_of_the_whole(dtype, shape, data):
    array = numbers(shape, dtype)
    cuts = [data.draw(st.lists(st.integers(0, n), max_size=2)) for n in shape]
    parts = [local_digest(array[b], shape, [s.start for s in b]) for b in bricks(shape, cuts)]
    assert sum(parts) % 2**64 == whole_digest(array)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_digest_does_not_depend_on_the_layout_in_memory(shape, dtype):
    array = numbers(shape, dtype)
    wide = np.zeros([2 * n + 2 for n in shape], dtype)
    for inside in ([slice(1, n + 1) for n in shape], [slice(0, 2 * n, 2) for n in shape]):
        wide[tuple(inside)] = array
        assert whole_digest(wide[tuple(inside)]) == whole_digest(array)
    assert whole_digest(np.asfortranarray(array)) == whole_digest(array)
    assert whole_digest(array.astype(array.dtype.newbyteorder(">"))) == whole_digest(array)


@given(st.sampled_from([shape for shape in SHAPES if shape]), st.sampled_from(DTYPES), st.data())
def test_digest_changes_with_a_flipped_bit(shape, dtype, data):
    array = numbers(shape, dtype)
    changed = array.copy()
    octets = changed.reshape(-1).view(np.uint8)
    bit = 0 if dtype == "?" else data.draw(st.integers(0, 7))
    octets[data.draw(st.integers(0, octets.size - 1))] ^= 1 << bit
    assert whole_digest(changed) != whole_digest(array)


def test_digest_depends_on_the_indices_of_values():
    array = numbers((6, 8))
    seen = {whole_digest(array)}
    for other in (array[::-1], array[:, ::-1], np.roll(array, 1, 0), np.roll(array, 1, 1), array[[1, 0, 2, 3, 4, 5]]):
        seen.add(whole_digest(other))
    seen.add(local_digest(array, (7, 8), (1, 0)))
    seen.add(local_digest(array, (6, 9), (0, 0)))
    seen.add(local_digest(array, (6, 9), (0, 1)))
    assert len(seen) == 9


def test_digest_distinguishes_signs_of_zero_and_nans():
    arrays = [
        np.array([0.0]),
        np.array([-0.0]),
        np.array([np.nan]),
        np.array([0x7FF8000000000001], np.int64).view(float),
    ]
    assert len({whole_digest(array) for array in arrays}) == 4


def test_digest_of_no_elements_is_zero():
    assert local_digest(np.zeros((0, 5)), (10, 5), (3, 0)) == local_digest(np.zeros((5, 0)), (5, 9), (0, 9)) == 0


def test_digest_of_more_than_one_conversion_buffer():
    array = numbers((3, 100_000), "i2")
    expected = whole_digest(array.astype("u8") & 0xFFFF)
    assert whole_digest(array) == whole_digest(np.asfortranarray(array)) == expected
    assert whole_digest(array.reshape(-1)) == expected and whole_digest(array.reshape(1000, 300)) == expected


@pytest.mark.parametrize("body", ["auto", "shim"])
def test_digest_of_rows_wider_than_a_kernel_takes(monkeypatch, body):
    wide = numbers((3, 40))
    for array in (wide[:, 2:-1], wide.reshape(-1)):
        expected = whole_digest(array)
        monkeypatch.setattr("anyrank.numerics.strided._WIDEST", 7)
        BODIES.prefer(body)
        on_gpu = BODIES.device.from_host(wide.copy())
        assert whole_digest(on_gpu[:, 2:-1] if array.ndim == 2 else on_gpu.reshape(-1)) == expected
        BODIES.prefer("auto")
        monkeypatch.undo()


@pytest.mark.parametrize("bad", [np.zeros(2, np.longdouble), np.array(["a"]), np.zeros(2, "M8[s]"), np.zeros(2, "V4")])
def test_digest_of_other_elements_is_refused(bad):
    with pytest.raises(TypeError, match="not"):
        whole_digest(bad)


def test_combine_depends_on_names_types_shapes_and_digests():
    members = {"v": ("<f8", (4, 6), 7), "T": ("<i4", (), 2**64 - 1)}
    text = b"T <i4  ffffffffffffffff\nv <f8 4x6 0000000000000007\n"
    expected = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
    assert digest_of_parts(members) == digest_of_parts(dict(reversed(members.items()))) == expected
    changes = [("<f4", (4, 6), 7), ("<f8", (6, 4), 7), ("<f8", (4, 6), 8)]
    assert len({digest_of_parts({**members, "v": change}) for change in changes} | {expected}) == 4
    assert digest_of_parts({}) != digest_of_parts({"a": ("<f8", (), 0)})


def test_hexadecimal_has_sixteen_digits():
    assert [hexadecimal(0), hexadecimal(2**64 - 1)] == ["0" * 16, "f" * 16]


@pytest.mark.parametrize("body", ["shim", pytest.param("cupy", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_digest_on_gpu_copies_no_words_to_the_host(dtype, body):
    BODIES.prefer(body)
    try:
        whole = numbers((9, 30, 50), dtype)
        on_gpu, start = BODIES.device.from_host(whole), (2, 3, 5)
        for part in (np.s_[:], np.s_[1:, :-1, 1:], np.s_[:, :, ::2], np.s_[::-1, 3:, 8], np.s_[0, 1], np.s_[:, :0]):
            x, before = whole[part], fake.copied.copy()
            shape = [2 * n + 9 for n in x.shape]
            assert local_digest(on_gpu[part], shape, start[: x.ndim]) == local_digest(x, shape, start[: x.ndim])
            assert fake.copied["in"] == before["in"] and fake.copied["out"] - before["out"] <= 8 * 9
            assert local_digest(on_gpu[part], x.shape, (0,) * x.ndim) == whole_digest(x)
        before = fake.copied["out"]
        assert whole_digest(on_gpu) == whole_digest(whole) and fake.copied["out"] - before <= 8
    finally:
        BODIES.prefer("auto")


@pytest.mark.ranks(1, 2, 3, 4)
def test_digest_of_a_field_does_not_depend_on_the_ranks(world):
    for split, body in (("rows", "auto"), ("columns", "auto"), ("auto", "auto"), ("auto", "shim")):
        BODIES.prefer(body)
        state = State(world, split)
        for dtype in ("f8", "f4", "i8", "?", "c16"):
            field = state.field(f"x_{np.dtype(dtype).name}", (9, 11), dtype, halo=1)
            whole = numbers(field.shape, dtype)
            field.storage[...] = 1
            field[...] = whole[field.layout.slices]
            before = fake.copied["out"]
            check_collective(world, field.digest() == whole_digest(whole), f"{split} {dtype}")
            check_collective(world, fake.copied["out"] - before <= 8, f"{split} {dtype}, one word leaves a GPU")
        volume = state.field("volume", (8, 5, 7), halo=1)
        volume[...] = numbers(volume.shape)[volume.layout.slices]
        check_collective(world, volume.digest() == whole_digest(numbers(volume.shape)), f"{split}, three axes")
    BODIES.prefer("auto")


@pytest.mark.parametrize("body", ["reference", "cython"])
@pytest.mark.parametrize("dtype", ["f8", "u4", "i2", "c8", "c16"])
def test_digest_of_packed_or_byte_swapped_arrays_is_the_same(body, dtype):
    """Fields of packed records have addresses that are no multiples of the element's size."""
    BODIES.prefer(body)
    array = numbers((5, 12), dtype)
    for kind in (array.dtype, array.dtype.newbyteorder()):
        packed = np.zeros(array.shape, [("before", "V1"), ("x", kind)])["x"]
        packed[...] = array
        for part in (packed, packed[::-1, 1:-1]):
            same = array if part.shape == array.shape else array[::-1, 1:-1]
            assert whole_digest(part) == whole_digest(same)
    BODIES.prefer("auto")
