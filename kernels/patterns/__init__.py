r"""Occurrences of any number of patterns in UTF-8 text, in one pass: an automaton over bytes (Aho and Corasick).

`count(text, start, stop, classes, table, owner, link, length, letters, near, state, counts)` reads
`text[start:stop]` (uint8), adds to `counts` (int64, one per pattern) what it finds, and returns the number
of line ends (\n) there. An occurrence counts if it begins at or after the end of the last one of its own pattern
that counted: they do not overlap, and are taken from left to right. The automaton is

`classes`, `table`
    uint8[256] and uint32[states, columns]: from state s, byte b leads to `table[s, classes[b]]`, which is the next
    state times `columns`, a power of two, plus OUT where a pattern ends there. State 0 is the root.
`owner`, `link`
    int32[states]: the pattern that ends in a state, or −1, and the next state, or 0, whose pattern ends there too.
`length`
    int32[patterns]: the bytes of each occurrence of a pattern; or, where letters of upper and lower case differ in
    their bytes, minus its number of characters.
`letters`
    uint8[0x110000 / 8], a bit per character (the lowest first): an occurrence then counts only if neither the
    character before it nor the one after it has its bit set. Broken UTF-8 is no such character. Empty: all count.
`near`
    uint8[6, 16]: a place where an occurrence begins has a bit b set in `near[2k, byte & 15] & near[2k + 1, byte >> 4]`
    for the bytes k = 0, 1, 2 from there on. It tells where the root may be left, so that it need not be looked up.

`state` (int64, one more than patterns) carries on from block to block of one text: first the automaton's state, then
where, relative to the block's start, the last counted occurrence of each pattern ended. It begins with zeros. No
pattern may contain a line end. What the last occurrences and the characters around them need must be readable before
`start` and after `stop`, in the text or as zeros: the longest pattern and 4 bytes, and 4 bytes.

`broken(text, start, stop)` is the number of byte sequences that begin in `text[start:stop]` and are no UTF-8:
of characters U+FFFD that stand for them when the text is decoded, one for each longest begin of a character, as
Unicode recommends and Python does. 3 bytes before `start` and after `stop` must be readable, in the text or as zeros.

Source: A. V. Aho and M. J. Corasick, Efficient string matching: an aid to bibliographic search, CACM 18 (1975) 333-340;
The Unicode Standard, section 3.9, table 3-7 and "U+FFFD substitution of maximal subparts". `near` is read in vectors
as in Hyperscan (X. Wang et al., NSDI 2019).
"""

from typing import Any

import numpy as np

OPERATIONS = ("count", "broken")

#: In an entry of `table`: a pattern ends here.
OUT = 1 << 31


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Text of the letters a and b with the patterns `aa` and `ab`, or with a broken letter here and there."""
    random = np.random.default_rng(size)
    text = np.zeros(size + 128, np.uint8)
    text[64 : 64 + size] = random.choice(np.frombuffer(b"ab \n", np.uint8), size)
    if operation == "broken":
        text[64 : 64 + size][random.random(size) < 0.01] = 0xC3
        return (text, 64, 64 + size), size, "bytes"
    classes = np.zeros(256, np.uint8)
    classes[[*b"ab"]] = 1, 2
    # The states: the root, "a", "aa", "ab".
    table = np.array([[0, 4, 0, 0], [0, OUT | 8, OUT | 12, 0], [0, OUT | 8, OUT | 12, 0], [0, 4, 0, 0]], np.uint32)
    owner, link = np.array([-1, -1, 0, 1], np.int32), np.zeros(4, np.int32)
    near = np.full((6, 16), 255, np.uint8)
    near[:2] = 0
    near[0, 1] = near[1, 6] = 1  # a is 0x61
    automaton = classes, table, owner, link, np.full(2, 2, np.int32), np.zeros(0, np.uint8), near
    return (text, 64, 64 + size, *automaton, np.zeros(3, np.int64), np.zeros(2, np.int64)), size, "bytes"
