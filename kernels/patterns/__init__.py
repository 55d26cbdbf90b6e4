r"""Count the occurrences of many patterns in UTF-8 text in one pass, with an automaton over bytes (Aho and Corasick).

`count(text, start, stop, classes, table, owner, link, length, letters, near, state, counts)` reads
`text[start:stop]` (uint8), adds the occurrences to `counts` (int64, one per pattern), and returns the number of line
ends (\n). Occurrences of one pattern do not overlap: from left to right, an occurrence counts if it begins at or after
the end of the previous counted one. The automaton is

`classes`, `table`
    uint8[256] and uint32[states, columns]: from state s, byte b leads to `table[s, classes[b]]`. This is the next
    state times `columns` (a power of two), plus OUT if a pattern ends there. State 0 is the root.
`owner`, `link`
    int32[states]: the pattern that ends in a state, or −1; and the next state, or 0, whose pattern also ends there.
`length`
    int32[patterns]: the bytes of an occurrence; or minus the number of characters, if upper and lower case letters of
    the pattern differ in their number of bytes.
`letters`
    uint8[0x110000 / 8], a bitmap of characters (lowest bit first): an occurrence counts only if the characters before
    and after it are not in the bitmap. Invalid UTF-8 is not in the bitmap. If empty, all occurrences count.
`near`
    uint8[6, 16], a prefilter: if an occurrence begins at a position, some bit is set in
    `near[2k, byte & 15] & near[2k + 1, byte >> 4]` for all of the bytes k = 0, 1, 2 from that position on. In the root
    state, positions that fail this test are skipped without a table access.

`state` (int64, patterns + 1) is passed from block to block of one text, initially zeros: the state of the automaton,
then for each pattern the end of its last counted occurrence relative to the start of the block. Patterns must not
contain a line end. Context must be readable, from the text or as zeros: the length of the longest pattern plus 4 bytes
before `start`, and 4 bytes after `stop`.

`broken(text, start, stop)` returns the number of byte sequences that begin in `text[start:stop]` and are not valid
UTF-8: the number of U+FFFD characters in the decoded text, one for each maximal subpart, as recommended by
Unicode and implemented by Python. 3 bytes before `start` and after `stop` must be readable, from the text or as zeros.

Source: A. V. Aho and M. J. Corasick, Efficient string matching: an aid to bibliographic search, CACM 18 (1975) 333-340;
The Unicode Standard, section 3.9, table 3-7 and "U+FFFD substitution of maximal subparts". The vector code for `near`
follows Hyperscan (X. Wang et al., NSDI 2019).
"""

from typing import Any

import numpy as np

OPERATIONS = ("count", "broken")

#: Flag in an entry of `table`: a pattern ends in the next state.
OUT = 1 << 31


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Return arguments: a text of a and b with patterns `aa` and `ab`; for `broken`, with some invalid bytes."""
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
