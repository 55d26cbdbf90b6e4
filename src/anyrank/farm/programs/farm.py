"""The farm: a function or a command for each row of a table, on all ranks."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from anyrank.errors import AnyrankError, UsageError, at, of_all_ranks
from anyrank.farm import calls, costs
from anyrank.farm.code import note_code
from anyrank.farm.counts import WriteCounts
from anyrank.farm.feeder import EndWorker, Feeder
from anyrank.farm.graph import read_needs
from anyrank.farm.inputs import MANIFEST, Inputs, Source, began_at, check_folders, check_ids
from anyrank.farm.journal import Records
from anyrank.farm.plan import Plan, Policy
from anyrank.farm.preview import preview
from anyrank.farm.results import Results
from anyrank.farm.shared import SharedInputs, parse
from anyrank.farm.streams import AsCompleted, Stream
from anyrank.farm.tasks import DONE, STATUSES
from anyrank.farm.tickets import Tickets
from anyrank.farm.worker import Item, Job
from anyrank.keyed.files import STDIN, absolute, check_unchanged
from anyrank.keyed.tables.options import CsvParameters
from anyrank.program import Program, param, validate
from anyrank.runtime.callback import Callback
from anyrank.runtime.programs import load
from anyrank.runtime.user_files import absolute as absolute_source
from anyrank.state import State
from anyrank.values import Seconds
from anyrank.world import World

#: Seconds of the first step and of the longest one: a step is a part of the time, after which a run can stop. Each step
#: takes milliseconds of a core from the workers, because ranks that wait for each other do not sleep.
FIRST, LONGEST = 0.02, 1.0
#: Seconds of a step, or of a wait for new tasks, while tasks arrive or somebody waits for their results.
SOON = 0.05
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
        anyrank farm -n 8 --command 'simulate --x {x}' --table params.csv --task-timeout 10min --attempts 3
    """

    branchable = False
    name = "farm"
    _argument = "function"
    function: str = param("", "function to call, FILE.py:NAME")
    command: str = param("", "command to run in place of a function, with {column} for values")
    program: str = param("", "program to run in place of a function, a name or FILE.py, with the columns as parameters")
    ranks_per_task: int = param(1, "ranks of each run of --program", ge=1)
    table: str = param(..., "files, folders and globs, separated by commas; a row is a task; -: standard input")
    follow: Seconds = param(0.0, "time to wait for more lines of the table, JSON lines, after the last one", ge=0)
    prepare: str = param("", "function FILE.py:NAME without parameters, called once in each worker")
    shared: list[str] = param([], "NAME=FILE.npy, FILE.h5:/DATASET or FILE.py:NAME: arrays for all tasks, once a node")
    id: str = param("", "column with the identifiers of tasks  [the row]")
    after: str = param("", "column with the tasks, or groups, that must be done before, separated by spaces")
    group: str = param("", "column with the names of groups, for --after")
    cost: str = param("", "column with the expected length of tasks, in any unit: long tasks start first")
    cost_from: str = param("", "run folder of an earlier farm, whose times are the expected length of tasks")
    attempts: int = param(1, "how often a task that fails is tried", ge=1, le=2**15)
    backoff: Seconds = param(1.0, "time before the second attempt, doubled for each further one", ge=0)
    task_timeout: Seconds = param(0.0, "time after which a task is ended  [never]", ge=0)
    task_memory: float = param(0.0, "MB of memory of a worker above which its task is ended  [no limit]", ge=0)
    expires: Seconds = param(0.0, "time after the first start, after which no task starts  [never]", ge=0)
    max_failures: int = param(-1, "number of failed tasks above which the farm ends at once; -1: any", ge=-1)
    concurrency: int = param(1, "tasks of a rank at a time, in threads, or as coroutines of an async function", ge=1)
    per_second: float = param(0.0, "most tasks of all ranks that start in a second  [no limit]", ge=0)
    seed: int = param(0, "seed of farm.task().random")
    formats: list[Literal["csv", "jsonl", "hdf5", "parquet"]] = param(["csv"], "files with the results")
    as_completed: str = param("", "file that gets a line of JSON when a task ends; -: standard output  [none]")

    def check(self) -> None:
        """Check the function or the command, and make paths absolute, so that the run can be resumed in any folder."""
        if sum(map(bool, (self.function, self.command, self.program))) != 1:
            raise UsageError("farm: give one of a function (FILE.py:NAME), --command and --program.")
        if self.ranks_per_task > 1 and not self.program:
            raise UsageError(f"--ranks-per-task {self.ranks_per_task} is for --program only. Omit it.")
        if self.shared and not self.function:
            raise UsageError(f"--shared {self.shared[0]} is for parameters of a function only. Omit it.")
        if self.cost and self.cost_from:
            raise UsageError(f"--cost {self.cost} and --cost-from {self.cost_from} exclude each other. Omit one.")
        self.cost_from = self.cost_from and str(Path(self.cost_from).absolute())
        self._sources = parse(self.shared)
        self.shared = [f"{name}={source}" for name, source in self._sources.items()]
        self.table = absolute(self.table)
        self.as_completed = self.as_completed and absolute(self.as_completed)
        whole = [name for name in ("program", "after", "cost", "cost_from") if getattr(self, name)]
        if whole and self._is_stream:
            raise UsageError(f"--{whole[0].replace('_', '-')} needs all tasks at the begin. Save the table to a file.")
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
        self._known = self.open_table(state.world)
        state.scalar("tasks", 0, description="tasks")
        state.scalar("ended", 0, description="tasks that have ended")
        state.scalar("failed", 0, description="tasks that have failed")
        state.scalar("results", 0, description="digest of the results")
        state.scalar("input", self._known, description="hash of the files' names and sizes")

    def open_table(self, world: World) -> int:
        """Open the table and check its columns; return a hash of it. Collective."""
        if self._is_stream:
            with world.raise_on_all_ranks():
                if self.function:
                    calls.check_names(calls.load_function(self.function))
            return int.from_bytes(hashlib.blake2b(self.table.encode(), digest_size=7).digest(), "little")
        options = {"on_bad": self.on_bad, "types": self.stated_types, "options": self.options}
        self._source = Source(self.table, world, options)
        with world.raise_on_all_ranks():
            self._check_columns(self._source.columns)
        return self._source.fingerprint

    @property
    def _is_stream(self) -> bool:
        """Whether tasks arrive while the farm runs."""
        return self.table in STDIN or self.follow > 0

    def _check_columns(self, columns: list[str]) -> None:
        for name in ("id", "after", "group", "cost"):
            if (column := getattr(self, name)) and column not in columns:
                raise UsageError(f"--{name} {column} is not a column of the table: they are {', '.join(columns)}.")
        if self.group and not self.after:
            raise UsageError(f"--group {self.group} is for --after: the column with what a task needs. Add it.")
        if self.after and not self.id:
            raise UsageError(f"--after {self.after} needs --id: the column with the identifiers of the tasks.")
        if self.program:
            self._check_parameters(columns)
        elif self.command:
            calls.check_command(self.command, columns)
        elif columns or self.shared:
            calls.check_columns(calls.load_function(self.function), columns, self._sources)

    def _check_parameters(self, columns: list[str]) -> None:
        """Raise UsageError if a column is not a parameter of the program, or a row has a wrong value."""
        program = load(self.program)
        for name in self.own(dict.fromkeys(columns)):
            if name not in program.declared():
                names = ", ".join(program.declared())
                raise UsageError(
                    f"column {name!r} of the table is not a parameter of {program.name}: they are {names}."
                )

    def own(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns that are for the program, and not those that --id, --after, --group and --cost name."""
        return {k: value for k, value in row.items() if k not in (self.id, self.after, self.group, self.cost)}

    def _check_rows(self) -> None:
        """Raise UsageError if a row has a value that the program refuses."""
        program = load(self.program)
        for index in range(self.inputs.rows):
            [row] = self.inputs.rows_of([index])
            with at(f"row {index} (from 0) of the table"):
                validate(program, {k: value for k, value in self.own(row).items() if value is not None}, "{} =".format)

    def _ids(self) -> Iterator[str]:
        return map(str, self.inputs.column(self.id))

    def items(self, tasks: Sequence[tuple[int, int]]) -> list[Item]:
        """Return tasks, given by index and attempt, as they are sent to a worker."""
        rows = self.inputs.rows_of([index for index, _ in tasks])
        ids = [str(row.get(self.id)) for row in rows] if self.id else [str(index) for index, _ in tasks]
        if self.program:
            rows = [*map(self.own, rows)]
        items = [Item(index, attempt, id, row) for (index, attempt), id, row in zip(tasks, ids, rows, strict=True)]
        return [item._replace(needed=self._needed(item.task)) for item in items] if self._needs else items

    def _needed(self, index: int) -> dict[str, bytes]:
        """Return the identifiers and the encoded outcomes of the tasks that a task needs."""
        tickets, needed = self.feeder.tickets, self._needed_by.get(index, ())
        rows = self.inputs.rows_of(needed)
        places = {str(row[self.id]): tickets.place(task) for task, row in zip(needed, rows, strict=True)}
        return {name: self.records.body(place) for name, place in places.items() if place >= 0}

    def constants(self, state: State) -> None:
        """Read the inputs and which tasks are done, and begin with the others."""
        world = state.world
        check_unchanged("table's files", self._known, state.input)
        try:
            cost = self.read_inputs(self._folder / "inputs", world)
        except UsageError:
            if world.rank == 0 and not (self._folder / "records").exists():  # nothing is done: the table may change
                (self._folder / "inputs" / MANIFEST).unlink(missing_ok=True)
            raise
        state.tasks = self.inputs.rows
        self._start(cost, world)

    def read_inputs(self, folder: Path, world: World) -> np.ndarray | None:
        """Read and check the inputs of all tasks; return the expected length of each, if it is known. Collective."""
        self.inputs: Inputs | Stream
        if self._is_stream:
            self.inputs = Stream(folder, self.table, self.id, self.follow, self.on_bad == "skip", world)
        else:
            self.inputs = Inputs(folder, self._source, world)
        self._needs: list[tuple[int, int]] = []
        cost: np.ndarray | None = None
        with world.raise_on_all_ranks():
            if self.id and not self._is_stream:
                check_ids(lambda: self.inputs.column(self.id), self.id)
            if self.after:
                groups = self.inputs.column(self.group) if self.group else ()
                self._needs = read_needs([*self._ids()], groups, self.inputs.column(self.after), self.after)
            cost = costs.read_column(self.cost, self.inputs.column(self.cost)) if self.cost else None
            if self.program:
                self._check_rows()
                check_folders(self._ids() if self.id else (), self.id)
        if self.cost_from:
            ids = [*self._ids()] if self.id else []
            cost = world.on_root(lambda: costs.read_times(self.cost_from, ids, self.inputs.rows, folder))
        return cost

    def _start(self, cost: np.ndarray | None, world: World) -> None:
        """Read which tasks are done, and begin with the others. Collective."""
        self.records = Records(self._folder / "records", world)
        places = self.records.scan(self.inputs.rows)
        done = places >= 0
        self.shared_inputs = SharedInputs(self._sources, self._folder / "inputs", world)
        plan = Plan(~done, cost, self._needs)
        self._first = int(done.sum())
        note_code((self.function, self.prepare, self.program), self._folder / "inputs", self._first, world)
        began = world.on_root(lambda: began_at(self._folder / "inputs"))
        policy = Policy(
            self.attempts,
            self.backoff,
            self.task_timeout or math.inf,
            self.task_memory * 1e6 or math.inf,
            began + self.expires if self.expires else math.inf,
            math.inf if self.max_failures < 0 else self.max_failures,
        )
        self._needed_by: dict[int, list[int]] = {}
        for task, needed in self._needs:
            self._needed_by.setdefault(task, []).append(needed)
        tickets = Tickets(world, len(self._needs) + QUEUE, plan.needs, places if self._needs else None)
        job, active = self._job(world), self._active(world)
        self.feeder = Feeder(plan, self.items, self.records, tickets, job, policy, active, self._is_stream)
        if self.as_completed:
            self.feeder.fresh = []
            self._output = AsCompleted(self.as_completed, self.inputs, self.id, self.records, places)
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

    def _job(self, world: World) -> Job:
        return Job(
            log=str(self._folder / "log" / f"worker-{world.rank:04}.log"),
            path=sys.path,
            function=self.function,
            command=self.command,
            program=self.program,
            ranks=self.ranks_per_task,
            runs=str(self._folder / "runs"),
            prepare=self.prepare,
            shared=self.shared_inputs.arrays,
            seed=self.seed,
            concurrency=self.concurrency,
            interval=world.size / self.per_second if self.per_second else 0.0,
            timeout=self.task_timeout,
            key=hashlib.blake2b(str(self._folder.resolve()).encode(), digest_size=8).hexdigest(),
        )

    def step(self, state: State) -> None:
        """Work on tasks for a part of a second; when all have ended, write the results."""
        try:
            self._advance(state)
        except AnyrankError as error:
            if error.collective:  # all ranks are here
                self.feeder.close()
                self.feeder.tickets.close()
            raise

    def _advance(self, state: State) -> None:
        """Do what `step` says. Collective."""
        feeder, inputs = self.feeder, self.inputs
        if isinstance(inputs, Stream):
            inputs.receive(SOON if state.ended == state.tasks else 0.0)
            feeder.plan.extend(inputs.rows)
            state.tasks = inputs.rows
        with state.world.raise_on_all_ranks(OSError, AnyrankError):
            feeder.work(time.monotonic() + self._length)
            if time.monotonic() - self._synced > SYNC_EVERY:
                self.records.sync()
                self._synced = time.monotonic()
        if self.as_completed:
            self._output.write(feeder.fresh or ())
            feeder.fresh = []
        self._length = min(1.5 * self._length, SOON if self._is_stream or self.as_completed else LONGEST)
        ended, failed = state.world.allreduce(np.array([feeder.ended, feeder.failed], np.int64)).tolist()
        state.ended, state.failed = self._first + ended, failed
        self._ended, self._steps = ended, self._steps + 1
        if 0 <= self.max_failures < failed:
            first = min(state.world.comm.allgather(feeder.first_failure))[1]
            raise of_all_ranks(
                AnyrankError(
                    f"{failed} tasks have failed, more than --max-failures {self.max_failures}. `resume` tries them "
                    f"again; {self._folder / 'log'} has the logs of the workers. The first one:\ntask {first}"
                )
            )
        if state.ended == state.tasks and not inputs.open:
            self._write(state)

    def _write(self, state: State) -> None:
        """Write the results. Collective."""
        with state.world.raise_on_all_ranks(OSError):
            self.records.sync()
            self.feeder.close()
        results = Results(self.records, state.world, self.inputs, self.id)
        results.write(self._folder, self.formats)
        self._totals = results.totals()
        state.results = int(np.array([self._totals.digest], np.uint64).view(np.int64)[0])
        state.failed = sum(self._totals.by_status) - self._totals.by_status[DONE]
        self._written = True

    def done(self, state: State) -> bool:
        """Return whether all tasks have ended."""
        return self._written or (state.tasks == 0 and state.step > 0 and not self.inputs.open)

    def result(self, state: State) -> dict[str, Any]:
        """Return the number of tasks by status. Raises AnyrankError if a task has failed."""
        counts = {name: n for name, n in zip(STATUSES, self._totals.by_status, strict=True) if n}
        if state.failed:
            lines = "\n".join(self._totals.first_errors)
            others = " the others are done, and" if counts.get("done") else ""
            failed = f"{state.failed} of {state.tasks} tasks have failed;{others} all results are in {self._folder}."
            again = f"`anyrank resume {self._folder}` tries the failed ones again.\n{lines}"
            raise of_all_ranks(AnyrankError(f"{failed} {again}"))
        bad = {"left_out": self.inputs.bad} if isinstance(self.inputs, Stream) and self.inputs.bad else {}
        return {"tasks": state.tasks, **counts, **bad}

    def callbacks(self) -> Sequence[Callback]:
        """Return the callbacks that end the worker at the end, and write the number of tasks for `status`."""
        return [EndWorker(self), WriteCounts(self._folder)]

    def _before_submission(self) -> None:
        """See `Program`: check the table, unless its tasks arrive later."""
        if not self._is_stream:
            self.preview()

    def preview(self) -> list[str]:
        """Check the table, and return the number of tasks and the first ones as text."""
        return preview(self)

    def work(self) -> tuple[float, str]:
        """Return the mean number of tasks in a step."""
        steps = getattr(self, "_steps", 0)
        return self._ended / steps if steps else 1.0, "tasks"

    def progress(self, state: State) -> tuple[int, int, str]:
        """Return the number of tasks that have ended, and of all."""
        return state.ended, state.tasks, "task"
