"""Complete runs of groupby in this process."""

from __future__ import annotations

from anyrank.keyed.programs.groupby import GroupBy
from anyrank.state import State


def run(world, path, **options):
    """The state and the result of a complete run, without files."""
    groupby, state = GroupBy(table=str(path), **options), State(world)
    groupby.declare(state)
    while not groupby.done(state):
        groupby.step(state)
        state.step += 1
    return state, groupby.result(state)
