"""Group the stacks of many ranks: identical stacks form a group, and suspect groups come first."""

from __future__ import annotations

import linecache
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anyrank.errors import as_ranges

_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')
#: The files of calls in which a rank waits for others; a rank in any other file is suspect.
_WAITING = re.compile(
    r"/anyrank/(exchange/\w+|world|recorder|state|runtime/agreement|checkpoint/staging|storage/durable)\.py$"
)
#: The frames outside of this file lead from the command line to the run and are the same in all stacks.
_SESSION = "/anyrank/runtime/session.py"


class Frame(NamedTuple):
    """A stack frame; its text is `file:line in function: code`."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        code = linecache.getline(self.file, self.line).strip()
        return f"{self.file}:{self.line} in {self.function}" + (f": {code}" if code else "")


class Dump(NamedTuple):
    """The last step of a rank (−1 before the first) and the stack of its main thread, innermost call last."""

    step: int
    stack: tuple[Frame, ...]


def parse(log: str, head: str, tail: str) -> Dump | None:
    """Parse the last step and faulthandler's output between head and tail; None if they are missing."""
    section, complete, _ = log.rpartition(head)[2].partition(tail)
    if not complete:
        return None
    step, _, stacks = section.partition("\n")
    main = stacks.partition("Current thread ")[2].partition("\n\n")[0]
    frames = [Frame(_unescaped(file), int(line), _unescaped(name)) for file, line, name in _FRAME.findall(main)]
    inside = next((n for n, frame in enumerate(frames) if frame.file.endswith(_SESSION)), len(frames))
    return Dump(int(step), tuple(reversed(frames[: inside + 1])))


def _unescaped(text: str) -> str:
    """Undo the escapes with which faulthandler writes characters that are not ASCII."""
    return re.sub(r"\\(?:x..|u....|U........)", lambda match: chr(int(match[0][2:], 16)), text)


def group_stacks(dumps: Mapping[int, Dump], hosts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the groups of ranks with identical stacks, in the form of hang.json.

    Groups are sorted by step (the furthest behind first), then those that do not wait for others, then by size.
    """
    by_stack: dict[tuple[Frame, ...], list[int]] = {}
    for rank in sorted(dumps):
        by_stack.setdefault(dumps[rank].stack, []).append(rank)
    groups = []
    for stack, ranks in by_stack.items():
        waiting = bool(stack and _WAITING.search(stack[-1].file))
        steps = {dumps[rank].step for rank in ranks}
        where = str(stack[-1]).removeprefix(f"{Path(stack[-1].file).parent}/") if stack else "no Python code"
        group = {
            "ranks": as_ranges(ranks),
            "steps": as_ranges(steps - {-1}),
            "hosts": [host["name"] for host in hosts if not set(ranks).isdisjoint(host["ranks"])],
            "where": where,
            "waiting": waiting,
            "stack": [str(frame) for frame in stack],
        }
        groups.append((min(steps), waiting, len(ranks), ranks[0], group))
    return [group for *_, group in sorted(groups, key=lambda entry: entry[:4])]
