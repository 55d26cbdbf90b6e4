"""Count patterns in text with an automaton that finds all patterns in one pass (Aho and Corasick 1975)."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np

from anyrank.errors import UsageError
from anyrank.kernel import Kernel
from anyrank.kernels.patterns import OUT
from anyrank.keyed.text import Block

COUNT = Kernel("patterns", "count")
BROKEN = Kernel("patterns", "broken")
#: Maximum number of states of the automaton; a state takes up to 1 KB.
MOST_STATES = 1 << 18
_NEAR = 3  # the prefilter `near` tests this number of leading bytes of a pattern
_BUCKETS = 8

#: The UTF-8 codes of each letter: one for each case that counts as the same letter.
Codes: TypeAlias = Mapping[str, Sequence[bytes]]


class Patterns:
    """Count patterns in text: each count is equal to `grep -o PATTERN | wc -l` for that pattern alone.

    Parameters
    ----------
    patterns : sequence of str
        The patterns: fixed text, not regular expressions.
    words : bool
        Count whole words only, as `grep -ow`: no Unicode letter, digit or mark, or `_`, before or after the pattern.
    ignore_case : bool
        Ignore case, as `grep -oi`: characters with the same upper case are equal.

    Attributes
    ----------
    counts : int64 array
        The number of occurrences of each pattern in the blocks read so far.
    lines, broken : int
        The number of lines, and of byte sequences that are not valid UTF-8, in the blocks read so far.
    behind, ahead : int
        The bytes of context that blocks must have, see `TextFiles.blocks`.

    Raises
    ------
    UsageError
        If there is no pattern, if a pattern is empty, has a line end or is given twice, or if they are too long.

    Examples
    --------
    >>> _ = Path("text.txt").write_text("to be or not to be")
    >>> files, patterns = keyed.TextFiles("text.txt", World()), keyed.Patterns(["be", "or"])
    >>> for block in files.blocks(0, files.size, behind=patterns.behind, ahead=patterns.ahead):
    ...     patterns.read(block)
    >>> patterns.counts
    array([2, 1])
    """

    def __init__(self, patterns: Sequence[str], *, words: bool = False, ignore_case: bool = False):
        letters = [[_upper(c) for c in pattern] if ignore_case else [*pattern] for pattern in patterns]
        _check(patterns, letters)
        same = _same_upper() if ignore_case else {}
        codes = {c: [s.encode() for s in same.get(c, c)] for pattern in letters for c in pattern}
        lengths = np.array([_length(pattern, codes) for pattern in letters], np.int32)
        marks = word_characters() if words else np.zeros(0, np.uint8)
        self._automaton = *_automaton(letters, codes), lengths, marks, _near(letters, codes)
        self.ahead = 4
        self.behind = 4 + max(sum(max(map(len, codes[c])) for c in pattern) for pattern in letters)
        self.counts = np.zeros(len(letters), np.int64)
        self._state = np.zeros(len(letters) + 1, np.int64)
        self.clear()

    def clear(self) -> None:
        """Reset all counts to zero. Not collective."""
        self.counts[:] = self.lines = self.broken = 0
        self._next: tuple[Path, int] | None = None

    def read(self, block: Block) -> None:
        """Count patterns in a block. Not collective.

        Parameters
        ----------
        block : Block
            It must start at a line start or continue the previous block.
        """
        text, start, stop = block.buffer, block.start, block.stop
        if self._next != (block.path, block.offset):
            self._state[:] = 0
        self._next = block.path, block.offset + stop - start
        self.lines += COUNT(text, start, stop, *self._automaton, self._state, self.counts)
        self.lines += int(self._next[1] == block.size and text[stop - 1] != ord("\n"))  # the last line has no line end
        self.broken += BROKEN(text, start, stop)


def _check(patterns: Sequence[str], letters: Sequence[Sequence[str]]) -> None:
    if not patterns:
        raise UsageError("there is no pattern. Name at least one.")
    known: dict[tuple[str, ...], str] = {}
    for pattern, key in zip(patterns, map(tuple, letters), strict=True):
        if not pattern:
            raise UsageError(f"pattern {len(known) + 1} of {len(patterns)} is empty. Remove it.")
        if "\n" in pattern:
            raise UsageError(f"pattern {pattern!r} has a line end; a match must lie in one line. Count its parts.")
        if any("\ud800" <= c <= "\udfff" for c in pattern):
            raise UsageError(f"pattern {pattern!r} is not valid Unicode. Write it in UTF-8.")
        if key in known:
            raise UsageError(f"pattern {pattern!r} is given twice, first as {known[key]!r}. Name each pattern once.")
        known[key] = pattern


def _upper(character: str) -> str:
    """Return the upper case of a character if that is one character, otherwise its title case, otherwise itself."""
    return next(c for c in (character.upper(), character.title(), character) if len(c) == 1)


@cache
def _same_upper() -> dict[str, str]:
    """Return all characters with the same upper case, by that upper case."""
    same: dict[str, str] = {}
    for character in map(chr, range(sys.maxunicode + 1)):
        if character.upper() != character and (upper := _upper(character)) != character:
            same[upper] = same.get(upper, upper) + character
    return same


@cache
def word_characters() -> np.ndarray:
    """Return a bitmap (uint8, lowest bit first) of the Unicode characters that are a letter, digit, mark or `_`."""
    kinds = map(unicodedata.category, map(chr, range(sys.maxunicode + 1)))
    bits = np.fromiter((kind[0] in "LM" or kind in ("Nd", "Nl") for kind in kinds), bool, sys.maxunicode + 1)
    bits[ord("_")] = True
    return np.packbits(bits, bitorder="little")


def _length(pattern: Sequence[str], codes: Codes) -> int:
    """Return the pattern's length in bytes, or minus its length in characters if its cases differ in bytes."""
    if any(len({*map(len, codes[c])}) > 1 for c in pattern):
        return -len(pattern)
    return sum(len(codes[c][0]) for c in pattern)


