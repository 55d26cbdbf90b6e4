"""The farm: a function or a command for each row of a table, on all ranks."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from anyrank.errors import AnyrankError, UsageError, at, of_all_ranks
from anyrank.farm import calls
from anyrank.farm.feeder import Feeder, Plan, Policy
from anyrank.farm.inputs import Inputs, Source
from anyrank.farm.journal import Records
from anyrank.farm.results import Results
from anyrank.farm.tasks import DONE, STATUSES
from anyrank.farm.tickets import Tickets
from anyrank.farm.worker import Item, Job
from anyrank.keyed.files import absolute, check_unchanged
from anyrank.keyed.tables.options import CsvParameters
from anyrank.program import Program, param, validate
from anyrank.runtime.callback import Callback
from anyrank.runtime.programs import load
from anyrank.runtime.user_files import absolute as absolute_source
from anyrank.state import State
from anyrank.world import World

#: Seconds of the first step and of the longest one: a step is a part of the time, after which a run can stop. Each step
#: takes milliseconds of a core from the workers, because ranks that wait for each other do not sleep.
FIRST, LONGEST = 0.02, 1.0
#: Seconds between two waits until records are on the disk.
SYNC_EVERY = 5.0
#: The most entries of the queue for tasks that another rank tries again.
QUEUE = 1 << 16


class Farm(CsvParameters, Program):
    """Call a function, or run a command, for each row of a table: independent tasks on all ranks.

    Each rank has a worker, a process of its own, so that no task can take a rank down: an exception, an exit, a crash,
    a task that hangs or fills the memory is one failed task. No rank is a master: tasks are taken one by one from a
    shared counter, several at a time if they are short. Results are kept as tasks end. A stopped or killed farm resumes
    with what is missing, on any number of ranks. When tasks have failed, the run ends with status 1, and `resume` tries
    them again.

    The table is CSV, Parquet, HDF5, .npy or JSON lines. The columns are the parameters of the function; other columns
    are left out. A command has {column} in place of values.

    The run folder gets results.csv, or the files of --formats: a row for each task in the order of the table, the same
    on any number of ranks; and tasks.csv: attempts, times, output and tracebacks.

        anyrank farm tasks.py:price -n 8 --table options.csv --out runs/prices
        anyrank farm -n 8 --command 'simulate --x {x}' --table params.csv --task-timeout 600 --attempts 3
    """

    name = "farm"
    function: str = param("", "function to call, FILE.py:NAME")
    command: str = param("", "command to run in place of a function, with {column} for values")
    program: str = param("", "program to run in place of a function, a name or FILE.py, with the columns as parameters")
    ranks_per_task: int = param(1, "ranks of each run of --program", ge=1)
    table: str = param(..., "files, folders and globs, separated by commas; a row is a task")
    prepare: str = param("", "function FILE.py:NAME without parameters, called once in each worker")
    id: str = param("", "column with the identifiers of tasks  [the row]")
    after: str = param("", "column with the identifiers of the tasks that must be done before, separated by spaces")
    cost: str = param("", "column with the expected length of tasks, in any unit: long tasks start first")
    attempts: int = param(1, "how often a task that fails is tried", ge=1, le=2**15)
    backoff: float = param(1.0, "seconds before the second attempt, doubled for each further one", ge=0)
    task_timeout: float = param(0.0, "seconds after which a task is ended  [never]", ge=0)
    task_memory: float = param(0.0, "MB of memory of a worker above which its task is ended  [no limit]", ge=0)
    expires: float = param(0.0, "seconds after the first start, after which no task starts  [never]", ge=0)
    max_failures: int = param(-1, "number of failed tasks above which the farm ends at once; -1: any", ge=-1)
    concurrency: int = param(1, "tasks of a rank at a time, in threads, or as coroutines of an async function", ge=1)
    per_second: float = param(0.0, "most tasks of all ranks that start in a second  [no limit]", ge=0)
    seed: int = param(0, "seed of farm.task().random")
    formats: list[Literal["csv", "jsonl", "hdf5", "parquet"]] = param(["csv"], "files with the results")

    def check(self) -> None:
        """Check the function or the command, and make paths absolute, so that the run can be resumed in any folder."""
        if sum(map(bool, (self.function, self.command, self.program))) != 1:
            raise UsageError("farm: give one of a function (FILE.py:NAME), --command and --program.")
        if self.ranks_per_task > 1 and not self.program:
            raise UsageError(f"--ranks-per-task {self.ranks_per_task} is for --program only. Omit it.")
        self.table = absolute(self.table)
        for name in ("function", "prepare"):
            if source := getattr(self, name):
                setattr(self, name, absolute_source(source))
                calls.load_function(source)
        if self.command:
            calls.fields_of(self.command)
        if self.program:
            self.program = absolute_source(self.program)
            load(self.program)
        self.stated_types, self.options = self.csv_types(), self.csv_options()

    def declare(self, state: State) -> None:
        """Open the table; declare the numbers of tasks, the digest of their results, and a hash of the table."""
        if state.folder is None:
            raise of_all_ranks(UsageError("farm: a farm needs a run folder."))
        self._folder = state.folder
        options = {"on_bad": self.on_bad, "types": self.stated_types, "options": self.options}
        self._source = Source(self.table, state.world, options)
        with state.world.raise_on_all_ranks():
            self._check_columns(self._source.columns)
        state.scalar("tasks", 0, description="tasks")
        state.scalar("ended", 0, description="tasks that have ended")
        state.scalar("failed", 0, description="tasks that have failed")
        state.scalar("results", 0, description="digest of the results")
        state.scalar("input", self._source.fingerprint, description="hash of the files' names and sizes")

    def _check_columns(self, columns: list[str]) -> None:
        for name in ("id", "after", "cost"):
            if (column := getattr(self, name)) and column not in columns:
                raise UsageError(f"--{name} {column} is not a column of the table: they are {', '.join(columns)}.")
        if self.after and not self.id:
            raise UsageError(f"--after {self.after} needs --id: the column with the identifiers of the tasks.")
        if self.program:
            self._check_parameters(columns)
        elif self.command:
            calls.check_command(self.command, columns)
        elif columns:
            calls.check_columns(calls.load_function(self.function), columns)

    def _check_parameters(self, columns: list[str]) -> None:
        """Raise UsageError if a column is not a parameter of the program, or a row has a wrong value."""
        program = load(self.program)
        for name in self._own(columns):
            if name not in program.declared():
                names = ", ".join(program.declared())
                raise UsageError(
                    f"column {name!r} of the table is not a parameter of {program.name}: they are {names}."
                )

    def _own(self, names: Iterable[str]) -> list[str]:
        """Return the columns that are for the tasks, and not those that --id, --after and --cost name."""
        return [name for name in names if name not in (self.id, self.after, self.cost)]

    def _check_rows(self) -> None:
        """Raise UsageError if a row has a value that the program refuses."""
        program = load(self.program)
        for index in range(self.inputs.rows):
            [row] = self.inputs.rows_of([index])
            with at(f"row {index} (from 0) of the table"):
                validate(program, {name: row[name] for name in self._own(row) if row[name] is not None}, "{} =".format)

    def _ids(self) -> Iterator[str]:
        return map(str, self.inputs.column(self.id))

    def _check_ids(self) -> None:
        """Raise UsageError if two tasks have the same identifier. Only those with the same hash are kept in memory."""
        hashes = np.sort(np.fromiter(map(hash, self._ids()), np.int64))
        several = {*hashes[1:][hashes[1:] == hashes[:-1]].tolist()}
        seen: dict[str, int] = {}
        for row, name in enumerate(self._ids() if several else ()):
            if name in seen:
                raise UsageError(
                    f"--id {self.id}: {name!r} is in rows {seen[name]} and {row} of the table (from 0). Identifiers "
                    "must differ."
                )
            if hash(name) in several:
                seen[name] = row

    def _read_needs(self) -> list[tuple[int, int]]:
        """Return the tasks and those that they need. Raises UsageError for unknown ones, and for a cycle."""
        ids = [*self._ids()]
        rows = {name: row for row, name in enumerate(ids)}
        needs = []
        for row, text in enumerate(self.inputs.column(self.after)):
            names = text if isinstance(text, list) else str(text or "").split()
            for name in dict.fromkeys(map(str, names)):
                if name not in rows:
                    raise UsageError(f"--after {self.after}: {ids[row]} needs {name!r}, which is no task.")
                needs.append((row, rows[name]))
        if cycle := find_cycle(needs):
            path = " needs ".join(ids[row] for row in cycle)
            raise UsageError(f"--after {self.after}: {path}, which is a cycle. Remove one of these.")
        return needs

    def _read_cost(self) -> np.ndarray:
        cost = [*self.inputs.column(self.cost)]
        for row, value in enumerate(cost):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise UsageError(f"--cost {self.cost}: {value!r} in row {row} (from 0) is not a number. Correct it.")
        return np.array(cost, np.float64)

    def _check_folders(self) -> None:
        """Raise UsageError if an identifier cannot be the name of a run folder."""
        for name in self._ids() if self.id else ():
            if not re.fullmatch(r"[^/\0]{1,200}", name) or name in (".", ".."):
                raise UsageError(f"--id {self.id}: {name!r} cannot be the name of a run folder. Use another column.")

    def items(self, tasks: Sequence[tuple[int, int]]) -> list[Item]:
        """Return tasks, given by index and attempt, as they are sent to a worker."""
        rows = self.inputs.rows_of([index for index, _ in tasks])
        ids = [str(row.get(self.id)) for row in rows] if self.id else [str(index) for index, _ in tasks]
        if self.program:
            rows = [{name: row[name] for name in self._own(row)} for row in rows]
        return [Item(index, attempt, id, row) for (index, attempt), id, row in zip(tasks, ids, rows, strict=True)]

    def constants(self, state: State) -> None:
        """Read which tasks are done, and begin with the others."""
        world = state.world
        check_unchanged("table's files", self._source.fingerprint, state.input)
        self.inputs = Inputs(self._folder / "inputs", self._source, world)
        state.tasks = self.inputs.rows
        self._needs: list[tuple[int, int]] = []
        cost: np.ndarray | None = None
        with world.raise_on_all_ranks():
            if self.id:
                self._check_ids()
            self._needs = self._read_needs() if self.after else []
            cost = self._read_cost() if self.cost else None
            if self.program:
                self._check_rows()
                self._check_folders()
        self.records = Records(self._folder / "records", world)
        done = self.records.scan(self.inputs.rows)
        plan = Plan(~done, cost, self._needs)
        self._first = int(done.sum())
        began = world.on_root(lambda: began_at(self._folder / "inputs"))
        policy = Policy(
            self.attempts,
            self.backoff,
            self.task_timeout or math.inf,
            self.task_memory * 1e6 or math.inf,
            began + self.expires if self.expires else math.inf,
            math.inf if self.max_failures < 0 else self.max_failures,
        )
        tickets = Tickets(world, len(self._needs) + QUEUE, plan.needs)
        log = self._folder / "log" / f"worker-{world.rank:04}.log"
        self.feeder = Feeder(
            plan, self.items, self.records, tickets, self._job(world.size), policy, log, world.size, self._active(world)
        )
        self._length, self._synced, self._written = FIRST, time.monotonic(), False
        self._ended = self._steps = 0

    def _active(self, world: World) -> bool:
        """Return whether this rank starts tasks: one in `ranks_per_task` ranks of a node. Collective."""
        each = self.ranks_per_task
        complete = world.node_size // each * each
        active = world.node_rank < complete and world.node_rank % each == 0
        if world.all(not active):
            raise of_all_ranks(
                UsageError(f"--ranks-per-task {each}, but no node has so many ranks. Use more ranks, at least {each}.")
            )
        return active

    def _job(self, ranks: int) -> Job:
        import sys

        pickled = b""
        interval = ranks / self.per_second if self.per_second else 0.0
        key = hashlib.blake2b(str(self._folder.resolve()).encode(), digest_size=8).hexdigest()
        return Job(
            self.function,
            self.command,
            self.program,
            self.ranks_per_task,
            str(self._folder / "runs"),
            self.prepare,
            pickled,
            sys.path,
            self.seed,
            self.concurrency,
            interval,
            self.task_timeout,
            key,
        )

    def step(self, state: State) -> None:
        """Work on tasks for a part of a second; when all have ended, write the results."""
        feeder = self.feeder
        with state.world.raise_on_all_ranks(OSError, AnyrankError):
            feeder.work(time.monotonic() + self._length)
        self._length = min(1.5 * self._length, LONGEST)
        if time.monotonic() - self._synced > SYNC_EVERY:
            self.records.sync()
            self._synced = time.monotonic()
        ended, failed = state.world.allreduce(np.array([feeder.ended, feeder.failed], np.int64)).tolist()
        state.ended, state.failed = self._first + ended, failed
        self._ended, self._steps = ended, self._steps + 1
        if 0 <= self.max_failures < failed:
            raise of_all_ranks(
                AnyrankError(
                    f"{failed} tasks have failed, more than --max-failures {self.max_failures}. `resume` tries them "
                    f"again; {self._folder / 'log'} has the logs of the workers."
                )
            )
        if state.ended == state.tasks:
            self._write(state)

    def _write(self, state: State) -> None:
        """Write the results. Collective."""
        self.feeder.close()
        self.records.sync()
        results = Results(self.records, state.world, self.inputs, self.id)
        results.write(self._folder, self.formats)
        self._totals = results.totals()
        state.results = int(np.array([self._totals.digest], np.uint64).view(np.int64)[0])
        state.failed = sum(self._totals.by_status) - self._totals.by_status[DONE]
        self._written = True

    def done(self, state: State) -> bool:
        """Return whether all tasks have ended."""
        return self._written or (state.tasks == 0 and state.step > 0)

    def result(self, state: State) -> dict[str, Any]:
        """Return the number of tasks by status. Raises AnyrankError if a task has failed."""
        counts = {name: n for name, n in zip(STATUSES, self._totals.by_status, strict=True) if n}
        if state.failed:
            lines = "\n".join(self._totals.first_errors)
            raise of_all_ranks(
                AnyrankError(
                    f"{state.failed} of {state.tasks} tasks have failed; the others are done, and all results are in "
                    f"{self._folder}. `anyrank resume {self._folder}` tries the failed ones again.\n{lines}"
                )
            )
        return {"tasks": state.tasks, **counts}

    def callbacks(self) -> Sequence[Callback]:
        """Return the callback that ends the worker at the end of the run."""
        return [_End(self)]

    def work(self) -> tuple[float, str]:
        """Return the mean number of tasks in a step."""
        steps = getattr(self, "_steps", 0)
        return self._ended / steps if steps else 1.0, "tasks"

    def progress(self, state: State) -> tuple[int, int, str]:
        """Return the number of tasks that have ended, and of all."""
        return state.ended, state.tasks, "task"


class _End(Callback):
    """Ends the worker, and frees the counters."""

    def __init__(self, program: Farm):
        self._program = program

    def on_end(self, state: State) -> None:
        """See `Callback`."""
        self._program.feeder.close()
        self._program.feeder.tickets.close()

    def close(self) -> None:
        """See `Callback`."""
        if hasattr(self._program, "feeder"):
            self._program.feeder.close()


def began_at(folder: Path) -> float:
    """Return the time at which the farm was first started."""
    file = folder / "began.json"
    if not file.exists():
        file.write_text(json.dumps(time.time()), encoding="utf-8")
    return float(json.loads(file.read_text(encoding="utf-8")))


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
