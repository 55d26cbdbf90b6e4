"""What the launcher that started this process says of it; known before MPI is, and without it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from urllib.parse import quote, unquote

_COUNTS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MV2_COMM_WORLD_SIZE")
_NUMBERS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID")
#: How the variables begin by which a process finds the launcher that started it; those of a job, such as Slurm's, and
#: users' own settings begin otherwise.
_OF_A_LAUNCH = (
    *("PMI_", "PMI2_", "PMIX_", "HYDI_", "MPI_LOCAL", "MV2_COMM_WORLD", "PRTE_LAUNCHED", "PRTE_MCA_ess", "OMPI_COMM"),
    *("OMPI_UNIVERSE", "OMPI_APP_", "OMPI_FILE_", "OMPI_FIRST_", "OMPI_NUM_APP", "OMPI_ARGV", "OMPI_MCA_ess"),
    *("OMPI_MCA_orte",),
)
_SETTINGS = ("PMIX_MCA_",)
#: The first word where the others are quoted; and how an empty one is.
_QUOTED, _EMPTY = "--quoted", "%"


def tasks(environment: Mapping[str, str] = os.environ) -> int:
    """How many tasks were started together with this process; 0 when no launcher started it.

    A process that is the only one may start ranks itself: it may be a shell, such as that of `srun --pty`. `srun`
    without an MPI plugin sets nothing of MPI's: then its own step counts, but not a step of one task, which may be a
    shell or a batch script.
    """
    count = _first(environment, _COUNTS)
    if count is not None:
        return count
    several = int(environment.get("SLURM_STEP_NUM_TASKS", "0")) if "SLURM_STEP_ID" in environment else 0
    return several if several > 1 else 0


def task(environment: Mapping[str, str] = os.environ) -> int:
    """This process's number among them; 0 when no launcher started it."""
    return (_first(environment, _NUMBERS) or 0) if tasks(environment) else 0


def without_launch(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables for a process that is none of this launch: one that starts ranks itself, or a rank's child."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_SETTINGS) or not name.startswith(_OF_A_LAUNCH)
    }


def rank_command(words: Sequence[str], module: str = "anyrank") -> list[str]:
    """The command of a rank with these words of a command line, for `mpiexec`.

    mpiexec would take a word `:` for the end of the command, and may not pass on every sign or an empty word. So words
    with other than plain signs are quoted as in an address: `:` is %3A, and an empty one is %.
    """
    quoted = [quote(word, safe="/-_.=,+", errors="surrogateescape") or _EMPTY for word in words]
    return [sys.executable, "-m", module, *([_QUOTED] if quoted != [*words] else []), *quoted]


def words_of(arguments: Sequence[str]) -> list[str]:
    """The words of a command line that were given to `rank_command`, or typed."""
    if [*arguments[:1]] != [_QUOTED]:
        return [*arguments]
    return ["" if word == _EMPTY else unquote(word, errors="surrogateescape") for word in arguments[1:]]


def _first(environment: Mapping[str, str], names: Sequence[str]) -> int | None:
    for name in names:
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return None
