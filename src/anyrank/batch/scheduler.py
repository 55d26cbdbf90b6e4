"""What every batch scheduler can do: take a script, tell of its jobs, end them. One subclass per scheduler."""

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

#: What a job may be doing, in words for every scheduler: `NEVER` waits for one that failed.
WAITING, RUNNING, ENDED, NEVER = "waiting", "running", "ended", "never"
#: Seconds that a scheduler's command may take.
_PATIENCE = 120


@dataclass(frozen=True)
class Seen:
    """What the scheduler says of a job: one of our states, and why in its own words."""

    state: str
    reason: str = ""


@dataclass(frozen=True)
class Job:
    """A job that was submitted: its folder (`job` in the run folder), and the scheduler's name for it."""

    folder: Path
    id: str


@dataclass(frozen=True)
class Node:
    """A script to submit, for a run, in its folder, after those it needs; `after` says how they must have ended.

    `needs` are runs: of a chain, the link before.
    """

    name: str
    run: str
    folder: Path
    context: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    after: str = "ok"


class Scheduler(ABC):
    """A batch system. A subclass is one, found by its `name`; names must differ."""

    name: ClassVar[str]
    #: The commands that it needs on this machine; the first one submits.
    commands: ClassVar[tuple[str, ...]]
    #: File names of what is written for a job, and their templates; the last one is what is submitted.
    files: ClassVar[dict[str, str]]
    #: And of what is written once for several jobs that belong together.
    joined: ClassVar[dict[str, str]] = {}
    known: ClassVar[dict[str, type[Scheduler]]] = {}

    def __init_subclass__(cls) -> None:
        if cls.name in cls.known:
            raise TypeError(f"two schedulers are called {cls.name}")
        cls.known[cls.name] = cls

    def paths(self, folder: Path, array: bool) -> dict[Path, str]:
        """What is written into a job's folder, and its templates, as `files` tells."""
        return {folder / name: template for name, template in self.files.items()}

    def missing(self) -> str:
        """The first command that this machine lacks, empty where all are there."""
        return next((command for command in self.commands if not shutil.which(command)), "")

    def check(self, context: Mapping[str, Any]) -> None:  # noqa: B027  (most can do everything)
        """Raise UsageError for what this scheduler cannot do."""

    def submit(self, nodes: Sequence[Node], folder: Path) -> dict[str, str]:
        """Submit scripts that lie in their folders, each after those before it that it needs; their ids by name.

        What is written for all of them lies in `folder`. All or none: where one is refused (UsageError), or
        the user interrupts, those before it are cancelled.
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
        """Submit one script after the jobs `needs`; its id."""

    def _release(self, ids: Sequence[str]) -> None:  # noqa: B027  (most hold nothing)
        """Let those go that were held until all were submitted."""

    @abstractmethod
    def task(self, job: str, position: int, point: int) -> str:
        """The id of the task of an array, the one at a position, which does a point."""

    @abstractmethod
    def seen(self, jobs: Sequence[Job]) -> dict[Job, Seen]:
        """What the scheduler says of these jobs; those that it does not know are missing."""

    @abstractmethod
    def cancel(self, jobs: Sequence[Job], alone: bool = False) -> None:
        """End these jobs; those that have ended do no harm. `alone`: they are one run's, of a study or not."""


def call(words: Sequence[str], folder: Path | None = None, harmless: str = "") -> str:
    """What a scheduler's command prints; AnyrankError with its own words if it fails, unless they are `harmless`."""
    try:
        done = subprocess.run(
            list(words),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
            timeout=_PATIENCE,
            check=False,
            encoding="utf-8",
        )
    except subprocess.TimeoutExpired:
        raise AnyrankError(f"{words[0]} does not answer within {_PATIENCE} s. Try again later.") from None
    except OSError as error:
        raise AnyrankError(f"{words[0]} cannot be run: {error.strerror}.") from None
    said = " ".join((done.stderr or done.stdout).split()) or f"status {done.returncode}"
    if done.returncode and not (harmless and re.search(harmless, said)):
        raise AnyrankError(f"{words[0]} failed: {said}")
    return done.stdout


def submitted(words: Sequence[str], folder: Path) -> str:
    """What a submitting command prints; UsageError where it refuses the job."""
    try:
        return call(words, folder)
    except AnyrankError as error:
        raise UsageError(f"{folder.parent} is not submitted: {error}. Mend that, and submit it again.") from None
