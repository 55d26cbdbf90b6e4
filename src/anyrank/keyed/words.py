"""Words of texts: what separates them, and one case for all."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache

import numpy as np

from anyrank.kernels.keys import WHITE, WORDS
from anyrank.keyed.keymap import KeyMap
from anyrank.keyed.patterns import word_characters
from anyrank.keyed.rows import Text
from anyrank.keyed.table import Table
from anyrank.keyed.text import Block

#: What may be called words, and the kernel's name for it.
RULES = {"space": WHITE, "unicode": WORDS}


class Words:
    """Counts the words of blocks of text in a Table whose one key is text.

    By the rule `space` words are what white space separates, as Python's `str.split` does; by `unicode` they are runs
    of letters, digits, marks and `_`. With `fold` they are folded as `str.casefold` does.
    """

    def __init__(self, table: Table, rule: str = "space", fold: bool = False):
        self.table, self.rule, self.fold = table, RULES[rule], fold
        self._points = word_characters() if self.rule == WORDS else _white_space()
        self._others = KeyMap()

    def read(self, blocks: Iterable[Block]) -> int:
        """Count the words of blocks, none of which ends within a word; how many there were. Not collective."""
        before = self.table.words_seen
        for block in blocks:
            self.table.add_words(
                block.buffer, block.start, block.stop, self.rule, self.fold, self._points, self._others
            )
        return self.table.words_seen - before + self._fold_others()

    def _fold_others(self) -> int:
        """Words beyond ASCII are counted as they stand, and folded when each is known once."""
        others, self._others = self._others, KeyMap()
        if len(others):
            _, places = others.entries()
            words = others.keys_at(places).tolist()
            folded = [word.decode(errors="surrogateescape").casefold() for word in words]
            keys = Text.of(word.encode(errors="surrogateescape") for word in folded)
            self.table.add(keys, count=others.weights_at(places))
        return others.words_seen


@cache
def _white_space() -> np.ndarray:
    """A bit per character of Unicode, the lowest first: whether it is white space. uint8."""
    white = np.fromiter(map(str.isspace, map(chr, range(sys.maxunicode + 1))), bool, sys.maxunicode + 1)
    return np.packbits(white, bitorder="little")
