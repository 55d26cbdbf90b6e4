"""The digest of global arrays: 64 bits that depend on values and global indices, not on who holds them.

A digest is Σ mix(global index, bits) mod 2^64 (see `anyrank.kernels.digest`), so that ranks digest what
they own, in any order and any layout, and the sum is the digest of the whole. Equal digests mean equal
bits, up to one chance in 2^64; −0 and +0 differ, and so do NaNs with different bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anyrank.kernel import BODIES, Kernel, native
from anyrank.numerics.strided import blocks, contiguous_strides, merged, offset_of

_digest = Kernel("digest")
_MODULUS = 1 << 64


def local_digest(array: Any, shape: Sequence[int], start: Sequence[int]) -> int:
    """What a block of a global array of `shape` adds to the digest: an int in [0, 2^64).

    `start` is the global index of the block's first element; the block may have any strides, and be on this
    process's GPU, where it stays. Elements are integers, real numbers or bool of up to 8 bytes, whose bits are
    widened by zeros, complex64, which count as one word, or complex128, which count as two float64 along a further
    last axis. Not collective, and safe in a thread. Raises TypeError for elements of another kind.
    """
    array = array if BODIES.device.owns(array) else native(np.asarray(array))
    words = _words(array)
    steps = contiguous_strides(shape, array.itemsize // words.itemsize)
    origin = offset_of(start, steps)
    steps[-1:] = [1]
    joined, (_, steps) = merged(words.shape, words.strides, steps)
    steps = [0] * (2 - len(steps)) + steps
    # A GPU's kernel reads words of any width.
    whole, total = words.itemsize == 8 or not isinstance(words, np.ndarray), 0
    for corner, block in blocks(words.reshape(joined), whole):
        first = origin + offset_of(corner, steps)
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


def _words(array: Any) -> Any:
    """The elements as unsigned integers of their own size, or two of eight bytes; one axis or more."""
    kind, size = array.dtype.kind, array.itemsize
    if kind not in "biufc" or size > (16 if kind == "c" else 8):
        raise TypeError(f"a digest takes bool, integers, real and complex numbers of 64 bits, not {array.dtype}")
    array = array.reshape(array.shape or (1,))
    if size == 16 and array.strides[-1] != size:
        array = array.copy()
    return array.view(f"u{min(size, 8)}")
