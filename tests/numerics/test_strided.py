"""Strided views, compared with NumPy's own indexing."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from anyrank.numerics import strided


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (3, 0, 2), (1, 7, 1)])
def test_contiguous_strides_are_those_of_numpy(shape):
    if 0 not in shape:
        assert strided.contiguous_strides(shape, 2) == [*np.zeros(shape, np.int16).strides]
    for index in product(*map(range, shape)):
        offset = strided.offset_of(index, strided.contiguous_strides(shape))
        assert offset == (np.ravel_multi_index(index, shape) if shape else 0)


def test_merge_axes_joins_contiguous_axes():
    array = np.zeros((2, 3, 4, 5))
    assert strided.merge_axes(array.shape, array.strides) == ([120], [[8]])
    cut = array[:, :, :2]
    assert strided.merge_axes(cut.shape, cut.strides) == ([6, 10], [[160, 8]])
    assert strided.merge_axes(cut.shape, cut.strides, [0, 0, 0, 0]) == ([6, 10], [[160, 8], [0, 0]])


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("view", ["", "transposed", "every second"])
def test_strided_blocks_cover_each_element_once(monkeypatch, whole, view):
    monkeypatch.setattr(strided, "_COPIED", 7)
    monkeypatch.setattr(strided, "_WIDEST", 5)
    array = np.arange(2 * 3 * 11).reshape(2, 3, 11)
    array = {"": array, "transposed": array.T, "every second": array[..., ::2]}[view]
    seen = np.full(array.shape, -1)
    for (*lead, row, column), block in strided.tiles(array, whole):
        high, wide = block.shape
        index = (*lead, slice(row, row + high), slice(column, column + wide))
        assert (seen[index] == -1).all() and (block.strides[-1] == block.itemsize or wide == 1)
        seen[index] = block
    assert np.array_equal(seen, array)


@pytest.mark.parametrize("brick", [(slice(1, 3), slice(0, 4), slice(0, 5)), (slice(0, 2), slice(1, 3), slice(2, 4))])
def test_strided_runs_of_a_brick_are_its_bytes_in_the_file(brick):
    whole = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)
    file = bytearray(whole.nbytes)
    for offset, data in strided.extents(
        np.ascontiguousarray(whole[brick]), whole.shape, [part.start for part in brick]
    ):
        file[offset : offset + len(data)] = data
    expected = np.zeros_like(whole)
    expected[brick] = whole[brick]
    assert bytes(file) == expected.tobytes()
    assert not [*strided.extents(np.empty((0, 4, 5)), whole.shape, (0, 0, 0))]
