"""Runs in separate processes: verify and scaling studies start them and wait for their end."""

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
from anyrank.runtime.launch import Slots, mpiexec_command, status_within

#: Lines that mpiexec adds to the messages of ranks that failed.
_NOISE = re.compile(r"=|Abort\(|YOUR APPLICATION|This typically|Please see|$")


@dataclass(frozen=True)
class ChildRun:
    """How a run ended: its status (None after a timeout), its summary, and the file of its messages."""

    status: int | None
    summary: dict[str, Any]
    log: Path = field(repr=False)

    @property
    def finished(self) -> bool:
        """Whether it is complete; status 0 is not enough, because mpiexec also returns 0 for ranks that it killed."""
        return self.status == FINISHED and self.summary.get("finished") is True

    @property
    def stopped(self) -> bool:
        """Whether it was stopped with a checkpoint."""
        return self.status == STOPPED

    def messages(self, most: int) -> list[str]:
        """Return the first and the last lines of its standard error, at most `most`, without those of mpiexec."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        lines = [line.removeprefix(" " * len("anyrank: ")) for line in text.splitlines() if not _NOISE.match(line)]
        if len(lines) > most:  # the end of a traceback matters most
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
    """Run `anyrank WORDS` on `ranks` ranks, and wait until it ends. Not collective: one process starts the ranks.

    Parameters
    ----------
    words : sequence of str
        The command line after `anyrank`, which includes `--out`.
    ranks : int
        The number of ranks. One rank starts without mpiexec, unless `hosts` are given.
    out : Path
        The run folder.
    log : Path
        The file to which standard error is appended.
    timeout : float
        Seconds after which the run and all its ranks are killed.
    hosts : sequence of (str, int), optional
        The hosts, with the maximum number of ranks of each.
    module : str
        The module that Python runs instead of `anyrank`.
    environment : mapping, optional
        Additional environment variables.

    Returns
    -------
    ChildRun
        How it ended.
    """
    launcher = [*mpiexec_command(hosts), "-n", str(ranks)] if ranks > 1 or hosts else []
    with log.open("ab") as file:
        command = [*launcher, *rank_command(words, module)]
        status = status_within(timeout, command, environment or {}, stdout=subprocess.DEVNULL, stderr=file)
    return ChildRun(status, read_json(RunFolder(out).summary), log)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file; the result is empty if the file is missing or damaged."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content
