"""The request of a job: nodes, ranks, time. Flags override the study file, which overrides the site."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Annotated, Any

from anyrank.batch.site import Line, Plain, Site
from anyrank.declaration import OptionSettings, option
from anyrank.errors import UsageError
from anyrank.runtime.duration import Duration, MaybeDuration
from anyrank.values import Count, Natural, matching, seconds_of

#: The time between the warning and the end of a job: this fraction of the wall time, at most this number of seconds.
WARNING_SHARE, WARNING_LIMIT = 0.25, 120
JOB = "Job"
STUDIES = ("studies",)
#: Pairs of alternatives: a layer that gives the first removes the second of an earlier layer.
_ALTERNATIVES = (("image", "pack"), ("pack", "image"), ("ranks", "ranks_per_node"), ("ranks_per_node", "ranks"))


class SubmitOptions(OptionSettings):
    """Options of the submission itself, not of the job."""

    site: str = option("", "A site file: ~/.config/anyrank/sites/NAME.toml.", JOB, default_text="default")
    dry_run: bool = option(False, "Print the scripts without submitting them.", JOB)


class Request(OptionSettings):
    """A checked request. Memory is per node; an empty text leaves the choice to the scheduler."""

    on: Plain = option("", "Scheduler: slurm, pbs or htcondor.", JOB, default_text="the site's, or the only one here")
    nodes: Count = option(1, "Number of nodes.", JOB)
    ranks: Count | None = option(
        None, "Total number of MPI ranks.", JOB, "-n", "--ranks", default_text="nodes × ranks per node", not_in=STUDIES
    )
    ranks_per_node: Count | None = option(None, "Ranks per node.", JOB, default_text="the site's cores, or 1")
    threads: Count = option(1, "Threads per rank; each has its own core.", JOB)
    gpus_per_node: Natural = option(0, "GPUs per node.", JOB)
    memory: Annotated[str, matching(r"(\d+[KMGT])?", "must be a size such as 16G")] = option(
        "", "Memory per node, such as 16G.", JOB
    )
    walltime: Duration = option("1:00:00", "Time limit of one job; an unfinished run continues in the next job.", JOB)
    warning: MaybeDuration = option(
        "",
        "Time between the warning to the run and the time limit.",
        JOB,
        default_text="2min, or a quarter of the wall time",
    )
    partition: Plain = option("", "Partition or queue of the scheduler.", JOB, "--partition", "--queue")
    account: Plain = option("", "The account to charge.", JOB)
    name: Plain = option("", "The job's name.", JOB, default_text="the run folder's", not_in=STUDIES)
    image: str = option("", "A container image that contains anyrank (Apptainer).", JOB, not_in=STUDIES)
    pack: str = option("", "An archive from anyrank pack; each node unpacks it onto its own disk.", JOB)
    launcher: Line = option(
        "",
        "The command that starts the ranks, such as 'srun --mpi=pmi2'.",
        JOB,
        default_text="anyrank's mpiexec",
        not_in=STUDIES,
    )
    max_attempts: Count = option(100, "Largest number of attempts to finish a run.", JOB, not_in=STUDIES)
    chain: Count = option(
        1,
        "Number of jobs to submit in advance; each starts after the previous one.",
        JOB,
        default_text="1, requeued",
        not_in=STUDIES,
    )
    at_a_time: Count | None = option(
        None, "Largest number of jobs of a sweep that run at the same time.", JOB, not_in=STUDIES
    )
    directives: list[Line] = option(
        [], "An additional line for the scheduler, such as '--qos=long'; may be repeated.", JOB, "--directive"
    )

    @property
    def size(self) -> int:
        """The total number of ranks."""
        return self.ranks or self.nodes * self.slots

    @cached_property
    def slots(self) -> int:
        """The number of ranks that fit on a node."""
        return self.ranks_per_node or ceil((self.ranks or self.nodes) / self.nodes)

    @property
    def cores(self) -> int:
        """The number of cores per node."""
        return self.slots * self.threads

    @property
    def seconds(self) -> int:
        """The wall time in whole seconds."""
        return ceil(seconds_of(self.walltime))

    @property
    def warning_seconds(self) -> int:
        """Seconds between the warning and the end of a job."""
        if self.warning:
            return ceil(seconds_of(self.warning))
        return min(WARNING_LIMIT, int(WARNING_SHARE * self.seconds))

    @property
    def clock(self) -> str:
        """The wall time in the schedulers' format: hours:minutes:seconds."""
        minutes, seconds = divmod(self.seconds, 60)
        return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"


def request(site: Site, *layers: Mapping[str, Any]) -> Request:
    """Merge the site and these layers into a request; later values override earlier ones. Raises UsageError."""
    given: dict[str, Any] = {"on": site.scheduler}
    given |= {name: getattr(site, name) for name in ("partition", "account", "image", "pack", "launcher")}
    for layer in layers:
        new = {name: value for name, value in layer.items() if value is not None}
        for name, other in _ALTERNATIVES:
            if new.get(name) and other not in new:
                given.pop(other, None)
        given |= new
    given |= {name: str(Path(given[name]).expanduser().absolute()) for name in ("image", "pack") if given.get(name)}
    merged = Request.read(given, "submit")
    if merged.ranks_per_node is None and merged.ranks is None and site.cores_per_node:
        merged = merged.model_copy(update={"ranks_per_node": max(1, site.cores_per_node // merged.threads)})
    _check(merged, site)
    return merged


def _check(merged: Request, site: Site) -> None:
    if merged.size > merged.nodes * merged.slots:
        raise UsageError(
            f"--ranks {merged.size} is more than {merged.nodes} nodes with {merged.slots} ranks each can hold. "
            f"Use --nodes {ceil(merged.size / merged.slots)}, or --ranks {merged.nodes * merged.slots}."
        )
    cores = site.cores_per_node
    if cores and merged.cores > cores:
        raise UsageError(
            f"{merged.slots} ranks per node with {merged.threads} threads each need more than the {cores} cores of a "
            f"node here. Use --nodes {ceil(merged.size * merged.threads / cores)} "
            f"--ranks-per-node {max(1, cores // merged.threads)}."
        )
    if merged.gpus_per_node > (merged.gpus_per_node if site.gpus_per_node is None else site.gpus_per_node):
        raise UsageError(
            f"--gpus-per-node {merged.gpus_per_node} is more than the {site.gpus_per_node} of a node here. "
            f"Use --gpus-per-node {site.gpus_per_node}."
        )
    if merged.warning_seconds >= merged.seconds:
        raise UsageError(
            f"--warning {merged.warning} must be less than --walltime {merged.walltime}. Use less, or omit it."
        )
    try:
        shlex.split(merged.launcher)
    except ValueError as error:
        raise UsageError(f"--launcher {merged.launcher!r} cannot be read: {error}. Write it as for a shell.") from None
    if merged.image and merged.pack:
        raise UsageError(f"--image {merged.image} and --pack {merged.pack} are two environments. Use one of them.")
