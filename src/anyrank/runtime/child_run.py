"""A run in processes of its own, waited for: what verify and scaling studies make."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anyrank.errors import FINISHED, STOPPED
from anyrank.launcher import rank_command
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.launch import Slots, starting, status_within

#: What mpiexec adds to the words of ranks that failed.
_NOISE = re.compile(r"=|Abort\(|YOUR APPLICATION|This typically|Please see|$")


@dataclass(frozen=True)
class ChildRun:
    """How a run ended: its status, None where it took too long and was killed; its summary; and where its words are."""

    status: int | None
    summary: dict[str, Any]
    log: Path = field(repr=False)

    @property
    def finished(self) -> bool:
        """Whether it is complete: mpiexec says 0 of ranks that it killed itself, too."""
        return self.status == FINISHED and self.summary.get("finished") is True

    @property
    def stopped(self) -> bool:
        """Whether it was stopped with a checkpoint."""
        return self.status == STOPPED

    def words(self, most: int) -> list[str]:
        """At most so many lines of its standard error, without mpiexec's own: the first ones and the last ones."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        lines = [line.removeprefix(" " * len("anyrank: ")) for line in text.splitlines() if not _NOISE.match(line)]
        if len(lines) > most:  # a traceback tells most at its end
            lines[most // 2 : -most // 2] = [f"… {len(lines) - most} more lines are in {self.log}"]
        return lines


def run_child(
    words: Sequence[str],
    ranks: int,
    out: Path,
    log: Path,
    timeout: float,
    *,
    hosts: Slots = (),
    module: str = "anyrank",
    environment: Mapping[str, str] | None = None,
) -> ChildRun:
    """Run `anyrank WORDS` on so many ranks, and wait for its end.

    Parameters
    ----------
    words : sequence of str
        The command line after `anyrank`, with `--out` among them.
    ranks : int
        The number of ranks. One is started without mpiexec, unless `hosts` names where.
    out : Path
        The run folder.
    log : Path
        What is written to standard error is added to this file.
    timeout : float
        Seconds after which it is killed with all its ranks.
    hosts : sequence of (str, int), optional
        The hosts, with the number of ranks that each may have.
    module : str
        The module that is run in the place of `anyrank`.
    environment : mapping, optional
        More variables of the environment.

    Returns
    -------
    ChildRun
        How it ended. Not collective: one process starts the others.
    """
    launcher = [*starting(hosts), "-n", str(ranks)] if ranks > 1 or hosts else []
    with log.open("ab") as file:
        command = [*launcher, *rank_command(words, module)]
        status = status_within(timeout, command, environment or {}, stdout=subprocess.DEVNULL, stderr=file)
    return ChildRun(status, read_json(RunFolder(out).summary), log)


def read_json(path: Path) -> dict[str, Any]:
    """What a file of JSON holds; nothing where it is not there, or damaged."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
