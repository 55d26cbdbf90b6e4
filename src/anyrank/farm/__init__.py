"""Many independent tasks on all ranks: a function or a command for each row of a table, without a broker.

map         call a function for each input on all ranks
Executor    an executor of `concurrent.futures` on this host
task        the task that the calling function works on: its index, attempt and random numbers
Task        what `task` returns
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyrank.farm.api import map
    from anyrank.farm.executor import Executor
    from anyrank.farm.tasks import Task, task

_MODULE_OF = {"Executor": "executor", "Task": "tasks", "map": "api", "task": "tasks"}
__all__ = ["Executor", "Task", "map", "task"]


def __getattr__(name: str) -> Any:
    # Imported at the first use: a worker imports this package and must start fast.
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'anyrank.farm' has no attribute {name!r}")
    return getattr(import_module(f"anyrank.farm.{_MODULE_OF[name]}"), name)
