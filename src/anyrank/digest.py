"""The digest of global arrays: 64 bits that depend on values and global indices, not on who holds them.

A digest is Σ mix(global index, bits) mod 2^64 (see `anyrank.kernels.digest`), so that ranks digest what
they own, in any order and any layout, and the sum is the digest of the whole. Equal digests mean equal
bits, up to one chance in 2^64; −0 and +0 differ, and so do NaNs with different bits.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from anyrank.kernel import BODIES, Kernel, native

if TYPE_CHECKING:
    from anyrank.field import Field

_digest = Kernel("digest")
_MODULUS = 1 << 64
#: Elements copied at a time where a kernel needs them in another type or order, on the host and on a GPU; and
#: the most in a row that a kernel takes.
_COPIED, _COPIED_ON_GPU, _WIDEST = 1 << 15, 1 << 24, 1 << 31


def field_digest(field: Field) -> int:
    """The digest of the whole Field, an int in [0, 2^64). Collective."""
    mine = local_digest(field.local, field.layout.shape, field.layout.start)
    return int(field.world.allreduce(np.array([mine], np.uint64))[0])


def local_digest(array: Any, shape: Sequence[int], start: Sequence[int]) -> int:
    """What a block of a global array of `shape` adds to the digest: an int in [0, 2^64).

    `start` is the global index of the block's first element; the block may have any strides, and be on this
    process's GPU, where it stays. Elements are integers, real numbers or bool of up to 8 bytes, whose bits are
    widened by zeros, complex64, which count as one word, or complex128, which count as two float64 along a further
    last axis. Not collective, and safe in a thread. Raises TypeError for elements of another kind.
    """
    array = array if BODIES.device.owns(array) else native(np.asarray(array))
    words = _words(array)
    each = array.itemsize // words.itemsize
    steps = [each * prod(shape[axis + 1 :]) for axis in range(len(shape))]
    origin = sum(first * step for first, step in zip(start, steps, strict=True))
    steps[-1:] = [1]
    joined, (_, steps) = merged(words.shape, words.strides, steps)
    steps = [0] * (2 - len(steps)) + steps
    # A GPU's kernel reads words of any width.
    whole, total = words.itemsize == 8 or not isinstance(words, np.ndarray), 0
    for corner, block in blocks(words.reshape(joined), whole):
        first = origin + sum(index * step for index, step in zip(corner, steps, strict=True))
        total += _digest(block if whole else block.astype(np.uint64), first, steps[-2])
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


def merged(shape: Sequence[int], *walks: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """Join every axis to the next one where that continues it in all walks, which are steps from element to element.

    Returns the shape and the steps of the joined axes.
    """
    last = len(shape) - 1
    kept = [i for i in range(last + 1) if i == last or any(w[i] != shape[i + 1] * w[i + 1] for w in walks)]
    return [prod(shape[i + 1 : j + 1]) for i, j in pairwise([-1, *kept])], [[walk[i] for i in kept] for walk in walks]


def blocks(array: Any, whole: bool) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Cut an array into blocks as kernels take them: two axes, the last contiguous.

    Yields the index of each block's first element (with zeros in front where the array has fewer than two
    axes) and the block: a view, or a copy where the last axis is not contiguous. Blocks are as large as
    can be where `whole`, and small where the caller, or this function, copies them.
    """
    array = array.reshape((1,) * (2 - array.ndim) + array.shape)
    *lead, rows, columns = array.shape
    whole = whole and (array.strides[-1] == array.itemsize or columns == 1)
    copied = _COPIED if isinstance(array, np.ndarray) else _COPIED_ON_GPU
    wide = max(1, min(columns, _WIDEST if whole else copied))
    high = max(1, sys.maxsize if whole else copied // wide)
    for index in np.ndindex(*lead):
        for row in range(0, rows, high):
            for column in range(0, columns, wide):
                block = array[index][row : row + high, column : column + wide]
                yield (*index, row, column), block if whole or block.flags.c_contiguous else block.copy()


def _words(array: Any) -> Any:
    """The elements as unsigned integers of their own size, or two of eight bytes; one axis or more."""
    kind, size = array.dtype.kind, array.itemsize
    if kind not in "biufc" or size > (16 if kind == "c" else 8):
        raise TypeError(f"a digest takes bool, integers, real and complex numbers of 64 bits, not {array.dtype}")
    array = array.reshape(array.shape or (1,))
    if size == 16 and array.strides[-1] != size:
        array = array.copy()
    return array.view(f"u{min(size, 8)}")
