"""Patterns to be counted in text: the automaton that finds all of them in one pass, and what is asked of patterns."""

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
#: The largest automaton: each state has up to 1 KB of its table.
MOST_STATES = 1 << 18
_NEAR = 3  # bytes of a pattern that `near` looks at
_BUCKETS = 8

#: A letter's codes in UTF-8, of all cases that are the same; a letter itself is told by one of them.
Codes: TypeAlias = Mapping[str, Sequence[bytes]]


class Patterns:
    """Counts patterns in text: for each what `grep -o PATTERN | wc -l` gives for it alone.

    With `words`, as `grep -ow`: only where neither before nor after it is a letter, digit or mark of Unicode, or `_`.
    With `ignore_case`, as `grep -oi`: characters that have one upper case are the same.
    Raises UsageError where there is no pattern, or one is empty, has a line end, comes twice, or they are too long.

    `counts` (int64, one per pattern), `lines`, and `broken`, the number of sequences that are no UTF-8, add up what
    `read` was given. It needs blocks with `behind` and `ahead` bytes of context.
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
        """Begin again: nothing is counted."""
        self.counts[:] = self.lines = self.broken = 0
        self._next: tuple[Path, int] | None = None

    def read(self, block: Block) -> None:
        """Count what is in a block. It begins a line, or follows the block before it."""
        text, start, stop = block.buffer, block.start, block.stop
        if self._next != (block.path, block.offset):
            self._state[:] = 0
        self._next = block.path, block.offset + stop - start
        self.lines += COUNT(text, start, stop, *self._automaton, self._state, self.counts)
        self.lines += int(self._next[1] == block.size and text[stop - 1] != ord("\n"))  # the last line may have no end
        self.broken += BROKEN(text, start, stop)


def _check(patterns: Sequence[str], letters: Sequence[Sequence[str]]) -> None:
    if not patterns:
        raise UsageError("there is no pattern. Name at least one.")
    known: dict[tuple[str, ...], str] = {}
    for pattern, key in zip(patterns, map(tuple, letters), strict=True):
        if not pattern:
            raise UsageError(f"pattern {len(known) + 1} of {len(patterns)} is empty: it would be everywhere. Drop it.")
        if "\n" in pattern:
            raise UsageError(f"pattern {pattern!r} has a line end, but is looked for in lines. Count its parts.")
        if any("\ud800" <= c <= "\udfff" for c in pattern):
            raise UsageError(f"pattern {pattern!r} is no text of Unicode. Write it in UTF-8.")
        if key in known:
            raise UsageError(f"pattern {pattern!r} comes twice, first as {known[key]!r}. Name each once.")
        known[key] = pattern


def _upper(character: str) -> str:
    """The upper case of a character, if that is one character; else its title case, or itself."""
    return next(c for c in (character.upper(), character.title(), character) if len(c) == 1)


@cache
def _same_upper() -> dict[str, str]:
    """All characters of the same upper case, by that upper case."""
    same: dict[str, str] = {}
    for character in map(chr, range(sys.maxunicode + 1)):
        if character.upper() != character and (upper := _upper(character)) != character:
            same[upper] = same.get(upper, upper) + character
    return same


@cache
def word_characters() -> np.ndarray:
    """A bit per character of Unicode, the lowest first: whether it is a letter, a digit, a mark or `_`. uint8."""
    kinds = map(unicodedata.category, map(chr, range(sys.maxunicode + 1)))
    bits = np.fromiter((kind[0] in "LM" or kind in ("Nd", "Nl") for kind in kinds), bool, sys.maxunicode + 1)
    bits[ord("_")] = True
    return np.packbits(bits, bitorder="little")


def _length(pattern: Sequence[str], codes: Codes) -> int:
    """The bytes of the pattern, or minus its characters where they are not the same in all cases."""
    if any(len({*map(len, codes[c])}) > 1 for c in pattern):
        return -len(pattern)
    return sum(len(codes[c][0]) for c in pattern)


def _near(patterns: Sequence[Sequence[str]], codes: Codes) -> np.ndarray:
    """How patterns begin, in buckets of patterns that begin alike: see the kernel."""
    near = np.zeros((2 * _NEAR, 16), np.uint8)
    begins = [{b""} for _ in patterns]
    for begin, pattern in zip(begins, patterns, strict=True):
        for character in pattern[:_NEAR]:
            longer = {(head + code)[:_NEAR] for head in begin for code in codes[character]}
            begin.clear()
            begin |= longer
    for rank, begin in enumerate(sorted(begins, key=min)):
        bit = 1 << rank * _BUCKETS // len(begins)
        for head in begin:
            for k, byte in enumerate(head):
                near[2 * k, byte & 15] |= bit
                near[2 * k + 1, byte >> 4] |= bit
            near[2 * len(head) :] |= bit  # a pattern of fewer bytes may be followed by anything
    return near


class _Trie:
    """The patterns as paths of characters from node 0; `fail`, `owner`, `link`: of each node, as Aho and Corasick."""

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
        #: Breadth first: each node after those that it may fail to.
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
    """`classes`, `table`, `owner` and `link` of the kernel."""
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
    """The next state by state and byte: first of the trie's nodes, then of the places within characters.

    A state goes where the one goes that it falls back to, but with the bytes that lead on from it. From a place
    within a character that is where the same bytes lead from the state that the node falls back to.
    """
    rows = [np.zeros(256, np.uint32)] * len(trie.children)
    for node in trie.order:
        steps, places = _places(trie.children[node], codes, node, len(rows))
        rows += [rows[0]] * (len(places) - 1)
        if len(rows) > MOST_STATES:
            raise UsageError(
                f"the patterns are too long or too many: in all they take more than {MOST_STATES} states of the "
                "automaton, about one a byte. Count some of them in another run."
            )
        back = {b"": trie.fail[node]}
        for head, place in places.items():
            if head:
                back[head] = int(rows[back[head[:-1]]][head[-1]]) if node else 0
            rows[place] = rows[back[head]].copy()
            rows[place][[*steps[head]]] = [*steps[head].values()]
    return np.stack(rows)


def _places(
    children: Mapping[str, int], codes: Codes, node: int, free: int
) -> tuple[dict[bytes, dict[int, int]], dict[bytes, int]]:
    """Where bytes lead from a node until they make a character: by the bytes read, the steps and the state.

    States are numbered from `free` on, and bytes come after what they begin with.
    """
    steps: dict[bytes, dict[int, int]] = {b"": {}}
    places = {b"": node}
    for character, child in children.items():
        for code in codes[character]:
            for k in range(1, len(code)):
                head = code[:k]
                if head not in places:
                    places[head] = steps[head[:-1]][head[-1]] = free + len(places) - 1
                    steps[head] = {}
            steps[code[:-1]][code[-1]] = child
    return steps, places