def _near(patterns: Sequence[Sequence[str]], codes: Codes) -> np.ndarray:
    """Return the prefilter of the kernel: for each leading byte, the buckets of patterns that it can belong to."""
    near = np.zeros((2 * _NEAR, 16), np.uint8)
    begins = [{b""} for _ in patterns]
    for begin, pattern in zip(begins, patterns, strict=True):
        for character in pattern[:_NEAR]:
            longer = {(head + code)[:_NEAR] for head in begin for code in codes[character]}
            begin.clear()
            begin |= longer
    # Patterns with similar beginnings share a bucket: a bit of each byte of `near`, indexed by half bytes.
    for rank, begin in enumerate(sorted(begins, key=min)):
        bit = 1 << rank * _BUCKETS // len(begins)
        for head in begin:
            for k, byte in enumerate(head):
                near[2 * k, byte & 15] |= bit
                near[2 * k + 1, byte >> 4] |= bit
            near[2 * len(head) :] |= bit  # after a shorter pattern any byte may follow
    return near


class _Trie:
    """A trie of the patterns' characters with root 0, and `fail`, `owner` and `link` of each node (Aho, Corasick)."""

    def __init__(self, patterns: Sequence[Sequence[str]]):
        self.children: list[dict[str, int]] = [{}]
        self.owner = [-1]
        for number, pattern in enumerate(patterns):
            node = 0
            for character in pattern:
                node = self.children[node].setdefault(character, len(self.children))
                if node == len(self.children):
                    self.children.append({})
                    self.owner.append(-1)
            self.owner[node] = number
        self.fail = [0] * len(self.children)
        self.link = [0] * len(self.children)
        #: Breadth first: the failure link of a node points to an earlier node.
        self.order = [0]
        for node in self.order:
            for character, child in self.children[node].items():
                self._join(node, character, child)
                self.order.append(child)

    def _join(self, node: int, character: str, child: int) -> None:
        back = self.fail[node]
        while back and character not in self.children[back]:
            back = self.fail[back]
        self.fail[child] = back = self.children[back].get(character, 0) if node else 0
        self.link[child] = back if self.owner[back] >= 0 else self.link[back]


def _automaton(patterns: Sequence[Sequence[str]], codes: Codes) -> tuple[np.ndarray, ...]:
    """Return the arguments `classes`, `table`, `owner` and `link` of the kernel."""
    trie = _Trie(patterns)
    rows = _rows(trie, codes)
    owner, link = np.full(len(rows), -1, np.int32), np.zeros(len(rows), np.int32)
    owner[: len(trie.owner)], link[: len(trie.link)] = trie.owner, trie.link
    columns, classes = np.unique(rows, axis=1, return_inverse=True)
    columns = np.pad(columns, ((0, 0), (0, (1 << (columns.shape[1] - 1).bit_length()) - columns.shape[1])))
    ends = ((owner >= 0) | (link > 0)) * np.uint32(OUT)
    table = np.ascontiguousarray(columns * np.uint32(columns.shape[1]) + ends[columns], np.uint32)
    return classes.reshape(-1).astype(np.uint8), table, owner, link


def _rows(trie: _Trie, codes: Codes) -> np.ndarray:
    """Return the next state by state and byte: first the nodes of the trie, then the states within characters.

    A state has its own transitions, and the transitions of its failure state for all other bytes. A state within a
    character fails to the state that the same bytes reach from the failure state of the node.
    """
    rows = [np.zeros(256, np.uint32)] * len(trie.children)
    for node in trie.order:
        steps, states = _prefix_states(trie.children[node], codes, node, len(rows))
        rows += [rows[0]] * (len(states) - 1)
        if len(rows) > MOST_STATES:
            raise UsageError(
                f"the patterns are too long or too many: together they take more than {MOST_STATES} states of the "
                "automaton, about one per byte. Count some of them in another run."
            )
        back = {b"": trie.fail[node]}
        for head, state in states.items():
            if head:
                back[head] = int(rows[back[head[:-1]]][head[-1]]) if node else 0
            rows[state] = rows[back[head]].copy()
            rows[state][[*steps[head]]] = [*steps[head].values()]
    return np.stack(rows)


def _prefix_states(
    children: Mapping[str, int], codes: Codes, node: int, free: int
) -> tuple[dict[bytes, dict[int, int]], dict[bytes, int]]:
    """Return the states between a node and its children: transitions and state number by the bytes read so far.

    New states have numbers from `free`; a prefix has a lower number than the longer byte strings.
    """
    steps: dict[bytes, dict[int, int]] = {b"": {}}
    states = {b"": node}
    for character, child in children.items():
        for code in codes[character]:
            for k in range(1, len(code)):
                head = code[:k]
                if head not in states:
                    states[head] = steps[head[:-1]][head[-1]] = free + len(states) - 1
                    steps[head] = {}
            steps[code[:-1]][code[-1]] = child
    return steps, states
