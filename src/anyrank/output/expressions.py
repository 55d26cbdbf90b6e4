"""What --frames names: fields, parts of them along named axes, and means over axes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from anyrank.errors import UsageError

#: The start, the stop and the step of a range; None where the text gives none.
Range = tuple[int | None, int | None, int | None]
#: The value of --frames that writes no frames, also of fields that are declared with `frames=True`.
OFF = "off"
FORMS = "Write T, T[z=10], T[x=2:8,y=3], mean(T) or mean(T[x=2:8], z), joined by commas"
_EXPRESSION = re.compile(r"(\w+)\s*(?:\[([^\[\]]*)\])?")
_MEAN = re.compile(r"mean\((.*)\)")
_PART = re.compile(r"(\w+)\s*=\s*(-?\d+|(-?\d+)?\s*:\s*(-?\d+)?\s*(?::\s*(\d+))?)", re.ASCII)


@dataclass(frozen=True)
class Expression:
    """One output of --frames: a field, the part of it, and the axes of a mean.

    `parts` has an index or a range by the name of an axis. `mean` has the names of the axes to average; it is empty for
    the mean over all axes, and None without a mean.
    """

    text: str
    field: str
    parts: dict[str, int | Range]
    mean: tuple[str, ...] | None = None


def parse_frames(text: str) -> list[Expression]:
    """Parse `T,u[z=10],mean(T, z)`; ValueError for anything else."""
    return [] if text.strip() == OFF else [_parse(part) for part in _split(text)]


def _split(text: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _parse(text: str) -> Expression:
    mean: tuple[str, ...] | None = None
    source = text
    if match := _MEAN.fullmatch(text):
        source, *axes = _split(match[1])
        mean = tuple(axes)
    match = _EXPRESSION.fullmatch(source)
    if not match or not all(axis.isidentifier() for axis in mean or ()):
        raise ValueError(f"has {text!r}, which is no output", f"{FORMS}.")
    parts: dict[str, int | Range] = {}
    for part in _split(match[2]) if match[2] is not None else ():
        found = _PART.fullmatch(part)
        if not found or found[1] in parts:
            raise ValueError(f"has {text!r}, whose {part!r} is no index or range of one more axis", f"{FORMS}.")
        numbers = [None if number is None else int(number) for number in found.groups()[2:]]
        parts[found[1]] = (numbers[0], numbers[1], numbers[2]) if ":" in found[2] else int(found[2])
    return Expression(text, match[1], parts, mean)


def resolve_index(what: str, axis: str, index: int, size: int) -> int:
    """Return an index as a number from 0; UsageError if it is out of range."""
    if not -size <= index < size:
        raise UsageError(f"{what}: {axis}={index} must be from 0 to {size - 1}, or from -{size} to -1 from the end.")
    return index % size


def resolve_range(what: str, axis: str, part: Range, size: int) -> tuple[int, int, int | None]:
    """Return the start, the stop and the step of a range; UsageError if it is out of range or empty."""
    low, high, step = part
    first = 0 if low is None else low + size * (low < 0)
    stop = size if high is None else high + size * (high < 0)
    if not 0 <= first < stop <= size or step == 0:
        shown = ":".join("" if number is None else str(number) for number in (part if step is not None else part[:2]))
        raise UsageError(
            f"{what}: {axis}={shown} must be a range within 0:{size} that is not empty, with a step of at least 1."
        )
    return first, stop, step
