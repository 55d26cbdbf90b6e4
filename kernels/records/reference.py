"""Find the records of CSV text in plain Python: the definition."""

import numpy as np

from anyrank.kernels.records import (
    CARRIAGE,
    COMMENT,
    DELIMITER,
    FEED,
    INSIDE,
    NEXT,
    QUOTE,
    QUOTED,
    RECORD,
    RETURN,
    STATES,
)


def scan(text: np.ndarray, classes: np.ndarray, state: int, after: int, found: np.ndarray) -> None:
    """Find the first record after an index and the last one, and count quotes and line ends in fields."""
    first = last = -1
    stray = lines = 0
    kinds = classes[text].tolist()
    for index, kind in enumerate(kinds):
        if state == RECORD or (state == RETURN and kind != FEED):
            last = index
            first = index if first < 0 and index > after else first
        stray += state == INSIDE and kind == QUOTE
        lines += state == QUOTED and kind in (FEED, CARRIAGE)
        state = int(NEXT[state, kind])
    if state == RECORD:
        last = len(text)
        first = last if first < 0 and last > after else first
    found[:] = state, first, last, stray, lines


def records(text: np.ndarray, classes: np.ndarray, starts: np.ndarray, fields: np.ndarray, unclear: np.ndarray) -> int:
    """Find the begin, the number of fields and the clarity of every record; return their number."""
    state, count, stray, lines = RECORD, 0, False, False
    for index, kind in enumerate(classes[text].tolist()):
        if state == RECORD or (state == RETURN and kind != FEED):
            starts[count], fields[count], unclear[count] = index, 0, 0
            count, stray, lines = count + 1, False, False
        if state == RETURN and kind == FEED:
            state = RECORD
            continue
        stray |= state == INSIDE and kind == QUOTE
        lines |= state == QUOTED and kind in (FEED, CARRIAGE)
        delimits = kind == DELIMITER and state not in (QUOTED, COMMENT)
        state = int(NEXT[state, kind])
        if state not in (RECORD, RETURN, COMMENT):
            fields[count - 1] = max(fields[count - 1], 1) + delimits
        unclear[count - 1] = stray and lines
    return count


def transitions(text: np.ndarray, classes: np.ndarray, ends: np.ndarray) -> None:
    """Find the state after the last byte for each state before the first byte."""
    kinds = classes[text].tolist()
    for begin in range(STATES):
        state = begin
        for kind in kinds:
            state = int(NEXT[state, kind])
        ends[begin] = state
