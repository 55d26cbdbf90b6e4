"""The digest of a block: its definition in whole numbers, the same from every body, and sensitive to every change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyrank.device import open_device
from anyrank.kernel import Kernel
from anyrank.kernels.digest import example

WORD = (1 << 64) - 1
WORDS = st.integers(0, WORD)


@pytest.fixture(params=["reference", "cython", "shim"])
def digest(request):
    return Kernel("digest").load(request.param, open_device(request.param))


def mix(bits, index):
    """One term, in Python's integers."""
    h = bits ^ (index + 1) * 0x9E3779B97F4A7C15 & WORD
    h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9 & WORD
    h = (h ^ h >> 27) * 0x94D049BB133111EB & WORD
    return h ^ h >> 31


def test_digest_kernel_mixing_is_that_of_splitmix64(digest):
    # Vigna's splitmix64.c with seed 0 gives these first; its state is (index + 1)·golden, our bits are 0.
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [digest(np.zeros((1, 1), np.uint64), index, 0) for index in range(3)] == known


@given(st.integers(0, 5), st.integers(0, 20), st.integers(-(1 << 64), 1 << 64), st.integers(-40, 1 << 64), st.data())
def test_digest_kernel_is_the_sum_of_its_terms(digest, rows, columns, first, row_step, data):
    seed = data.draw(st.integers(0, 1000))
    wide = np.random.default_rng(seed).integers(0, 1 << 64, (rows, columns + 3), np.uint64)
    wide.flags.writeable = False
    bits = wide[:, 1 : columns + 1]
    expected = sum(mix(int(bits[r, c]), first + r * row_step + c) for r in range(rows) for c in range(columns))
    result = digest(bits, first, row_step)
    assert result == expected & WORD and type(result) is int


@pytest.mark.parametrize("size", [0, 1, 100, 100_000])
def test_digest_kernel_bodies_give_the_references_bits(digest, size):
    arguments, amount, unit = example("digest", size)
    assert digest(*arguments) == Kernel("digest").load("reference", open_device("reference"))(*arguments)
    assert (amount, unit) == (arguments[0].size, "words") and amount >= size


@given(st.lists(WORDS, min_size=1, max_size=50), st.data())
def test_digest_kernel_flipped_bit_changes_it(digest, words, data):
    bits = np.array([words], np.uint64)
    changed = bits.copy()
    changed[0, data.draw(st.integers(0, len(words) - 1))] ^= np.uint64(1 << data.draw(st.integers(0, 63)))
    assert digest(changed, 0, 0) != digest(bits, 0, 0)


@given(st.lists(WORDS, min_size=2, max_size=50, unique=True), st.data())
def test_digest_kernel_swaps_and_other_indices_change_it(digest, words, data):
    i, j = data.draw(st.lists(st.integers(0, len(words) - 1), min_size=2, max_size=2, unique=True))
    bits = np.array([words], np.uint64)
    swapped = bits.copy()
    swapped[0, [i, j]] = bits[0, [j, i]]
    assert digest(swapped, 0, 0) != digest(bits, 0, 0)
    assert digest(bits, 1, 0) != digest(bits, 0, 0)


def test_digest_kernel_takes_reversed_repeated_odd_strides(digest):
    bits = np.random.default_rng(2).integers(0, 1 << 64, (6, 9), np.uint64)
    odd = np.zeros((6, 9 * 8 + 3), np.uint8)[:, 3:].view(np.uint64)
    odd[...] = bits
    for view in (bits[::-1], np.broadcast_to(bits[0], (4, 9)), odd, bits[:, 3:4], bits[::2]):
        assert digest(view, 5, 100) == digest(view.copy(), 5, 100)


@pytest.mark.parametrize("blocks", [1, 3, None])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
def test_gpu_digest_words_of_any_width_match_reference(dtype, blocks):
    wide = np.random.default_rng(3).integers(0, np.iinfo(dtype).max, (40, 333), dtype, endpoint=True)
    run, reference = (Kernel("digest").load(body, open_device(body)) for body in ("shim", "reference"))
    for words in (wide[:, 7:], wide[:, :1], wide[:, 9:12], wide[3:4], wide[:0], wide[::-3, 1:-1]):
        assert run(words, 77, 1000, blocks=blocks) == reference(words.astype(np.uint64), 77, 1000)


TILE = 2048  # as in gpu.cu


@pytest.mark.parametrize("blocks", [1, 3, None])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
def test_gpu_digest_wide_rows_match_reference(dtype, blocks):
    """Rows of a tile and more, one word shorter and one longer, contiguous or inside wider rows."""
    wide = np.random.default_rng(4).integers(0, np.iinfo(dtype).max, (3, 5 * TILE), dtype, endpoint=True)
    run, reference = (Kernel("digest").load(body, open_device(body)) for body in ("shim", "reference"))
    for columns in (TILE - 1, TILE, TILE + 1, TILE + 255, TILE + 257, 2 * TILE - 1, 3 * TILE, 4 * TILE + 1):
        for words in (wide[:1, :columns], wide[:, 1 : columns + 1], wide[::-2, 3 : columns + 3]):
            assert run(words, 77, 10_000, blocks=blocks) == reference(words.astype(np.uint64), 77, 10_000)


@pytest.mark.parametrize("size", [16 * TILE - 1, 16 * TILE, 33 * TILE + 5])
@pytest.mark.parametrize("blocks", [1, 2, 16, 17])
def test_gpu_digest_long_row_matches_reference(size, blocks):
    """One contiguous row that blocks traverse several times, and more blocks than tiles."""
    words = np.random.default_rng(size).integers(0, 1 << 64, (1, size + 1), np.uint64)[:, 1:]
    run, reference = (Kernel("digest").load(body, open_device(body)) for body in ("shim", "reference"))
    assert run(words, 5, 0, blocks=blocks) == reference(words, 5, 0)


@pytest.mark.parametrize("columns", [TILE - 1, TILE + 3])
@pytest.mark.parametrize("first", [0, 1, WORD - TILE, WORD - 1, WORD, -1])
@pytest.mark.parametrize("row_step", [0, 1, WORD, WORD - TILE, -5])
def test_gpu_digest_keys_wrap_at_two_to_64(columns, first, row_step):
    """Indices from 2^64 on wrap to 0, inside a row and from row to row."""
    words = np.random.default_rng(5).integers(0, 1 << 64, (4, columns), np.uint64)
    run, reference = (Kernel("digest").load(body, open_device(body)) for body in ("shim", "reference"))
    assert run(words, first, row_step, blocks=2) == reference(words, first, row_step)
