"""The main module of child processes that a program starts by `multiprocessing` with `spawn` or `forkserver`.

Such a child first imports the main module of its parent under the name `__mp_main__`. It imports this module instead of
the command line: a child is not a rank, so it must not start MPI, and no launcher started it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import mpi4py

from anyrank.launcher import without_launch

#: The variable with the name and the file of a program that children cannot import by its name alone.
PROGRAM_FILE = "ANYRANK_PROGRAM_FILE"
_NAME = "anyrank.child"


def begin_children_here() -> None:
    """Make this module the main module of child processes. The main module must be a command line of anyrank."""
    # `multiprocessing` reads only the name of the specification.
    sys.modules["__main__"].__spec__ = ModuleSpec(_NAME, None)


def is_child() -> bool:
    """Return whether `multiprocessing` started this process, also while its main module is still imported."""
    process = sys.modules.get("multiprocessing.process")  # every child has imported it
    return process is not None and (
        process.parent_process() is not None or getattr(process.current_process(), "_inheriting", False)
    )


def leave_launch() -> None:
    """Separate this process from the launch of its parent: do not start MPI, and remove the launcher's variables."""
    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = True  # if the program starts MPI itself
    for name in set(os.environ) - set(without_launch(os.environ)):
        del os.environ[name]


def execute(name: str, file: Path) -> ModuleType:
    """Import a file under a name, after the packages in the name."""
    if package := name.rpartition(".")[0]:
        importlib.import_module(package)
        if name in sys.modules:  # the package imported it
            return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, file)
    if specification is None or specification.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _begin() -> None:
    leave_launch()
    for number in (
        signal.SIGINT,
        signal.SIGUSR1,
        signal.SIGQUIT,
    ):  # they ask the rank to stop, which needs its children
        signal.signal(number, signal.SIG_IGN)
    if value := os.environ.get(PROGRAM_FILE):
        name, _, file = value.partition(":")
        if name not in sys.modules:
            execute(name, Path(file))


if __name__ == "__mp_main__":
    _begin()
