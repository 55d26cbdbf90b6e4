"""Many independent tasks on all ranks: a function or a command for each row of a table, without a broker.

map             call a function for each input on all ranks
Executor        an executor of `concurrent.futures` on this host
RankExecutor    an executor on the ranks of a farm, also of several hosts
stream          coroutines as sources and sinks, with any executor
task            the task that the calling function works on: its index, attempt and random numbers
Task            what `task` returns
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyrank.farm.api import map
    from anyrank.farm.async_stream import stream
    from anyrank.farm.executor import Executor
    from anyrank.farm.rank_executor import RankExecutor
    from anyrank.farm.tasks import Task, task

_MODULE_OF = {
    "Executor": "executor",
    "RankExecutor": "rank_executor",
    "Task": "tasks",
    "map": "api",
    "stream": "async_stream",
    "task": "tasks",
}
__all__ = ["Executor", "RankExecutor", "Task", "map", "stream", "task"]


def __dir__() -> list[str]:
    return [*globals(), *_MODULE_OF]


def __getattr__(name: str) -> Any:
    # Imported at the first use: a worker imports this package and must start fast.
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'anyrank.farm' has no attribute {name!r}")
    return getattr(import_module(f"anyrank.farm.{_MODULE_OF[name]}"), name)
