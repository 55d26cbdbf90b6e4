"""The digest of global arrays: 64 bits that depend on values and global indices, not on who holds them.

A digest is Σ mix(global index, bits) mod 2^64 (see `anyrank.kernels.digest`), so that ranks digest what
they own, in any order and any layout, and the sum is the digest of the whole. Equal digests mean equal
bits, up to one chance in 2^64; −0 and +0 differ, and so do NaNs with different bits.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from anyrank.kernel import Kernel

if TYPE_CHECKING:
    from anyrank.field import Field

_digest = Kernel("digest")
_MODULUS = 1 << 64
#: Elements copied at a time where a kernel needs them in another type or order.
_COPIED = 1 << 15


def field_digest(field: Field) -> int:
    """The digest of the whole Field, an int in [0, 2^64). Collective."""
    local = field.device.to_host(field.local)
    mine = local_digest(local, field.layout.shape, field.layout.start)
    return int(field.world.allreduce(np.array([mine], np.uint64))[0])


def local_digest(array: np.ndarray, shape: Sequence[int], start: Sequence[int]) -> int:
    """What a block of a global array of `shape` adds to the digest: an int in [0, 2^64).

    `start` is the global index of the block's first element; the block may have any strides. Elements
    are integers, real numbers or bool of up to 8 bytes, whose bits are widened by zeros, complex64, which
    count as one word, or complex128, which count as two float64 along a further last axis.
    Not collective, and safe in a thread. Raises TypeError for elements of another kind.
    """
    words = _words(np.asarray(array))
    extent = (*shape, 2)[: words.ndim]
    steps = [prod(extent[axis + 1 :]) for axis in range(words.ndim)]
    origin = sum(first * step for first, step in zip(start, steps, strict=False))
    if words.flags.c_contiguous and words.shape[1:] == extent[1:]:
        words, steps = words.reshape(-1), [1]
    steps = [0] * (2 - words.ndim) + steps
    total = 0
    for corner, block in blocks(words, whole=words.itemsize == 8):
        first = origin + sum(index * step for index, step in zip(corner, steps, strict=True))
        total += _digest(block.astype(np.uint64, copy=False), first, steps[-2])
    return total % _MODULUS


def combine(members: Mapping[str, tuple[str, tuple[int, ...], int]]) -> int:
    """One digest for a whole state from the dtype, global shape and digest of each member: an int in [0, 2^64).

    It is BLAKE2b with 8 bytes, read as a big-endian number, of one line `name dtype shape digest` per
    member in the order of their names, for instance `T <f8 512x512 00c0ffee00c0ffee`.
    """
    lines = (
        f"{name} {dtype} {'x'.join(map(str, shape))} {hexadecimal(value)}\n"
        for name, (dtype, shape, value) in sorted(members.items())
    )
    return int.from_bytes(hashlib.blake2b("".join(lines).encode(), digest_size=8).digest(), "big")


def hexadecimal(value: int) -> str:
    """A digest as it is written: 16 hexadecimal digits."""
    return f"{value:016x}"


def blocks(array: np.ndarray, whole: bool) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Cut an array into blocks as kernels take them: two axes, the last contiguous.

    Yields the index of each block's first element (with zeros in front where the array has fewer than two
    axes) and the block: a view, or a copy where the last axis is not contiguous. Blocks are as large as
    can be where `whole`, and small where the caller, or this function, copies them.
    """
    array = np.atleast_2d(array)
    *lead, rows, columns = array.shape
    whole = whole and (array.strides[-1] == array.itemsize or columns == 1)
    wide = max(1, columns if whole else min(columns, _COPIED))
    high = max(1, sys.maxsize if whole else _COPIED // wide)
    for index in np.ndindex(*lead):
        for row in range(0, rows, high):
            for column in range(0, columns, wide):
                block = array[index][row : row + high, column : column + wide]
                yield (*index, row, column), block if whole else np.ascontiguousarray(block)


def _words(array: np.ndarray) -> np.ndarray:
    """The elements as unsigned integers of their own size, or two of eight bytes."""
    kind, size = array.dtype.kind, array.itemsize
    if kind not in "biufc" or size > (16 if kind == "c" else 8):
        raise TypeError(f"a digest takes bool, integers, real and complex numbers of 64 bits, not {array.dtype}")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if size == 16:
        return np.ascontiguousarray(array).reshape(*array.shape, 1).view(np.uint64)
    return array.view(f"u{size}")
