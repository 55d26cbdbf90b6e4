"""Which tasks need which others: the column of --after names identifiers and groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from anyrank.errors import UsageError


def read_needs(ids: Sequence[str], groups: Iterable[Any], after: Iterable[Any], name: str) -> list[tuple[int, int]]:
    """Return the tasks and those that they need, in the order in which they are named. Not collective.

    Parameters
    ----------
    ids : sequence of str
        The identifiers of all tasks.
    groups : iterable
        The name of the group of each task, or None; empty if there are no groups.
    after : iterable
        What each task needs: names of tasks and groups in a text, separated by spaces, or a list of them.
    name : str
        The column with these, for errors.

    Raises
    ------
    UsageError
        For a name that is no task and no group, for a group with the name of a task, and for a cycle.
    """
    rows = {task: [row] for row, task in enumerate(ids)}
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        if group is not None and group != "":
            members.setdefault(str(group), []).append(row)
    for group in members:
        if group in rows:
            raise UsageError(f"--group: {group!r} is also the identifier of a task. Names must differ.")
    named = rows | members
    needs: dict[tuple[int, int], None] = {}
    for row, text in enumerate(after):
        for word in map(str, text if isinstance(text, list) else str("" if text is None else text).split()):
            if word not in named:
                raise UsageError(f"--after {name}: {ids[row]} needs {word!r}, which is no task and no group.")
            needs.update(dict.fromkeys((row, needed) for needed in named[word]))
    if cycle := find_cycle([*needs]):
        path = " needs ".join(ids[row] for row in cycle)
        raise UsageError(f"--after {name}: {path}, which is a cycle. Remove one of these.")
    return [*needs]


def find_cycle(needs: list[tuple[int, int]]) -> list[int]:
    """Return the tasks of a cycle, the first one again at the end; an empty list if there is none (Kahn 1962)."""
    waiting: dict[int, set[int]] = {}
    for task, needed in needs:
        waiting.setdefault(task, set()).add(needed)
    users: dict[int, list[int]] = {}
    for task, needed in needs:
        users.setdefault(needed, []).append(task)
    free = [needed for needed in users if needed not in waiting]
    for task in free:  # the list grows while the loop runs
        for user in users.get(task, ()):
            waiting[user].discard(task)
            if not waiting[user]:
                del waiting[user]
                free.append(user)
    if not waiting:
        return []
    path = [next(iter(waiting))]
    while path[-1] not in path[:-1]:
        path.append(next(needed for needed in sorted(waiting[path[-1]]) if needed in waiting))
    return path[path.index(path[-1]) :]
