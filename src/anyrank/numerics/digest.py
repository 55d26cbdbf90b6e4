"""The digest of global arrays: 64 bits that depend on values and global indices, and not on the decomposition.

A digest is Σ mix(global index, bits) mod 2^64 (see `anyrank.kernels.digest`). Each rank digests the elements that it
owns, in any order and any layout, and the sum is the digest of the whole array. Different arrays have equal digests
with a probability of 2^−64. The digests of −0 and +0 differ, as do those of NaNs with different bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anyrank.kernel import BODIES, Kernel, native
from anyrank.numerics.strided import contiguous_strides, merge_axes, offset_of, tiles

_digest = Kernel("digest")
_MODULUS = 1 << 64


def local_digest(array: Any, shape: Sequence[int], start: Sequence[int]) -> int:
    """Return the digest of a block; the sum over all blocks is that of the global array. Not collective; thread-safe.

    Parameters
    ----------
    array : array
        The block, with any strides, on the host or on the GPU of this process, where it is digested. Integers, real
        numbers and bool of up to 8 bytes are extended with zero bits to one word. A complex64 is one word; a complex128
        is two float64 along an additional last axis.
    shape : sequence of int
        The global shape.
    start : sequence of int
        The global index of the first element of the block.

    Returns
    -------
    int
        The sum of mix(global index, bits) over the block, in [0, 2^64).

    Raises
    ------
    TypeError
        If the elements have another dtype.

    """
    array = array if BODIES.device.owns(array) else native(np.asarray(array))
    words = _words(array)
    # The step of the global word index along each axis. Words of one element are adjacent: the last step is 1.
    steps = contiguous_strides(shape, array.itemsize // words.itemsize)
    origin = offset_of(start, steps)
    steps[-1:] = [1]
    merged_shape, (_, steps) = merge_axes(words.shape, words.strides, steps)
    steps = [0] * (2 - len(steps)) + steps  # the kernel takes two axes
    # The kernel of a GPU reads words of any width; those of the host read 8 bytes.
    as_it_is, total = words.itemsize == 8 or not isinstance(words, np.ndarray), 0
    for index, block in tiles(words.reshape(merged_shape), as_it_is):
        first = origin + offset_of(index, steps)
        total += _digest(block if as_it_is else block.astype(np.uint64), first, steps[-2])
    return total % _MODULUS


def digest_of_parts(parts: Mapping[str, tuple[str, tuple[int, ...], int]]) -> int:
    """Return one digest of a whole state, in [0, 2^64), from the dtype, global shape and digest of each of its parts.

    It is the BLAKE2b hash of 8 bytes, as a big-endian number, of one line `name dtype shape digest` per part in the
    order of their names, for instance `T <f8 512x512 00c0ffee00c0ffee`.
    """
    lines = (
        f"{name} {dtype} {'x'.join(map(str, shape))} {hexadecimal(value)}\n"
        for name, (dtype, shape, value) in sorted(parts.items())
    )
    return int.from_bytes(hashlib.blake2b("".join(lines).encode(), digest_size=8).digest(), "big")


def hexadecimal(value: int) -> str:
    """Return a digest as text: 16 hexadecimal digits."""
    return f"{value:016x}"


def _words(array: Any) -> Any:
    """Return the elements as unsigned integers of the same size, or as two of 8 bytes, with at least one axis."""
    kind, size = array.dtype.kind, array.itemsize
    if kind not in "biufc" or size > (16 if kind == "c" else 8):
        raise TypeError(f"a digest takes bool, integers, real and complex numbers of 64 bits, not {array.dtype}")
    array = array.reshape(array.shape or (1,))
    if size == 16 and array.strides[-1] != size:
        array = array.copy()
    return array.view(f"u{min(size, 8)}")
