"""`farm.map`: a farm from Python, without a command line."""

from __future__ import annotations

import filecmp
import inspect
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from anyrank.errors import AnyrankError, UsageError
from anyrank.farm.calls import check_not_importing
from anyrank.farm.executor import dumps, exception_of
from anyrank.farm.inputs import PICKLED, write_blocks
from anyrank.farm.journal import read_last
from anyrank.farm.programs.farm import Farm
from anyrank.farm.tasks import DONE, Record
from anyrank.runtime.python import run

#: The options of `map` that are options of the run and not parameters of the farm.
_OF_RUN = ("hosts", "walltime", "max_restarts", "hang_timeout", "quiet", "threads", "bind")


def map(
    function: Callable[..., Any],
    *inputs: Iterable[Any],
    ranks: int = 1,
    out: Path | str | None = None,
    return_exceptions: bool = False,
    **options: Any,
) -> list[Any]:
    """Call a function for each input on all ranks, and return the values in the order of the inputs.

    Parameters
    ----------
    function : callable
        A function of a Python file, or, if cloudpickle is installed, any function.
    *inputs : iterable
        The arguments: the n-th elements of all iterables are those of task n, as for the built-in `map`.
    ranks : int
        The number of ranks; more than 1 starts mpiexec.
    out : path, optional
        The run folder. If it holds the same farm, only what is missing is computed. By default nothing is kept.
    return_exceptions : bool
        Whether the exception of a task takes the place of its value. Otherwise the first one is raised, after all
        tasks have ended.
    **options
        Parameters of `anyrank farm`, such as `attempts=3`, `task_timeout=60`, `concurrency=50`, and options of the run,
        such as `hosts`. `shared={"grid": array}` gives arrays to the parameters of these names; they are in memory once
        a node, and read-only.

    Returns
    -------
    list
        The values.

    Raises
    ------
    UsageError
        If an option is refused, or the function cannot be given to workers.
    Exception
        That of the first task that failed.

    Examples
    --------
    >>> farm.map(abs, [-3, 4])
    [3, 4]
    """
    check_not_importing("farm.map")
    with tempfile.TemporaryDirectory(prefix="anyrank-farm-") as temporary:
        folder = Path(out) if out is not None else Path(temporary, "run")
        records = _run(function, inputs, folder, ranks, options)
    outcomes = [(record.status, record.outcome()) for record in records]
    values = [outcome.value if status == DONE else exception_of(outcome) for status, outcome in outcomes]
    errors = [value for value, (status, _) in zip(values, outcomes, strict=True) if status != DONE]
    if errors and not return_exceptions:
        raise errors[0]
    return values


def _run(
    function: Callable[..., Any], inputs: Sequence[Iterable[Any]], folder: Path, ranks: int, options: dict[str, Any]
) -> list[Record]:
    """Run a farm in a folder and return the records of all tasks."""
    kept = folder.parent / f".{folder.name}-inputs"
    kept.mkdir(parents=True, exist_ok=True)
    table, new = kept / f"inputs{PICKLED}", kept / f"new{PICKLED}"
    count = write_blocks(new, zip(*inputs, strict=False))
    if not (folder.exists() and table.exists()):
        new.replace(table)
        new.with_suffix(".offsets").replace(table.with_suffix(".offsets"))
    elif not _same(new, table):
        raise UsageError(f"the inputs are not those that the run in {folder} began with. Use another `out`.")
    of_run = {name: options.pop(name) for name in _OF_RUN if name in options}
    options["shared"] = _shared(function, len(inputs), options.pop("shared", {}), kept, folder)
    program = Farm(function=_source(function, kept), table=str(table), **{"formats": "jsonl", **options})
    try:
        run(program, ranks=ranks, out=folder, **of_run)
    except UsageError:
        raise
    except AnyrankError:  # of tasks that have failed: their exceptions follow
        pass
    records = read_last(folder / "records") if (folder / "records").is_dir() else {}
    if len(records) < count:
        raise AnyrankError(f"{count - len(records)} of {count} tasks have no result; see {folder / 'log'}.")
    return [records[index] for index in range(count)]


def _same(new: Path, old: Path) -> bool:
    """Return whether two files have the same inputs; equal values may be pickled to different bytes."""
    if filecmp.cmp(new, old, shallow=False):
        return True
    with new.open("rb") as one, old.open("rb") as other, suppress(ValueError):  # arrays that differ have no truth value
        return all(a == b for a, b in zip_longest(_blocks(one), _blocks(other)))
    return False


def _blocks(file: BinaryIO) -> Iterator[Any]:
    with suppress(EOFError):
        while True:
            yield pickle.load(file)


def _shared(function: Callable[..., Any], given: int, shared: Mapping[str, Any], folder: Path, run: Path) -> list[str]:
    """Write the shared arrays, and return them as `anyrank farm` names them."""
    with suppress(ValueError, TypeError):
        for name in [*inspect.signature(function).parameters][:given]:
            if name in shared:
                raise UsageError(f"shared {name!r} is a parameter for the inputs. Make it a later one.")
    files = {name: folder / f"shared-{name}.npy" for name in shared}
    for name, path in files.items():
        np.save(new := folder / "new.npy", shared[name])
        if run.exists() and path.exists() and not filecmp.cmp(new, path, shallow=False):
            raise UsageError(f"the array {name!r} is not the one that the run began with. Use another `out`.")
        new.replace(path)
    return [f"{name}={path}" for name, path in files.items()]


def _source(function: Callable[..., Any], folder: Path) -> str:
    """Return the function as FILE.py:NAME, or as a file in which it is pickled."""
    if not callable(function):
        raise UsageError(f"{function!r} is not a function. Give a function.")
    name = getattr(function, "__qualname__", "")
    with suppress(TypeError, OSError):
        file = Path(inspect.getfile(function)).resolve()
        if name.isidentifier() and file.suffix == ".py" and file.is_file():
            return f"{file}:{name}"
    path = folder / f"function{PICKLED}"
    try:
        path.write_bytes(dumps(function))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(f"{function!r} cannot be given to workers ({error}). Put it in a file.") from None
    return str(path)
