"""Count patterns in text in plain Python."""

from collections.abc import Iterator

import numpy as np

from anyrank.kernels.patterns import OUT


def count(
    text: np.ndarray,
    start: int,
    stop: int,
    classes: np.ndarray,
    table: np.ndarray,
    owner: np.ndarray,
    link: np.ndarray,
    length: np.ndarray,
    letters: np.ndarray,
    near: np.ndarray,
    state: np.ndarray,
    counts: np.ndarray,
) -> int:
    """Add the occurrences of each pattern to `counts`; return the number of line ends."""
    columns, now = table.shape[1], int(state[0])
    data = text[: stop + 4].tobytes()
    state[1:] += start
    for end in range(start + 1, stop + 1):
        entry = int(table[now, classes[data[end - 1]]])
        now = (entry & ~OUT) // columns
        for pattern in _ending(now, owner, link) if entry & OUT else ():
            begin = _begin(data, end, int(length[pattern]))
            if begin >= state[1 + pattern] and not (letters.size and _inside(data, begin, end, letters)):
                counts[pattern] += 1
                state[1 + pattern] = end
    state[1:] -= stop
    state[0] = now
    return data[start:stop].count(b"\n")


def _ending(state: int, owner: np.ndarray, link: np.ndarray) -> Iterator[int]:
    """Yield the patterns that end in this state."""
    while state:
        if owner[state] >= 0:
            yield int(owner[state])
        state = int(link[state])


def _begin(data: bytes, end: int, length: int) -> int:
    """Return the start of an occurrence: `length` bytes, or −`length` characters, before its end."""
    if length >= 0:
        return end - length
    for _ in range(-length):
        end -= 1
        while data[end] & 0xC0 == 0x80:
            end -= 1
    return end


def _inside(data: bytes, begin: int, end: int, letters: np.ndarray) -> bool:
    """Return whether a letter is directly before `begin` or at `end`."""
    before = (data[begin - n : begin] for n in range(1, 5))
    after = (data[end : end + n] for n in range(1, 5))
    return any(_is_letter(code, letters) for code in (*before, *after))


def _is_letter(code: bytes, letters: np.ndarray) -> bool:
    """Return whether these bytes are exactly one character and it is a letter."""
    try:
        (character,) = map(ord, code.decode())
    except (UnicodeDecodeError, ValueError):
        return False
    return bool(letters[character >> 3] >> (character & 7) & 1)


def broken(text: np.ndarray, start: int, stop: int) -> int:
    """Return the number of sequences that begin in text[start:stop] and are not valid UTF-8."""
    data, at, total = text[start - 3 : stop + 3].tobytes(), 0, 0
    while True:  # sequences that begin in the three bytes of context are counted in other blocks
        try:
            data[at:].decode()
            return total
        except UnicodeDecodeError as error:
            total += 3 <= at + error.start < 3 + stop - start
            at += error.end
