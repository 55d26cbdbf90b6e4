"""Patterns in text: every body counts like a plain search, for any blocks, and detects invalid UTF-8."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyrank.device import open_device
from anyrank.kernel import Kernel
from anyrank.kernels.patterns import OPERATIONS, example
from anyrank.keyed.patterns import Patterns

MARGIN = 64
BODIES = ["reference", "cython"]


def body(operation, name):
    return Kernel("patterns", operation).load(name, open_device(name))


def pad(text):
    return np.frombuffer(bytes(MARGIN) + text + bytes(MARGIN), np.uint8)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("size", [0, 1, 100, 20_000])
def test_patterns_bodies_give_the_references_bits(operation, size):
    result = []
    for name in BODIES:
        arguments, amount, unit = example(operation, size)
        result.append((body(operation, name)(*arguments), *map(np.array, arguments)))
        assert (amount, unit) == (size, "bytes")
    assert all(np.array_equal(a, b) for a, b in zip(*result, strict=True))


def count_replacements(data):
    """The number of U+FFFD that decoding adds for invalid bytes."""
    return data.decode(errors="replace").count("\ufffd") - data.decode(errors="ignore").count("\ufffd")


def count_matches(text, pattern):
    return text.count(pattern)  # bytes.count: no overlaps, from left to right


def run(name, patterns, text, cuts):
    """The final state, the counts and the lines, from blocks that end at the cuts."""
    automaton, counts = patterns._automaton, np.zeros(len(patterns.counts), np.int64)
    state, lines, places = np.zeros(len(counts) + 1, np.int64), 0, [0, *sorted(cuts), len(text)]
    for a, b in pairwise(places):
        lines += body("count", name)(pad(text), MARGIN + a, MARGIN + b, *automaton, state, counts)
    return state.tolist(), counts.tolist(), lines


ALPHABET = st.sampled_from("aab\n É_é")
PATTERNS = st.lists(st.text(st.sampled_from("aab _É"), min_size=1, max_size=5), min_size=1, max_size=12, unique=True)
TEXTS = st.one_of(st.text(ALPHABET, max_size=200).map(str.encode), st.binary(max_size=100))


@given(PATTERNS, TEXTS, st.lists(st.floats(0, 1), max_size=4))
def test_patterns_substrings_are_those_of_plain_search(names, text, cuts):
    cuts = [int(cut * len(text)) for cut in cuts]
    patterns = Patterns(names)
    expected = [count_matches(text, name.encode()) for name in names], text.count(b"\n")
    actual = [run(name, patterns, text, where) for name in BODIES for where in ([], cuts)]
    assert [result[1:] for result in actual] == [expected] * 4
    assert actual[0] == actual[2] and actual[1] == actual[3]


def find_matches(name, text, words):
    """By Python's regular expressions, for which marks are no letters, and ſ, K and ı are other letters."""
    around = (r"(?<!\w)", r"(?!\w)") if words else ("", "")
    return re.findall(re.escape(name).join(around), text, re.IGNORECASE)


@given(PATTERNS, TEXTS, st.lists(st.floats(0, 1), max_size=4), st.booleans())
def test_patterns_bodies_find_the_same_words_and_cases(names, text, cuts, words):
    cuts = [int(cut * len(text)) for cut in cuts]
    patterns = Patterns(names, words=words, ignore_case=True)
    actual = [run(name, patterns, text, where) for name in BODIES for where in ([], cuts)]
    assert len({str(result[1:]) for result in actual}) == 1
    if count_replacements(text) == 0:
        assert actual[0][1] == [len(find_matches(name, text.decode(), words)) for name in names]
    assert actual[0] == actual[2] and actual[1] == actual[3]


@pytest.mark.parametrize("count", [1, 30, 3000])
def test_patterns_few_or_many_in_a_long_text(count):
    random = np.random.default_rng(count)
    text = random.choice(np.frombuffer(b"abcdefghijklmnopqrstuvwxyz  \n", np.uint8), 200_000).tobytes()
    names = sorted({"".join(random.choice([*"abcdefgh"], random.integers(2, 5))) for _ in range(count)})
    patterns = Patterns(names)
    *_, counts, lines = run("cython", patterns, text, [1, 77_777, 77_778])
    assert (counts, lines) == ([count_matches(text, name.encode()) for name in names], text.count(b"\n"))


HOSTILE = st.lists(
    st.sampled_from([b"a", "é".encode(), "€".encode(), "𝄞".encode(), b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9d\x84"])
    | st.sampled_from([b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe0\x80", b"\x80", b"\xef\xbf\xbd"])
    | st.binary(max_size=4)
    | st.just(b"plain text " * 12),
    max_size=30,
).map(b"".join)


@pytest.mark.parametrize("name", BODIES)
@given(HOSTILE, st.lists(st.floats(0, 1), max_size=4))
def test_patterns_broken_utf8_is_counted_once_for_any_cuts(name, text, cuts):
    places = [0, *sorted(int(cut * len(text)) for cut in cuts), len(text)]
    broken = [body("broken", name)(pad(text), MARGIN + a, MARGIN + b) for a, b in pairwise(places)]
    assert sum(broken) == count_replacements(text)


def test_patterns_without_margins_are_refused():
    for start, stop in [(3, 10), (10, 9), (10, 20 - 3)]:
        with pytest.raises(ValueError, match="lack the 4 around them"):
            body("broken", "cython")(np.zeros(20, np.uint8), start, stop)
