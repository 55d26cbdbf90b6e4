"""The environment variables of the launcher that started this process. They are available without MPI."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from urllib.parse import quote, unquote

_COUNTS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MV2_COMM_WORLD_SIZE")
_NUMBERS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID")
#: Prefixes of the variables by which a process contacts its launcher. The variables of a job, such as those of Slurm,
#: and the settings of users have other prefixes.
_LAUNCH_VARIABLES = (
    *("PMI_", "PMI2_", "PMIX_", "HYDI_", "MPI_LOCAL", "MV2_COMM_WORLD", "PRTE_LAUNCHED", "PRTE_MCA_ess", "OMPI_COMM"),
    *("OMPI_UNIVERSE", "OMPI_APP_", "OMPI_FILE_", "OMPI_FIRST_", "OMPI_NUM_APP", "OMPI_ARGV", "OMPI_MCA_ess"),
    *("OMPI_MCA_orte",),
)
_SETTINGS = ("PMIX_MCA_",)
#: The variable with the named pipe from which rank 0 may read standard input.
STDIN = "ANYRANK_STDIN"
#: The first word of a command line with quoted words; and the quoted form of an empty word.
_QUOTED, _EMPTY = "--quoted", "%"


def tasks(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of tasks that were started together with this process; 0 if no launcher started it.

    The only task of a launch may start ranks itself: it may be a shell, for instance of `srun --pty`. `srun` without an
    MPI plugin sets no variables of MPI: then the size of the Slurm step counts, unless it is 1, because a step of one
    task may be a shell or a batch script.
    """
    count = _first(environment, _COUNTS)
    if count is not None:
        return count
    slurm_tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "0")) if "SLURM_STEP_ID" in environment else 0
    return slurm_tasks if slurm_tasks > 1 else 0


def task(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of this process among the tasks; 0 if no launcher started it."""
    return (_first(environment, _NUMBERS) or 0) if tasks(environment) else 0


def without_launch(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for a process outside of this launch: one that starts ranks itself, or a rank's child."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_SETTINGS) or not name.startswith(_LAUNCH_VARIABLES)
    }


def rank_command(words: Sequence[str], module: str = "anyrank") -> list[str]:
    """Return the command of a rank with these words of a command line, for `mpiexec`.

    For mpiexec a word `:` is the end of the command, and it may not pass on every character or an empty word. Therefore
    words with special characters are quoted as in a URL: `:` is %3A, and an empty word is %.
    """
    quoted = [quote(word, safe="/-_.=,+", errors="surrogateescape") or _EMPTY for word in words]
    return [sys.executable, "-m", module, *([_QUOTED] if quoted != [*words] else []), *quoted]


def words_of(arguments: Sequence[str]) -> list[str]:
    """Return the words of a command line, quoted by `rank_command` or not."""
    if [*arguments[:1]] != [_QUOTED]:
        return [*arguments]
    return ["" if word == _EMPTY else unquote(word, errors="surrogateescape") for word in arguments[1:]]


def _first(environment: Mapping[str, str], names: Sequence[str]) -> int | None:
    for name in names:
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return None
