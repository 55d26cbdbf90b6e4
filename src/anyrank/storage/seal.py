"""The seal: the last line of a checkpoint, which shows that the file is complete and its metadata undamaged.

HDF5 does not detect a missing part of a file or a flipped bit in its own metadata, and may crash on them. The seal is
therefore written last, as one line of text after the end of the HDF5 data, where HDF5 does not read:

    EXTENTS anyrank-seal LENGTH HASH

EXTENTS is the JSON list of [offset, bytes] of the values, LENGTH the number of bytes of EXTENTS in eight digits,
HASH the BLAKE2b-256 of all bytes of the file before HASH except the values, whose digests are stored.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from anyrank.errors import CheckpointError

_HASH_LENGTH = 64
_TAIL = len(" anyrank-seal 00000000 ")
_END = _TAIL + _HASH_LENGTH + 1
Extent = tuple[int, int]


def seal(path: Path, extents: Sequence[Extent]) -> None:
    """Append the seal to a file whose values are at `extents`, each an offset and a number of bytes."""
    text = json.dumps(sorted(extents))
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(f"{text} anyrank-seal {len(text):08d} ".encode())
        text_hash = _hash(file, extents, file.tell())
        file.seek(0, os.SEEK_END)
        file.write(f"{text_hash}\n".encode())


def check_seal(path: Path) -> None:
    """Raise CheckpointError unless the file ends in a valid seal."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _END, 0))
        end = file.read().decode(errors="replace")
        words = end.split()
        known = len(words) == 3 and words[0] == "anyrank-seal" and words[1].isdecimal() and words[1].isascii()
        if len(end) != _END or not known or end[-1] != "\n":
            raise CheckpointError(f"it does not end in a seal: it was cut short at {size} bytes, or damaged")
        try:
            file.seek(size - _END - int(words[1]))
            extents = [(int(a), int(n)) for a, n in json.loads(file.read(int(words[1])))]
            good = _hash(file, extents, size - _HASH_LENGTH - 1) == words[2]
        except (ValueError, TypeError, OSError, OverflowError, RecursionError):
            good = False
    if not good:
        raise CheckpointError("its description is damaged: the hash in its seal does not hold")


def _hash(file: BinaryIO, extents: Sequence[Extent], end: int) -> str:
    """Return the hash of the bytes from 0 to `end` without the extents."""
    hasher = hashlib.blake2b(digest_size=_HASH_LENGTH // 2)
    position = 0
    for offset, size in [*sorted(extents), (end, 0)]:
        if not position <= offset <= end:
            raise ValueError(f"extent {offset} is not between {position} and {end}")
        file.seek(position)
        while position < offset:
            part = file.read(min(offset - position, 1 << 20))
            hasher.update(part)
            position += len(part) or offset  # at the end of a file that is too short, end the loop
        position = offset + size
    return hasher.hexdigest()
