"""Find where the records of CSV text begin, in parallel: quoted fields may contain line ends and delimiters.

The text is read by an automaton. Its state before a byte is one of

| state | the byte follows |
|---|---|
| RECORD | a line end, or the start of the text: a record begins here |
| FIELD | a delimiter |
| INSIDE | a byte of a field that is not quoted, or a byte after a closed quote |
| QUOTED | a byte of a quoted field |
| CLOSED | a quote in a quoted field: the field ends here, or the byte is a quote, too, and both are one quote |
| COMMENT | a byte of a comment |
| RETURN | a carriage return that ends a line: a line feed belongs to it, and before any other byte a record begins |

A quote is special only as the first byte of a field and in a quoted field. Line ends are LF, CR and CR LF.

`scan(text, classes, state, after, found)` reads `text` (uint8) from `state` (an integer), and writes to `found` (int64,
5 elements): the state after the last byte; the first index > `after` at which a record begins, or −1; the last index at
which a record begins, or −1; the number of quotes inside fields that are not quoted; and the number of line ends
inside quoted fields. Index `len(text)` counts as the begin of a record only if the state there is RECORD.

`records(text, classes, starts, fields, unclear)` reads whole records from the state RECORD. It writes for each record
the index of its first byte and its number of fields (int64), 0 for an empty line and for a comment, and whether it has
both a quote inside a field that is not quoted and a line end inside a quoted field (uint8): others may read such a
record as two. It returns the number of records; the arrays have as many elements as `text`.

`transitions(text, classes, ends)` writes to `ends` (int64, STATES elements) the state after the last byte for each
state before the first byte. Parts of a text can be read at the same time: the map of the whole text is the composition
of the maps of its parts.

`classes` (uint8[256]) has the class of each byte: OTHER, DELIMITER, QUOTE, FEED, CARRIAGE or HASH (begins a comment at
the start of a record). See `classes_of`.

Source: the rules of RFC 4180, with those of Arrow's CSV parser for quotes that RFC 4180 does not allow. Composition of
maps: R. E. Ladner and M. J. Fischer, Parallel prefix computation, J. ACM 27 (1980) 831-838.
"""

from typing import Any

import numpy as np

OPERATIONS = ("scan", "records", "transitions")

RECORD, FIELD, INSIDE, QUOTED, CLOSED, COMMENT, RETURN = range(7)
STATES = 7
OTHER, DELIMITER, QUOTE, FEED, CARRIAGE, HASH = range(6)

#: The next state by state and class of the byte.
NEXT = np.array(
    [
        [INSIDE, FIELD, QUOTED, RECORD, RETURN, COMMENT],
        [INSIDE, FIELD, QUOTED, RECORD, RETURN, INSIDE],
        [INSIDE, FIELD, INSIDE, RECORD, RETURN, INSIDE],
        [QUOTED, QUOTED, CLOSED, QUOTED, QUOTED, QUOTED],
        [INSIDE, FIELD, QUOTED, RECORD, RETURN, INSIDE],
        [COMMENT, COMMENT, COMMENT, RECORD, RETURN, COMMENT],
        [INSIDE, FIELD, QUOTED, RECORD, RETURN, COMMENT],
    ],
    np.uint8,
)


def classes_of(delimiter: bytes, quote: bytes = b'"', comment: bytes = b"") -> np.ndarray:
    """Return the class of each byte. `quote` and `comment` may be empty: no byte is a quote or begins a comment."""
    classes = np.zeros(256, np.uint8)
    for byte, kind in ((b"\n", FEED), (b"\r", CARRIAGE), (comment, HASH), (quote, QUOTE), (delimiter, DELIMITER)):
        classes[[*byte]] = kind
    return classes


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Return arguments: a text of records with quoted fields."""
    random = np.random.default_rng(size)
    text = random.choice(np.frombuffer(b'aaaaaaab,,"\n\r#', np.uint8), size)
    classes = classes_of(b",", b'"', b"#")
    if operation == "scan":
        return (text, classes, RECORD, size // 2, np.zeros(5, np.int64)), size, "bytes"
    if operation == "records":
        results = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.uint8)
        return (text, classes, *results), size, "bytes"
    return (text, classes, np.zeros(STATES, np.int64)), size, "bytes"
