"""Start runs from Python, without a command line."""

from __future__ import annotations

import inspect
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from anyrank import launcher
from anyrank.errors import AnyrankError, UsageError
from anyrank.kernel import BODIES
from anyrank.output.series import Series
from anyrank.program import Program
from anyrank.runtime.branch import inherited, of_run
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.options import Options, option_words
from anyrank.runtime.programs import available_programs, load
from anyrank.runtime.run_fields import RunField, RunFields, import_xarray
from anyrank.storage import checkpoint_folder
from anyrank.storage.format import newest_valid
from anyrank.world import World, agree_to_begin

T = TypeVar("T")


def run(
    program: Program[Any] | Path | str,
    *,
    ranks: int | None = None,
    out: Path | str | None = None,
    extend: bool = False,
    **options: Any,
) -> Run:
    """Run a program and return the run.

    One rank runs in this process; mpiexec starts several ranks, which import the program's file. If this process is
    already one of several ranks (a script under mpiexec), the call is collective: all ranks must make it, `ranks` can
    only be their number, and rank 0 reads the run that all return. If `out` already holds this run, it is resumed, or
    only read if it is finished.

    Parameters
    ----------
    program : Program, path or str
        The program with its parameters: `Heat(n=64)`. Or a source as for `anyrank run`, with the default parameters:
        `"model/ocean.py"`, `"many.py:Heat"`, `"weather"`.
    ranks : int, optional
        The number of MPI ranks: by default 1, or the number of ranks that mpiexec has started.
    out : path, optional
        The run folder; by default a new one under `runs/`.
    extend : bool
        Whether the run in `out` may continue with larger values of its extendable parameters, such as more steps. By
        default any other value of a parameter is refused.
    **options
        The options of `anyrank run`, by name: `body="numba"`, `checkpoint_every="100"`, `stop_at=50`. By default,
        `quiet` is True, and there is no watchdog in this process.

    Returns
    -------
    Run
        The run with its summary, result, series and fields.

    Raises
    ------
    UsageError
        If an option, a parameter or the run folder is refused; on all ranks together.
    AnyrankError
        If the run fails. With one rank, an exception of the program is raised unchanged.

    Examples
    --------
    >>> from anyrank.programs.pi import Pi
    >>> run(Pi(points=1000), out="runs/small").result["hits"]
    801
    """
    settings, program = _on_all_ranks(lambda: _checked(program, ranks, options))
    folder = Path(out) if out is not None else new_folder(program.name)
    if launcher.tasks() > 1:
        return _run_here(program, folder, settings, extend)
    if settings.ranks == 1 and not settings.max_restarts and not settings.hosts:
        return _run_here(program, folder, settings.model_copy(update={"hang_timeout": "off"}), extend)
    return _run_under_mpiexec(program, folder, settings, options, extend)


def _checked(
    program: Program[Any] | Path | str, ranks: int | None, options: Mapping[str, Any]
) -> tuple[Options, Program]:
    """Check and return the options and the program of a run; UsageError if they are not valid."""
    started = launcher.tasks() if launcher.tasks() > 1 else 0
    if started and ranks not in (None, started):
        raise UsageError(f"ranks={ranks} but mpiexec has started {started} ranks. Omit ranks.")
    settings = Options.model_validate({"quiet": True, "ranks": (started or 1) if ranks is None else ranks, **options})
    return settings, _instance(program, settings.branch_from)


def _instance(program: Program[Any] | Path | str, branch_from: str) -> Program:
    """Return the program with its parameters; those of a branch that are not given are those of its origin."""
    if isinstance(program, Program):
        return of_run(program, branch_from) if branch_from else program
    loaded = load(str(program))
    return loaded(**inherited(loaded, branch_from)) if branch_from else loaded()


def _on_all_ranks(call: Callable[[], T]) -> T:
    """Return the call's value; if it raises on any rank, raise that on all ranks. Collective."""
    try:
        value = call()
    except Exception as error:
        if launcher.tasks() > 1:
            agree_to_begin(error)
        raise
    if launcher.tasks() > 1:
        agree_to_begin(None)
    return value


def new_folder(program: str) -> Path:
    """Return `runs/NAME-UTC time`, a new folder for every run."""
    return Path("runs") / f"{program}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{os.getpid()}"


def source_of(program: type[Program]) -> str:
    """Return the source of a program for `anyrank run`: its name or FILE.py:CLASS; empty if it is not in a file."""
    if program.__module__.startswith("anyrank.") and program.name in available_programs():
        return program.name
    try:
        file = Path(inspect.getfile(program)).resolve()
    except (TypeError, OSError):  # defined in an interactive session or a notebook
        return ""
    name = program.__qualname__
    return f"{file}:{name}" if name.isidentifier() and file.is_file() and file.suffix == ".py" else ""


def _run_here(program: Program, folder: Path, options: Options, extend: bool) -> Run:
    from anyrank.runtime.failure import report_and_abort
    from anyrank.runtime.session import Session

    world = World(check=options.check)
    folder, token = world.bcast((folder, f"{os.getpid()}-{time.time_ns()}"))
    command = f"anyrank.run({program.name})"
    session = Session(program, source_of(type(program)), world, folder, options, command, extend)
    try:
        session.execute()
        return world.on_root(lambda: Run(folder))
    except BaseException as error:
        if world.size > 1 and not getattr(error, "collective", False):  # other ranks may wait in a collective call
            report_and_abort(world, error, Path(tempfile.gettempdir()) / f"anyrank-failure-{token}")
        raise
    finally:
        if world.size == 1:
            session.watchdog.close()
            world.close()
            BODIES.prefer("auto")


