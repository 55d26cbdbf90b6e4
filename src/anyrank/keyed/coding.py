"""Keys of several columns as bytes, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anyrank.keyed.rows import Column, Columns, Text

#: The columns of a key: a dtype of fixed size, None for text.
Kinds = Mapping[str, "np.dtype[Any] | None"]


def encode(kinds: Kinds, keys: Sequence[Column | Sequence[Any]]) -> Text | np.ndarray:
    """Keys as bytes: a Text where one of them is text, else the rows of a uint8 matrix.

    Columns of a fixed size come first, then the lengths of all texts but the last, then the texts.
    """
    columns = [_as_key(kind, column) for kind, column in zip(kinds.values(), keys, strict=True)]
    if len(columns) == 1:
        return columns[0]
    texts = [column for column in columns if isinstance(column, Text)]
    fixed = [column for column in columns if isinstance(column, np.ndarray)]
    fixed += [text.sizes[:, None].view(np.uint8) for text in texts[:-1]]
    head = np.concatenate(fixed, axis=1) if fixed else np.empty((len(columns[0]), 0), np.uint8)
    return _joined(head, texts) if texts else head


def _as_key(kind: np.dtype[Any] | None, column: Column | Sequence[Any]) -> Column:
    if kind is None:
        return column if isinstance(column, Text) else Text.of(column)
    array = np.ascontiguousarray(column, kind)
    return array.reshape(len(array), 1).view(np.uint8).reshape(len(array), kind.itemsize)


def decode(kinds: Kinds, coded: Text) -> Columns:
    """The columns of keys that `encode` made."""
    if None not in kinds.values():
        return _decode_fixed({name: kind for name, kind in kinds.items() if kind is not None}, coded.data)
    texts = [name for name, kind in kinds.items() if kind is None]
    at, found = coded.offsets[:-1].copy(), Columns()
    for name, kind in kinds.items():
        if kind is not None:
            found[name] = _bytes_at(coded.data, at, kind.itemsize).view(kind).reshape(-1)
            at += kind.itemsize
    sizes = {}
    for name in texts[:-1]:
        sizes[name] = _bytes_at(coded.data, at, 8).view(np.int64).reshape(-1)
        at += 8
    for name in texts:
        ends = at + sizes[name] if name in sizes else coded.offsets[1:]
        found[name] = Text.gathered(coded.data, at, ends - at) if len(kinds) > 1 else coded
        at = ends
    return {name: found[name] for name in kinds}


def _decode_fixed(kinds: Mapping[str, np.dtype[Any]], data: np.ndarray) -> Columns:
    """The columns of keys of one size that lie one after the other."""
    ends = np.cumsum([kind.itemsize for kind in kinds.values()]).tolist()
    rows = data.reshape(-1, ends[-1])
    parts = zip(kinds.items(), [0, *ends], ends, strict=False)
    return {name: np.ascontiguousarray(rows[:, a:b]).view(kind).reshape(-1) for (name, kind), a, b in parts}


def _joined(head: np.ndarray, texts: Sequence[Text]) -> Text:
    """The rows of a matrix of bytes, each followed by its element of every text."""
    wide = head.shape[1]
    coded = Text.sized(np.empty(0, np.uint8), wide + np.sum([text.sizes for text in texts], axis=0, dtype=np.int64))
    coded.data = np.empty(int(coded.offsets[-1]), np.uint8)
    at = coded.offsets[:-1]
    coded.data[at[:, None] + np.arange(wide)] = head
    at = at + wide
    for text in texts:
        coded.data[np.repeat(at - text.offsets[:-1], text.sizes) + np.arange(len(text.data))] = text.data
        at = at + text.sizes
    return coded


def _bytes_at(data: np.ndarray, at: np.ndarray, size: int) -> np.ndarray:
    """So many bytes from each place on: a uint8 matrix, contiguous."""
    return np.ascontiguousarray(data[at[:, None] + np.arange(size)])
