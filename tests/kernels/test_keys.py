"""Keys: every body makes the same table, with the counts of a Counter, however often the table grows."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import anyrank.kernels.keys as definition
from anyrank.device import open_device
from anyrank.kernel import Kernel
from anyrank.kernels.keys import ENTRIES, INLINE, SEEN, WHITE, WORDS, empty, example
from anyrank.kernels.keys.reference import hash_of
from anyrank.keyed.keymap import KeyMap, Partition
from anyrank.keyed.patterns import word_characters
from anyrank.keyed.rows import Text
from anyrank.keyed.words import _white_space

POINTS = {WHITE: _white_space(), WORDS: word_characters()}
PATTERNS = {WHITE: None, WORDS: re.compile(r"[\w\u0300-\u036f]+")}
#: Texts that are hard to split into words: white space beyond ASCII, marks, broken UTF-8, zero bytes.
BITS = [
    *(b"a", b"Zz", b"0_9", b" ", b"\n", b"\r\n", b"\x1c", b"\x85", b"\0", b"don't", b"x" * 15, b"Y" * 16, b"Z" * 17),
    *("é".encode(), "É".encode(), "\xa0".encode(), "\u2003".encode(), "\u3000".encode(), "\u0301".encode()),
    *(b"\xe2\x80", b"\xe2", b"\xff", b"\xc2", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", "ß".encode(), "𝔸".encode()),
]


def load(body, operation):
    return Kernel("keys", operation).load(body, open_device(body))


def deep_copy(value):
    if isinstance(value, tuple):
        return tuple(map(deep_copy, value))
    return value.copy() if isinstance(value, np.ndarray) else value


def arrays(value):
    if isinstance(value, tuple):
        return [array for item in value for array in arrays(item)]
    return [value] if isinstance(value, np.ndarray) else []


@pytest.mark.parametrize("operation", definition.OPERATIONS)
@pytest.mark.parametrize("size", [0, 1, 1000])
def test_keys_bodies_make_the_same_table(operation, size):
    arguments = example(operation, size)[0]
    result = []
    for body in ("reference", "cython"):
        copies = deep_copy(arguments)
        result.append((load(body, operation)(*copies), arrays(copies)))
    assert result[0][0] == result[1][0]
    assert all(np.array_equal(a, b) for a, b in zip(result[0][1], result[1][1], strict=True))


def counts_of(table, folded=False):
    keys = KeyMap()
    keys.slots, keys.pool, keys.state = table
    _, slots = keys.entries()
    return dict(zip(keys.keys_at(slots).tolist(), keys.weights_at(slots).tolist(), strict=True))


def pad(text):
    return np.frombuffer(bytes(64) + text + b"x y" * 30, np.uint8)


@given(st.lists(st.sampled_from(BITS), max_size=60).map(b"".join), st.sampled_from([WHITE, WORDS]))
@pytest.mark.parametrize("body", ["reference", "cython"])
def test_keys_words_are_those_of_python(body, text, rule):
    table, others = empty(400, 4000), empty(2)
    assert load(body, "words")(pad(text), 64, 64 + len(text), rule, False, POINTS[rule], table, others) == 64 + len(
        text
    )
    whole = text.decode(errors="surrogateescape")
    words = whole.split() if rule == WHITE else PATTERNS[rule].findall(whole)
    assert counts_of(table) == Counter(word.encode(errors="surrogateescape") for word in words)
    assert table[2][SEEN] == len(words)


@given(st.lists(st.sampled_from(BITS), max_size=60).map(b"".join), st.sampled_from([WHITE, WORDS]))
def test_keys_folding_lowers_ascii_and_separates_other_words(text, rule):
    result = []
    for body in ("reference", "cython"):
        table, others = empty(400, 4000), empty(400, 4000)
        load(body, "words")(pad(text), 64, 64 + len(text), rule, True, POINTS[rule], table, others)
        result.append((counts_of(table), counts_of(others)))
    assert result[0] == result[1]
    assert all(word.isascii() and word == word.lower() for word in result[0][0])
    assert not any(word.isascii() for word in result[0][1])


def test_keys_full_table_returns_the_position():
    text = b"one two three four five six seven"
    for body in ("reference", "cython"):
        table = empty(4)  # at most three keys
        stop = load(body, "words")(pad(text), 64, 64 + len(text), WHITE, False, POINTS[WHITE], table, empty(2))
        assert pad(text)[stop : stop + 4].tobytes() == b"four" and table[2][ENTRIES] == 3
        long = Text.of([b"s" * INLINE, b"l" * 17, b"m" * 17])
        table = empty(8, 20)
        assert load(body, "add")(long.data, long.offsets, 0, None, None, *table, 0) == 2


@pytest.mark.parametrize(
    ("first", "spread"), [(-3000, 6000), (2**63 - 9000, 8000), (-(2**63), 100), (0, 8192), (0, 8193)]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_keys_in_a_small_range_are_counted_as_others(first, spread, weighted):
    random = np.random.default_rng(spread)
    numbers = first + random.integers(0, spread, 20_000)
    data, weights = numbers.view(np.uint8), random.integers(-9, 9, 20_000) if weighted else None
    results = []
    for step in (20_000, 1_000):  # fewer rows take another loop
        keys, gids = KeyMap(), np.zeros(20_000, np.uint32)
        for begin in range(0, 20_000, step):
            rows = slice(begin, begin + step)
            part = None if weights is None else weights[rows]
            keys.add(data.reshape(-1, 8)[rows], part, gids[rows])
        results.append((gids.tolist(), keys.slots.tobytes(), len(keys)))
    assert results[0] == results[1] and results[0][2] == len({*numbers.tolist()})


@pytest.mark.parametrize("dtype", ["int64", "float64", "uint8", "int64 pairs", "bytes of 8"])
@pytest.mark.parametrize("parts", [1, 7, 300, 20_000])
@pytest.mark.parametrize("n", [0, 1, 9, 5000])
def test_partition_moves_rows_stably_by_hash(dtype, parts, n):
    random = np.random.default_rng(n)
    keys = Text.of(b"%d" % (k * k * k) for k in random.integers(0, 500, n).tolist())
    column = random.integers(0, 200, (n, 2))
    if dtype != "int64 pairs":
        column = column[:, 0].astype(dtype) if dtype != "bytes of 8" else column[:, :1].copy().view(np.uint8)
    partition = Partition(keys, parts)
    part = np.array([hash_of(key) * parts >> 64 for key in keys.tolist()], np.int64)
    assert partition.starts.tolist() == np.searchsorted(np.sort(part), np.arange(parts + 1)).tolist()
    expected = column[np.argsort(part, kind="stable")]
    moved = partition.move(column)
    assert moved.tobytes() == expected.tobytes() and (moved.dtype, moved.shape) == (expected.dtype, expected.shape)


def test_keys_bad_arguments_are_refused():
    body = load("cython", "words")
    with pytest.raises(ValueError, match="64 bytes after it"):
        body(np.zeros(64, np.uint8), 0, 1, WHITE, False, POINTS[WHITE], empty(8), empty(8))
    with pytest.raises(ValueError, match="a table of 1 x 4"):
        load("cython", "rehash")(np.zeros((1, 4), np.uint64), *empty(1))
    numbers, starts = np.array([0, 2, 1, 2], np.uint32), np.array([0, 1, 2, 4])
    column, move = np.zeros(4, np.uint64), load("cython", "move")
    for wrong in ([0, 2, 2, 4], [0, 1, 3, 4], [0, 4, 2, 4], [-1, 1, 2, 4], [0, 1, 2, 3], [0, 1, 4]):
        with pytest.raises(ValueError, match="numbers of"):
            move(numbers, np.array(wrong), column, column.copy())
    with pytest.raises(ValueError, match="cannot move 3 rows"):
        move(numbers, starts, column[:3], column.copy())
    source, ones = np.arange(9, dtype=np.uint8), np.ones(3, np.int64)
    for wrong in (
        [[0, 9, 1], [1, 1, 1], None],
        [None, [3, 6, 1], None],
        [[-1, 0, 0], None, None],
        [None, [1, 1, -1], None],
        [None, None, [0, 5, 9]],
        [[2**63 - 1, 0, 0], None, None],
    ):
        given = [None if x is None else np.array(x) for x in wrong]
        for name in ("cython", "reference"):
            with pytest.raises(IndexError, match=r"row \d is not within 9 bytes"):
                load(name, "copy")(source, *given[:2], 1, 3, source.copy(), given[2])
    with pytest.raises(ValueError, match="3 positions or sizes of 2 rows"):
        load("cython", "copy")(source, ones, None, 1, 2, source.copy(), None)
    with pytest.raises(ValueError, match="0 parts of 1 keys"):
        load("cython", "parts")(np.zeros(3, np.uint8), np.array([0, 3]), 0, 0, numbers, starts)
    with pytest.raises(ValueError, match="0 elements cannot take 1 entries"):
        table = empty(8)
        load("cython", "add")(np.zeros(3, np.uint8), np.array([0, 3]), 0, None, None, *table, 0)
        load("cython", "entries")(*table, np.zeros(0, np.uint64), np.zeros(0, np.int64))


@pytest.mark.parametrize("spread", [1, 3])
def test_key_map_grows_and_keeps_numbers_and_weights(spread):
    words = [b"%x" % (n * n) + b"-" * (n % 40) for n in range(5000)]
    draws = np.random.default_rng(1).integers(0, 5000, 20000)
    weights = np.random.default_rng(2).integers(-5, 100, 20000)
    keys = KeyMap(spread)
    gids = keys.add(Text.of(words)[draws], weights, np.empty(20000, np.uint32))
    hashes, slots = keys.entries()
    result = keys.keys_at(slots).tolist()
    expected: Counter = Counter()
    for draw, weight in zip(draws.tolist(), weights.tolist(), strict=True):
        expected[words[draw]] += weight
    assert dict(zip(result, keys.weights_at(slots).tolist(), strict=True)) == dict(expected)
    numbers = dict(zip(result, keys.gids_at(slots).tolist(), strict=True))
    assert [numbers[words[draw]] for draw in draws] == gids.tolist()
    assert sorted(numbers.values()) == [*range(len(result))]
    assert hashes.tolist() == [hash_of(key) for key in result]
    assert [h * spread % 2**64 for h in hashes.tolist()] == sorted(h * spread % 2**64 for h in hashes.tolist())


def test_key_map_fixed_keys_equal_text_of_that_size():
    numbers = np.random.default_rng(3).integers(-100, 100, 3000)
    fixed, other = KeyMap(), KeyMap()
    fixed.add(numbers[:, None].view(np.uint8))
    other.add(Text.of(n.tobytes() for n in numbers))
    assert fixed.slots.tobytes() == other.slots.tobytes() and len(fixed) == len({*numbers.tolist()})


def test_key_map_grows_for_a_long_word_and_many_new_words():
    text = b"w" * 100_000 + b" " + b" ".join(b"%d" % n for n in range(20_000))
    keys, others = KeyMap(), KeyMap()
    keys.words(pad(text), 64, 64 + len(text), WHITE, False, POINTS[WHITE], others)
    assert (len(keys), keys.words_seen, len(others)) == (20_001, 20_001, 0)