def _run_under_mpiexec(program: Program, folder: Path, options: Options, given: Mapping[str, Any], extend: bool) -> Run:
    from anyrank.runtime.supervisor import Supervisor

    source = source_of(type(program))
    if not source:
        raise UsageError(
            f"ranks={options.ranks}: {type(program).__name__} must be in a Python file that other ranks can import. "
            "Move it into a file, or use ranks=1."
        )
    with tempfile.TemporaryDirectory(prefix="anyrank-") as temporary:
        parameters = Path(temporary) / "parameters.toml"
        parameters.write_text(tomli_w.dumps(program.parameters), encoding="utf-8")
        words = ["run", source, "--parameters", str(parameters), "--out", str(folder)]
        if extend and RunFolder(folder).describe() is not None:
            words = ["resume", str(folder), "--program", source, "--parameters", str(parameters)]
        words += option_words({"ranks": options.ranks, "quiet": options.quiet, **given})
        status = Supervisor(options, folder, words).run()
    if status not in (0, 75):
        kind = UsageError if status == 2 else AnyrankError
        raise kind(f"the run in {folder} ended with status {status}: the messages of its ranks are on standard error.")
    return Run(folder)


class Run:
    """The results of a run, read from its folder: finished, stopped or still running.

    Parameters
    ----------
    path : path
        The run folder.

    Attributes
    ----------
    path : Path
        The run folder.
    summary : dict
        The content of summary.json: `ranks`, `steps`, `digest`, `seconds`, `finished` … While the run has no summary of
        its newest checkpoint, it has only `program`, `parameters`, `steps`, `digest`, `lineage` and `finished`.
    result : dict
        The value of the program's `result`; empty if the run is not finished.
    series : Series
        The rows that the program's `observe` returned: NumPy arrays by column, `step` first, read on first access;
        `series.frame()` is the DataFrame. Empty without `observe`.
    fields : mapping
        The Fields of the last checkpoint by name, as NumPy arrays of the global shape; each is read on access.

    Raises
    ------
    UsageError
        If the folder holds neither a run that has ended nor a valid checkpoint.

    Examples
    --------
    >>> from anyrank.programs.pi import Pi
    >>> path = run(Pi(points=500), out="runs/smaller").path
    >>> Run(path).finished
    True
    """

    def __init__(self, path: Path | str):
        self._folder = RunFolder(Path(path))
        self.path = self._folder.path
        self.summary, checkpoint = self._read()
        self.result: dict[str, Any] = json.loads(self._folder.result.read_text("utf-8")) if self.finished else {}
        self.series = Series(self._folder.series)
        self.fields = RunFields(checkpoint)

    def _read(self) -> tuple[dict[str, Any], Path]:
        """Return the summary, and the file of the last checkpoint."""
        summary, reason, folder = dict[str, Any](), "", self._folder
        try:
            if folder.summary.exists() and not folder.summary.is_file():
                raise OSError("summary.json is not a file")
            summary = json.loads(folder.summary.read_text(encoding="utf-8"))
            steps, complete = summary["steps"], summary["finished"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            steps, complete, reason = -1, False, str(error)
        path = checkpoint_folder.path_of(folder.checkpoints, steps)
        newest = None if complete else newest_valid(folder.checkpoints)
        if newest is not None and newest[1].step > steps:
            path, header = newest
            known = {"program": header.identity.program, "parameters": header.identity.parameters}
            state = {"steps": header.step, "digest": header.digest, "lineage": header.identity.lineage}
            summary = {**known, **state, "finished": False}
        elif reason:
            raise UsageError(
                f"{self.path} holds no run that has ended, and no valid checkpoint ({reason}). Give a run folder."
            )
        return summary, path

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the run by name, as files have them."""
        return dict(self.summary["parameters"])

    @property
    def lineage(self) -> list[dict[str, Any]]:
        """The branches from which the run descends, the first one first; empty if it began with `setup`."""
        return list(self.summary.get("lineage", []))

    @property
    def finished(self) -> bool:
        """Whether the run is complete; one that was stopped is not."""
        return bool(self.summary["finished"])

    @property
    def digest(self) -> str:
        """The digest of the last state, 16 hexadecimal digits."""
        return str(self.summary["digest"])

    @property
    def frames(self) -> Any:
        """The frames of the run, `frames.nc`, as an `xarray.Dataset` that reads values on access."""
        path = self.path / "frames.nc"
        if not path.exists():
            raise UsageError(f"{self.path} has no frames. Run the program with --frames.")
        return import_xarray().open_dataset(path)

    def field(self, name: str) -> RunField:
        """Return a Field of the last checkpoint, of which an index reads a part: `run.field("T")[10:20]`.

        Parameters
        ----------
        name : str
            The name of the Field.

        Returns
        -------
        RunField
            The Field: `shape`, `dtype`, `dims`, `unit`, and `to_xarray()` for an `xarray.DataArray`.

        Raises
        ------
        KeyError
            If there is none of this name.
        """
        return self.fields.field(name)

    def __repr__(self) -> str:
        how = "finished" if self.finished else "stopped"
        return f"Run({str(self.path)!r}: {self.summary['program']}, {how} at step {self.summary['steps']})"


def open(path: Path | str) -> Run:
    """Return the run in a folder, for analysis: finished, stopped or still running.

    Parameters
    ----------
    path : path
        The run folder.

    Returns
    -------
    Run
        The run with its summary, parameters, lineage, result and fields.

    Raises
    ------
    UsageError
        If the folder holds neither a run that has ended nor a valid checkpoint.

    Examples
    --------
    >>> import anyrank
    >>> from anyrank.programs.pi import Pi
    >>> path = run(Pi(points=500), out="runs/opened").path
    >>> anyrank.open(path).parameters["points"]
    500
    """
    return Run(path)
