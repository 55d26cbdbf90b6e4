"""The known schedulers; each has its own file."""

from __future__ import annotations

from anyrank.batch import htcondor, pbs, slurm  # noqa: F401  (they register themselves)
from anyrank.batch.scheduler import Scheduler
from anyrank.errors import UsageError


def find_scheduler(name: str) -> Scheduler:
    """Return the scheduler with this name; for an empty name, the only one on this machine. Raises UsageError."""
    if name in Scheduler.known:
        return Scheduler.known[name]()
    names = ", ".join(Scheduler.known)
    if name:
        raise UsageError(f"--on {name!r} is not a scheduler: it must be one of {names}.")
    here = [kind.name for kind in Scheduler.known.values() if not kind().missing()]
    if "slurm" in here and "pbs" in here:
        here.remove("pbs")  # Slurm also provides the commands of PBS
    if len(here) != 1:
        raise UsageError(
            f"--on is required: of {names}, this machine has {', '.join(here) or 'none'}. Name one, or a --site that "
            "names one."
        )
    return Scheduler.known[here[0]]()
