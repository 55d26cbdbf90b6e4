"""Many independent tasks on all ranks: a function or a command for each row of a table, without a broker."""

from anyrank.farm.tasks import Task, task

__all__ = ["Task", "task"]
