"""Columns of bytes of any length."""

import numpy as np
import pytest

from anyrank.keyed.rows import Text, concat, count, take

WORDS = [b"a", b"", b"anyrank", "é".encode(), b"\xff", b"x" * 100]


@pytest.mark.parametrize("rows", [slice(None), slice(1, 4), slice(4, 1), slice(None, None, -1), [5, 0, 0, 2], []])
def test_text_rows_are_indexed_as_in_a_list(rows):
    numbers = np.arange(len(WORDS))[rows]
    assert Text.of(WORDS)[np.array(rows, int) if isinstance(rows, list) else rows].tolist() == [
        WORDS[i] for i in numbers
    ]


def test_text_masks_concat_and_broken_utf8():
    words = Text.of(WORDS)
    assert words[words.sizes == 1].tolist() == [b"a", b"\xff"]
    assert concat([words, words[2:3], Text.of([])]).tolist() == [*WORDS, b"anyrank"]
    assert words.strings() == ["a", "", "anyrank", "é", "\\xff", "x" * 100]
    assert Text.of(["é"]).tolist() == ["é".encode()]


def test_take_indexes_all_columns():
    columns = {"word": Text.of(WORDS), "n": np.arange(6)}
    rows = take(columns, np.array([2, 0]))
    assert (rows["word"].tolist(), rows["n"].tolist(), count(rows)) == ([b"anyrank", b"a"], [2, 0], 2)
    assert count({}) == 0 and concat([np.arange(2), np.arange(1)]).tolist() == [0, 1, 0]
