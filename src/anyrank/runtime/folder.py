"""The run folder: the parameters, checkpoints, events, logs and results of exactly one run."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import pydantic
import tomli_w

from anyrank.declaration import Settings
from anyrank.errors import UsageError
from anyrank.program import flag_of
from anyrank.runtime.children import never_inherit
from anyrank.runtime.options import Options
from anyrank.runtime.programs import available_programs
from anyrank.runtime.user_files import absolute, is_file, split_source
from anyrank.storage import checkpoint_folder
from anyrank.storage.durable import sync_folder, temporary_of, write_atomically
from anyrank.storage.format import newest_valid
from anyrank.toml import read_toml
from anyrank.values import has_grown

FORMAT = 1
#: The environment variable with the seconds to wait for the lock of a run that is about to end, and the default.
LOCK_PATIENCE, PATIENCE = "ANYRANK_LOCK_PATIENCE", 3.0


class Description(Settings):
    """The content of run.toml; a resumed run uses these options unless they are given again."""

    format: pydantic.PositiveInt
    program: str
    source: str
    parameters: dict[str, Any] = pydantic.Field(default_factory=dict)
    options: dict[str, Any] = pydantic.Field(default_factory=dict)
    #: The branches from which the run descends: see `anyrank.storage.branch.descent`.
    lineage: list[dict[str, Any]] = pydantic.Field(default_factory=list)


class RunFolder:
    """The paths of one run, and the small files that describe it. Only rank 0 writes them."""

    def __init__(self, path: Path):
        self.path = path
        self.description = path / "run.toml"
        self.inputs = path / "inputs.json"
        self.checkpoints = path / "checkpoints"
        self.log = path / "log"
        self.events = path / "events.jsonl"
        self.digests = path / "digests.jsonl"
        self.series = path / "series.csv"
        self.series_hdf5 = path / "series.h5"
        self.frames = path / "frames.nc"
        self.result = path / "result.json"
        self.summary = path / "summary.json"
        self.stop = path / "stop"
        #: How far the run is, as text, for runs whose steps say little.
        self.progress = path / "progress.txt"
        self._lock: IO[str] | None = None
        self._unregister: Callable[[], None] | None = None

    def describe(self) -> Description | None:
        """Read and check run.toml; None if there is no run, UsageError if the file cannot be used.

        If run.toml is missing, the newest valid checkpoint gives the program and its parameters, but no options. The
        source is empty if the checkpoint does not contain it.
        """
        path = self.description
        try:
            if not path.exists():
                return self._describe_by_checkpoint()
            if not path.is_file():  # reading a FIFO would never return
                raise OSError("it is not a file")
            content = read_toml(path)
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read ({error}). Repair it, or use another --out.") from None
        if isinstance(number := content.get("format"), int) and number > FORMAT:
            raise UsageError(f"{self.path} was made by a newer version of anyrank. Use that version, or another --out.")
        description = Description.read(content, str(path))
        Options.read(description.options, f"{path}: options")
        return description

    def _describe_by_checkpoint(self) -> Description | None:
        newest = newest_valid(self.checkpoints)
        if newest is None:
            return None
        identity, command = newest[1].identity, newest[1].provenance.get("command", "")
        program = identity.program
        source = program if program in available_programs() else _source_in(command)
        known: dict[str, Any] = {"parameters": identity.parameters, "lineage": identity.lineage}
        return Description(format=FORMAT, program=program, source=source, **known)

    def finished(self) -> dict[str, Any] | None:
        """Return the summary of a finished run; None if the run is not finished or the file is damaged."""
        if not self.summary.is_file():  # reading a FIFO would never return
            return None
        try:
            summary: dict[str, Any] = json.loads(self.summary.read_text(encoding="utf-8"))
            complete = summary["finished"] is True and {"steps", "digest"} <= set(summary)
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None
        return summary if complete else None

    def check(
        self, program: str, parameters: Mapping[str, Any], extendable: Collection[str] = (), extend: bool = False
    ) -> bool:
        """Return whether the folder holds this run; False if it is new or empty.

        `extend` allows larger values of the parameters that are `extendable`. Raises UsageError if the folder holds
        another run, or any other file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {self.path} is a file, not a folder. Use another --out.")
        description = self.describe()
        if description is None:
            foreign = self._foreign_files()
            if foreign:
                raise UsageError(f"--out {self.path} holds {foreign[0]} and no run. Use another --out.")
            return False
        if description.program != program:
            raise UsageError(
                f"--out {self.path} holds a run of {description.program!r}, not of {program!r}. Use another --out."
            )
        recorded = description.parameters
        for name in sorted(set(parameters) | set(recorded)):
            old, new = recorded.get(name), parameters.get(name)
            if new != old and not (extend and name in extendable and has_grown(old, new)):
                rule = _change_rule(name, old, new, extendable, extend, self.path)
                raise UsageError(f"--out {self.path} holds a run with {name} = {old!r}, not {new!r}: {rule}")
        return True

    def _foreign_files(self) -> list[str]:
        """Return the files in the folder that no run of anyrank leaves, even if it died before its first step."""
        if not self.path.is_dir():
            return []
        ours = {"log", "lock", "stop", self.events.name, temporary_of(self.description).name}
        if not any(self.checkpoints.glob("*")):
            ours.add(self.checkpoints.name)
        names = sorted(entry.name for entry in self.path.iterdir())
        return [name for name in names if name not in ours and not name.startswith(".failure-")]

    def create(
        self,
        program: str,
        source: str,
        parameters: Mapping[str, Any],
        options: Mapping[str, Any],
        lineage: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Make run.toml and then the folders, if they are missing. Raises OSError if that fails.

        If a run has lost its run.toml, print a message and write the file again from these arguments. The lineage of a
        branch is added to the run.toml of a run that was submitted and begins now.
        """
        known: dict[str, Any] = {"lineage": [*lineage]} if lineage else {}
        if not self.description.exists():
            if checkpoint_folder.checkpoint_files(self.checkpoints):
                print(
                    f"anyrank: {self.description} is missing: written again, with the parameters of the checkpoints. "
                    "Options that are not given have their defaults.",
                    file=sys.stderr,
                )
            text = {"format": FORMAT, "program": program, "source": source}
            content = {**text, "parameters": dict(parameters), "options": dict(options), **known}
            write_atomically(self.description, tomli_w.dumps(content))
        elif known and "lineage" not in (content := read_toml(self.description)):
            write_atomically(self.description, tomli_w.dumps({**content, **known}))
        for folder in (self.checkpoints, self.log):
            folder.mkdir(exist_ok=True)
        sync_folder(self.path)
        sync_folder(self.path.parent)

    def update(self, parameters: Mapping[str, Any], observe_every: int | None) -> None:
        """Write larger values of parameters, and the interval of the series, into run.toml. Raises OSError.

        Only a run that holds the lock of the folder calls it.
        """
        description = self.describe()
        if description is None:
            return
        interval = {} if observe_every is None else {"observe_every": observe_every}
        changes = {"parameters": dict(parameters), "options": {**description.options, **interval}}
        changed = description.model_copy(update=changes)
        if changed != description:
            write_atomically(self.description, tomli_w.dumps(changed.model_dump()))

    def keep_results(self, parameters: Mapping[str, Any]) -> None:
        """Keep the results of a finished run that continues with larger parameters, before `update`. Raises OSError.

        They get the names `summary-STEPS.json` and `result-STEPS.json`; the run is then no longer finished.
        """
        summary = self.finished()
        if summary is not None and summary.get("parameters") != parameters:
            for path in (self.result, self.summary):
                if path.exists():
                    path.replace(path.with_stem(f"{path.stem}-{summary['steps']}"))
            sync_folder(self.path)

    def extend(self, parameters: Mapping[str, Any]) -> None:
        """Give the run larger parameters, which `check` has allowed; jobs continue with them. Raises UsageError."""
        self.lock()
        try:
            self.keep_results(parameters)
            self.update(parameters, None)
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written ({error.strerror}). Correct that.") from None
        finally:
            self.unlock()

    def extends(self, parameters: Mapping[str, Any]) -> bool:
        """Return whether the folder holds a run with other parameters."""
        description = self.describe()
        return description is not None and description.parameters != parameters

    def lock(self) -> None:
        """Make the folder, and lock it until this process ends; UsageError if another live run holds the lock.

        The kernel (flock) releases the lock of a killed run. A file system without locks cannot detect two runs in one
        folder. Raises OSError if the folder cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        file = (self.path / "lock").open("a+", encoding="utf-8")
        deadline = time.monotonic() + float(os.environ.get(LOCK_PATIENCE, PATIENCE))
        while not _locked(file):
            if time.monotonic() > deadline:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                file.close()
                raise UsageError(
                    f"--out {self.path} is in use by a live run ({holder}). Wait for it, stop it, or use another --out."
                )
            time.sleep(0.05)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        self._lock = file
        self._unregister = never_inherit(file.close)  # the lock is free when no process has the file open

    def unlock(self) -> None:
        """Release the lock."""
        if self._unregister is not None:
            self._unregister()
            self._unregister = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json."""
        write_atomically(self.result, json.dumps(plain(result), indent=2) + "\n")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json."""
        write_atomically(self.summary, json.dumps(summary, indent=2) + "\n")


def _change_rule(name: str, old: Any, new: Any, extendable: Collection[str], extend: bool, path: Path) -> str:
    """Return why a parameter of a run cannot change from `old` to `new`, and what to do instead."""
    if name in extendable and has_grown(old, new):
        return (
            f"the parameters of a run cannot change. Extend it with: anyrank resume {path} {flag_of(name)} {new} (in "
            "Python, extend=True). Or use another --out."
        )
    if name in extendable and extend:
        return f"{name} can only grow. Use {old!r} or more, or another --out."
    if extend:
        which = f"only {' and '.join(sorted(extendable))} may grow" if extendable else "no parameter of it may change"
        return f"{which} at a resume. Omit it, or start a new run with another --out."
    return "the parameters of a run cannot change. Use another --out."


def _source_in(command: str) -> str:
    """Return the absolute program file in a command line; empty if there is none or it does not exist."""
    with suppress(ValueError):
        match shlex.split(command):
            case [_, "run", source, *_] if is_file(source) and Path(split_source(source)[0]).is_file():
                return absolute(source)
    return ""


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # this file system has no locks
        pass
    return True


def plain(value: Any) -> Any:
    """Convert a value for JSON: NumPy numbers and arrays to Python's, numbers that are not finite to text."""
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | None) else str(value)
