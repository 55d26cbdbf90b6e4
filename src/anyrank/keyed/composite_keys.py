"""Encode keys of several columns as bytes, and decode them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anyrank.keyed.rows import Column, Columns, Text, copy_rows

#: The columns of a key by name: a dtype of fixed size, or None for text.
Kinds = Mapping[str, "np.dtype[Any] | None"]


def encode(kinds: Kinds, keys: Sequence[Column | Sequence[Any]]) -> Text | np.ndarray:
    """Encode keys as bytes: a Text if any key column is text, otherwise the rows of a uint8 matrix.

    The order within a row is: columns of fixed size, the lengths of all texts except the last, the texts.
    """
    columns = [_as_key(kind, column) for kind, column in zip(kinds.values(), keys, strict=True)]
    if len(columns) == 1:
        return columns[0]
    texts = [column for column in columns if isinstance(column, Text)]
    fixed = [column for column in columns if isinstance(column, np.ndarray)]
    fixed += [text.sizes[:, None].view(np.uint8) for text in texts[:-1]]
    head = np.concatenate(fixed, axis=1) if fixed else np.empty((len(columns[0]), 0), np.uint8)
    return _append_texts(head, texts) if texts else head


def _as_key(kind: np.dtype[Any] | None, column: Column | Sequence[Any]) -> Column:
    if kind is None:
        return column if isinstance(column, Text) else Text.of(column)
    array = np.ascontiguousarray(column, kind)
    return array.reshape(len(array), 1).view(np.uint8).reshape(len(array), kind.itemsize)


def decode(kinds: Kinds, encoded: Text) -> Columns:
    """Return the key columns that `encode` encoded."""
    if None not in kinds.values():
        return _decode_fixed({name: kind for name, kind in kinds.items() if kind is not None}, encoded.data)
    texts = [name for name, kind in kinds.items() if kind is None]
    position, columns = encoded.offsets[:-1].copy(), Columns()
    for name, kind in kinds.items():
        if kind is not None:
            columns[name] = _bytes_at(encoded.data, position, kind.itemsize).view(kind).reshape(-1)
            position += kind.itemsize
    sizes = {}
    for name in texts[:-1]:
        sizes[name] = _bytes_at(encoded.data, position, 8).view(np.int64).reshape(-1)
        position += 8
    for name in texts:
        ends = position + sizes[name] if name in sizes else encoded.offsets[1:]
        columns[name] = Text.gathered(encoded.data, position, ends - position) if len(kinds) > 1 else encoded
        position = ends
    return {name: columns[name] for name in kinds}


def _decode_fixed(kinds: Mapping[str, np.dtype[Any]], data: np.ndarray) -> Columns:
    """Return the key columns of rows of equal size that are contiguous in `data`."""
    ends = np.cumsum([kind.itemsize for kind in kinds.values()]).tolist()
    rows = data.reshape(-1, ends[-1])
    parts = zip(kinds.items(), [0, *ends], ends, strict=False)
    return {name: np.ascontiguousarray(rows[:, a:b]).view(kind).reshape(-1) for (name, kind), a, b in parts}


def _append_texts(head: np.ndarray, texts: Sequence[Text]) -> Text:
    """Return the rows of a byte matrix, each followed by its element of every text."""
    n, width = head.shape
    offsets = np.arange(n + 1) * width
    for text in texts:
        offsets += text.offsets
    encoded = Text(np.empty(int(offsets[-1]), np.uint8), offsets)
    position = encoded.offsets[:-1]
    copy_rows(head.reshape(-1), None, None, width, n, encoded.data, position)
    position = position + width
    for text in texts:
        copy_rows(text.data, None, text.sizes, 0, n, encoded.data, position)
        position += text.sizes
    return encoded


def _bytes_at(data: np.ndarray, position: np.ndarray, size: int) -> np.ndarray:
    """Return `size` bytes from each position: a contiguous uint8 matrix."""
    result = np.empty((len(position), size), np.uint8)
    copy_rows(data, position, None, size, len(position), result.reshape(-1), None)
    return result
