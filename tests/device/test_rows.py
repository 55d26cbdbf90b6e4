"""Rows of fields begin at cache lines if that costs little memory."""

import numpy as np
import pytest

from anyrank.device.host import LINE, Device


@pytest.mark.parametrize("first", [0, 1, 3, 8])
@pytest.mark.parametrize(
    ("shape", "dtype"), [((5, 300), "f8"), ((2, 3, 517), "c16"), ((1031,), "f4"), ((0, 400), "i8")]
)
def test_rows_have_an_element_at_the_start_of_a_line(shape, dtype, first):
    array = Device().rows(shape, 7, dtype, first)
    assert (array.shape, array.dtype, np.all(array == 7)) == (shape, np.dtype(dtype), True)
    begins = array[..., first]
    addresses = {array.ctypes.data + first * array.itemsize + index @ array.strides[:-1] for index in _indices(begins)}
    assert all(address % LINE == 0 for address in addresses)
    assert array.base.nbytes <= array.nbytes * 17 / 16 + LINE


def _indices(array):
    return [np.array(index, np.int64) for index in np.ndindex(array.shape)] if array.ndim else [np.zeros(0, np.int64)]


def test_rows_that_are_short_are_contiguous():
    array = Device().rows((1000, 3), 0, "f8", 1)
    assert array.flags.c_contiguous and array.base is None
