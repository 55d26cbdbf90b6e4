"""The run folder: one run's parameters, checkpoints, events, logs and results, and never two runs'."""

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
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import pydantic
import tomli_w

from anyrank.declaration import Table
from anyrank.errors import CheckpointError, UsageError
from anyrank.runtime.children import never_inherit
from anyrank.runtime.options import Options
from anyrank.runtime.programs import absolute, available, is_file, split_source
from anyrank.storage import keep
from anyrank.storage.durable import sync_folder, temporary_of, write_atomically
from anyrank.storage.format import read_header
from anyrank.toml import read_toml

FORMAT = 1
#: The environment variable that tells how long to wait for the lock of a run that is just dying, and the seconds else.
LOCK_PATIENCE, PATIENCE = "ANYRANK_LOCK_PATIENCE", 3.0


class Description(Table):
    """What run.toml says; the options are those that hold at resume unless they are given again."""

    format: pydantic.PositiveInt
    program: str
    source: str
    parameters: dict[str, Any] = pydantic.Field(default_factory=dict)
    options: dict[str, Any] = pydantic.Field(default_factory=dict)


class RunFolder:
    """The paths of one run, and the little files that describe it. Written by rank 0 alone."""

    def __init__(self, path: Path):
        self.path = path
        self.description = path / "run.toml"
        self.checkpoints = path / "checkpoints"
        self.log = path / "log"
        self.events = path / "events.jsonl"
        self.digests = path / "digests.jsonl"
        self.result = path / "result.json"
        self.summary = path / "summary.json"
        self.stop = path / "stop"
        self._lock: IO[str] | None = None
        self._forget: Callable[[], None] | None = None

    def describe(self) -> Description | None:
        """What run.toml says, checked; None where there is no run, UsageError where it cannot be used.

        Where run.toml is gone, the newest good checkpoint tells of the program and its parameters, not of options; the
        source is empty where it does not tell of that.
        """
        path = self.description
        try:
            if not path.exists():
                return self._describe_by_checkpoint()
            if not path.is_file():  # reading a FIFO would wait for ever
                raise OSError("it is not a file")
            found = read_toml(path)
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read ({error}). Mend it, or use another --out.") from None
        if isinstance(number := found.get("format"), int) and number > FORMAT:
            raise UsageError(f"{self.path} was made by a newer anyrank. Use that one, or another --out.")
        description = Description.read(found, str(path))
        Options.read(description.options, f"{path}: options")
        return description

    def _describe_by_checkpoint(self) -> Description | None:
        for path in keep.checkpoint_files(self.checkpoints):
            with suppress(CheckpointError):
                header = read_header(path)
                program, command = header.identity.program, header.provenance.get("command", "")
                source = program if program in available() else _source_in(command)
                return Description(format=FORMAT, program=program, source=source, parameters=header.identity.parameters)
        return None

    def finished(self) -> dict[str, Any] | None:
        """The summary of a finished run, None where the run is not finished, or the file is damaged."""
        try:
            summary: dict[str, Any] = json.loads(self.summary.read_text(encoding="utf-8"))
            whole = summary["finished"] is True and {"steps", "digest"} <= set(summary)
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None
        return summary if whole else None

    def check(self, program: str, parameters: Mapping[str, Any]) -> bool:
        """Whether the folder holds this very run; False where it is new or empty.

        Raises UsageError where it holds another run, or anything else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {self.path} is a file, not a folder. Use another --out.")
        description = self.describe()
        if description is None:
            strange = self._strangers()
            if strange:
                raise UsageError(f"--out {self.path} holds {strange[0]} and no run. Use another --out.")
            return False
        if description.program != program:
            raise UsageError(
                f"--out {self.path} holds a run of {description.program!r}, not of {program!r}. Use another --out."
            )
        theirs = description.parameters
        for name in sorted(set(parameters) | set(theirs)):
            if parameters.get(name) != theirs.get(name):
                raise UsageError(
                    f"--out {self.path} holds a run with {name} = {theirs.get(name)!r}, not "
                    f"{parameters.get(name)!r}: a run's parameters never change. Use another --out."
                )
        return True

    def _strangers(self) -> list[str]:
        """What lies in the folder and is not left of a run that died before it began."""
        if not self.path.is_dir():
            return []
        ours = {"log", "lock", "stop", self.events.name, temporary_of(self.description).name}
        if not any(self.checkpoints.glob("*")):
            ours.add(self.checkpoints.name)
        names = sorted(entry.name for entry in self.path.iterdir())
        return [name for name in names if name not in ours and not name.startswith(".failure-")]

    def create(self, program: str, source: str, parameters: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Make run.toml and then the folders, where they are not there. Raises OSError where it cannot.

        Where a run has lost its run.toml, it is told, and made from what the run goes on with.
        """
        if not self.description.exists():
            if keep.checkpoint_files(self.checkpoints):
                print(
                    f"anyrank: {self.description} is gone: made again, with the parameters of the checkpoints. Options "
                    "that are not given are the defaults.",
                    file=sys.stderr,
                )
            text = {"format": FORMAT, "program": program, "source": source}
            content = {**text, "parameters": dict(parameters), "options": dict(options)}
            write_atomically(self.description, tomli_w.dumps(content))
        for folder in (self.checkpoints, self.log):
            folder.mkdir(exist_ok=True)
        sync_folder(self.path)
        sync_folder(self.path.parent)

    def lock(self) -> None:
        """Make the folder, and keep other live runs out until this process ends; UsageError where one is in.

        The lock is the kernel's (flock), so a killed run leaves none behind. On a file system without locks
        there is none, and two runs in one folder are not noticed. Raises OSError where it cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        file = (self.path / "lock").open("a+", encoding="utf-8")
        give_up = time.monotonic() + float(os.environ.get(LOCK_PATIENCE, PATIENCE))
        while not _locked(file):
            if time.monotonic() > give_up:
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
        self._forget = never_inherit(file.close)  # a lock is free when the last process that has the file is gone

    def unlock(self) -> None:
        """Let others in."""
        if self._forget is not None:
            self._forget()
            self._forget = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json."""
        write_atomically(self.result, json.dumps(plain(result), indent=2) + "\n")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json."""
        write_atomically(self.summary, json.dumps(summary, indent=2) + "\n")


def _source_in(command: str) -> str:
    """The file of the program that a command has run, made absolute; empty where it tells of none that is there."""
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
    except OSError:  # there are no locks on this file system
        pass
    return True


def plain(value: Any) -> Any:
    """The value as JSON has it: NumPy's numbers and arrays as Python's, what is not finite as text."""
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | None) else str(value)
