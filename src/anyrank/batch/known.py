"""The schedulers that there are; each is a file of its own."""

from __future__ import annotations

from anyrank.batch import htcondor, pbs, slurm  # noqa: F401  (they register themselves)
from anyrank.batch.scheduler import Scheduler
from anyrank.errors import UsageError


def find(name: str) -> Scheduler:
    """The scheduler of that name; of the empty one, the one on this machine. Raises UsageError."""
    if name in Scheduler.known:
        return Scheduler.known[name]()
    names = ", ".join(Scheduler.known)
    if name:
        raise UsageError(f"--on {name!r} is no scheduler: it must be one of {names}.")
    here = [kind.name for kind in Scheduler.known.values() if not kind().missing()]
    if "slurm" in here and "pbs" in here:
        here.remove("pbs")  # Slurm brings commands of PBS along
    if len(here) != 1:
        found = ", ".join(here) or "none"
        raise UsageError(f"--on is required: of {names}, this machine has {found}. Name one, or a --site that does.")
    return Scheduler.known[here[0]]()
