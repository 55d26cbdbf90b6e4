"""The interface to batch schedulers: submit scripts, query and end jobs. One subclass per scheduler."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from anyrank.errors import AnyrankError, UsageError

#: The states of a job for all schedulers; `NEVER`: it waits for a job that failed.
WAITING, RUNNING, ENDED, NEVER = "waiting", "running", "ended", "never"
#: Seconds that a scheduler's command may take.
_TIMEOUT = 120


@dataclass(frozen=True)
class JobState:
    """The state of a job, and the reason in the scheduler's words."""

    state: str
    reason: str = ""


@dataclass(frozen=True)
class Job:
    """A submitted job: its folder (`job` in the run folder) and the scheduler's id."""

    folder: Path
    id: str


@dataclass(frozen=True)
class Node:
    """A script to submit for a run; `needs` are the runs that must end before it, `after` how they must end.

    In a chain, each link needs the link before it.
    """

    name: str
    run: str
    folder: Path
    context: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    after: str = "ok"


class Scheduler(ABC):
    """A batch system. Each subclass is registered by its `name`; names must differ."""

    name: ClassVar[str]
    #: The commands that it needs on this machine; the first one submits jobs.
    commands: ClassVar[tuple[str, ...]]
    #: The files that are written for a job, with their templates; the last one is submitted.
    files: ClassVar[dict[str, str]]
    #: The files that are written once for several related jobs.
    shared_files: ClassVar[dict[str, str]] = {}
    known: ClassVar[dict[str, type[Scheduler]]] = {}

    def __init_subclass__(cls) -> None:
        if cls.name in cls.known:
            raise TypeError(f"two schedulers are called {cls.name}")
        cls.known[cls.name] = cls

    def paths(self, folder: Path, array: bool) -> dict[Path, str]:
        """Return the files to write into a job's folder, with their templates."""
        return {folder / name: template for name, template in self.files.items()}

    def missing(self) -> str:
        """Return the first command that this machine lacks; empty if there is none."""
        return next((command for command in self.commands if not shutil.which(command)), "")

    def check(self, context: Mapping[str, Any]) -> None:  # noqa: B027  (most schedulers refuse nothing)
        """Raise UsageError for requests that this scheduler cannot fulfil."""

    def submit(self, nodes: Sequence[Node], folder: Path) -> dict[str, str]:
        """Submit scripts in order, with their dependencies; return the job ids by name.

        Shared files are in `folder`. Either all scripts are submitted or none: if one is refused (UsageError), or the
        user interrupts, the earlier jobs are cancelled.
        """
        ids: dict[str, str] = {}
        last: dict[str, str] = {}
        try:
            for node in nodes:
                ids[node.name] = last[node.run] = self._submit(node, [last[name] for name in node.needs])
            self._release(list(ids.values()))
        except BaseException:
            if ids:
                self.cancel([Job(node.folder, ids[node.name]) for node in nodes if node.name in ids])
            raise
        return ids

    @abstractmethod
    def _submit(self, node: Node, needs: Sequence[str]) -> str:
        """Submit one script that depends on the jobs `needs`; return its id."""

    def _release(self, ids: Sequence[str]) -> None:  # noqa: B027  (most schedulers hold no jobs)
        """Release jobs that were held until all were submitted."""

    @abstractmethod
    def task(self, job: str, position: int, point: int) -> str:
        """Return the id of the task of an array at a position, which runs a point."""

    @abstractmethod
    def job_states(self, jobs: Sequence[Job]) -> dict[Job, JobState]:
        """Return the states of these jobs; unknown jobs are missing in the result."""

    @abstractmethod
    def cancel(self, jobs: Sequence[Job], alone: bool = False) -> None:
        """End these jobs; ended ones are ignored. `alone`: all jobs belong to one run."""


def call(words: Sequence[str], folder: Path | None = None, harmless: str = "") -> str:
    """Run a scheduler's command and return its output; AnyrankError if it fails with a message not `harmless`."""
    try:
        done = subprocess.run(
            list(words),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
            timeout=_TIMEOUT,
            check=False,
            encoding="utf-8",
        )
    except subprocess.TimeoutExpired:
        raise AnyrankError(f"{words[0]} does not respond within {_TIMEOUT} s. Try again later.") from None
    except OSError as error:
        raise AnyrankError(f"{words[0]} cannot be run: {error.strerror}.") from None
    message = " ".join((done.stderr or done.stdout).split()) or f"status {done.returncode}"
    if done.returncode and not (harmless and re.search(harmless, message)):
        raise AnyrankError(f"{words[0]} failed: {message}")
    return done.stdout


def run_submit_command(words: Sequence[str], folder: Path) -> str:
    """Run a submit command and return its output; UsageError if the job is refused."""
    try:
        return call(words, folder)
    except AnyrankError as error:
        raise UsageError(f"{folder.parent} is not submitted: {error}. Fix that, and submit it again.") from None
