"""Count the words of text: rules for separators, and case folding."""

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

#: The rules that define a word, and their constants in the kernel.
RULES = {"space": WHITE, "unicode": WORDS}


class Words:
    """Count the words of blocks of text in a Table.

    Parameters
    ----------
    table : Table
        A Table with one key, of text.
    rule : str
        `space`: words are separated by white space, as by `str.split`; `unicode`: words are sequences of letters,
        digits, marks and `_`.
    fold : bool
        Whether the case of words is folded, as by `str.casefold`.

    Examples
    --------
    >>> _ = Path("text.txt").write_text("to be or not to be")
    >>> files = keyed.TextFiles("text.txt", World())
    >>> table = Table("words", files.world, {"word": "text"})
    >>> keyed.Words(table).read(files.blocks(0, files.size)), table.rows
    (6, 4)
    """

    def __init__(self, table: Table, rule: str = "space", fold: bool = False):
        self.table, self.rule, self.fold = table, RULES[rule], fold
        self._characters = word_characters() if self.rule == WORDS else _white_space()
        #: The words that are not ASCII, unfolded; only with `fold`.
        self._beyond_ascii = KeyMap()

    def read(self, blocks: Iterable[Block]) -> int:
        """Count the words of blocks and return their number. Not collective.

        Parameters
        ----------
        blocks : iterable of Block
            Blocks that do not end within a word, as `TextFiles.blocks` yields them.

        Returns
        -------
        int
            The number of words, with repetitions.
        """
        before = self.table.words_seen
        for block in blocks:
            self.table.add_words(
                block.buffer, block.start, block.stop, self.rule, self.fold, self._characters, self._beyond_ascii
            )
        return self.table.words_seen - before + self._fold_beyond_ascii()

    def _fold_beyond_ascii(self) -> int:
        """Fold the words that are not ASCII: they are counted unfolded first, so that each is folded only once."""
        unfolded, self._beyond_ascii = self._beyond_ascii, KeyMap()
        if len(unfolded):
            _, slots = unfolded.entries()
            words = unfolded.keys_at(slots).tolist()
            folded = [word.decode(errors="surrogateescape").casefold() for word in words]
            keys = Text.of(word.encode(errors="surrogateescape") for word in folded)
            self.table.add(keys, count=unfolded.weights_at(slots))
        return unfolded.words_seen


@cache
def _white_space() -> np.ndarray:
    """Return a bitmap (uint8, lowest bit first) of the Unicode characters that are white space."""
    white = np.fromiter(map(str.isspace, map(chr, range(sys.maxunicode + 1))), bool, sys.maxunicode + 1)
    return np.packbits(white, bitorder="little")
