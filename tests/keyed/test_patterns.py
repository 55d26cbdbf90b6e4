"""Patterns: which are refused, which characters are letters, and which are equal if case is ignored."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from anyrank.errors import UsageError
from anyrank.keyed import patterns as module
from anyrank.keyed.patterns import Patterns, word_characters


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ([], "there is no pattern. Name at least one."),
        (["a", ""], "pattern 2 of 2 is empty. Remove it."),
        (["a\nb"], r"pattern 'a\nb' has a line end; a match must lie in one line. Count its parts."),
        (["a", "b", "a"], "pattern 'a' is given twice, first as 'a'. Name each pattern once."),
        (["\udcff"], r"pattern '\udcff' is not valid Unicode. Write it in UTF-8."),
    ],
)
def test_patterns_that_cannot_be_counted_are_refused(patterns, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        Patterns(patterns)


def test_patterns_equal_but_for_case_are_refused():
    Patterns(["Évora", "ÉVORA"])
    with pytest.raises(UsageError, match="pattern 'ÉVORA' is given twice, first as 'Évora'"):
        Patterns(["Évora", "ÉVORA"], ignore_case=True)


def test_patterns_with_too_many_states_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MOST_STATES", 100)
    Patterns(["a" * 99])
    with pytest.raises(UsageError, match="take more than 100 states"):
        Patterns(["a" * 50, "b" * 50])


def test_word_characters_are_letters_digits_marks_underscores():
    bits = np.unpackbits(word_characters(), bitorder="little")
    assert len(bits) == sys.maxunicode + 1
    for character in "aZ0_éßДж中アา\u0301٣Ⅷ":
        assert bits[ord(character)], character
    for character in " -.\n\0’€\u2028²":
        assert not bits[ord(character)], character


def test_same_upper_has_all_lower_case_letters():
    same = module._same_upper()
    assert [sorted(same[c]) for c in "SKIÉΣ"] == [[*"Ssſ"], [*"Kk"], [*"Iiı"], [*"Éé"], [*"Σςσ"]]
    assert "ß" not in same and "SS" not in same
