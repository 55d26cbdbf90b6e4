"""What a job asks of the scheduler: nodes, ranks, time; flags win over the study, and that over the site."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Annotated, Any

from anyrank.batch.site import Line, Plain, Site
from anyrank.declaration import OptionTable, option
from anyrank.errors import UsageError
from anyrank.runtime.duration import Duration, MaybeDuration, seconds_of
from anyrank.values import Count, Natural, matching

#: Shares of the wall time, and seconds, of which the least is the time between the warning and the end.
WARNING_SHARE, WARNING_MOST = 0.25, 120
JOB = "Job"
STUDIES = ("studies",)
#: Two ways to say one thing: a layer that gives one takes the other of an earlier layer away.
_EITHER = (("image", "pack"), ("pack", "image"), ("ranks", "ranks_per_node"), ("ranks_per_node", "ranks"))


class SubmitOptions(OptionTable):
    """How a submission is made; nothing of it is the job's."""

    site: str = option("", "A site of yours: ~/.config/anyrank/sites/NAME.toml.", JOB, default_text="default")
    dry_run: bool = option(False, "Print the scripts, and do nothing.", JOB)


class Request(OptionTable):
    """A checked request. Memory is per node; 0 GPUs are none; an empty word is the scheduler's own choice."""

    on: Plain = option("", "slurm, pbs or htcondor.", JOB, default_text="the site's, or the only one here")
    nodes: Count = option(1, "Nodes.", JOB)
    ranks: Count | None = option(
        None, "MPI ranks in all.", JOB, "-n", "--ranks", default_text="nodes × ranks per node", not_in=STUDIES
    )
    ranks_per_node: Count | None = option(None, "Ranks of a node.", JOB, default_text="the site's cores, or 1")
    threads: Count = option(1, "Threads, and so cores, of a rank.", JOB)
    gpus_per_node: Natural = option(0, "GPUs of a node.", JOB)
    memory: Annotated[str, matching(r"(\d+[KMGT])?", "must be a size such as 16G")] = option(
        "", "Memory of a node: 16G.", JOB
    )
    walltime: Duration = option("1:00:00", "Time limit of a job; a run goes on in the next one.", JOB)
    warning: MaybeDuration = option(
        "", "How long before it the run is warned.", JOB, default_text="2min, or a quarter of the wall time"
    )
    partition: Plain = option("", "Partition, or queue.", JOB, "--partition", "--queue")
    account: Plain = option("", "Who pays.", JOB)
    name: Plain = option("", "The job's name.", JOB, default_text="the run folder's", not_in=STUDIES)
    image: str = option("", "A container image with anyrank in it (Apptainer).", JOB, not_in=STUDIES)
    pack: str = option("", "An archive made by anyrank pack, which nodes unpack onto their own disks.", JOB)
    launcher: Line = option(
        "",
        "What starts the ranks, such as 'srun --mpi=pmi2'.",
        JOB,
        default_text="anyrank's mpiexec",
        not_in=STUDIES,
    )
    max_attempts: Count = option(100, "Start a run so many times at most.", JOB, not_in=STUDIES)
    chain: Count = option(
        1, "Submit so many jobs, each after the one before.", JOB, default_text="1, requeued", not_in=STUDIES
    )
    at_a_time: Count | None = option(None, "How many jobs of a sweep may run together.", JOB, not_in=STUDIES)
    directives: list[Line] = option([], "A line more for the scheduler: '--qos=long'.", JOB, "--directive")

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self.ranks or self.nodes * self.slots

    @cached_property
    def slots(self) -> int:
        """Ranks that a node has room for."""
        return self.ranks_per_node or ceil((self.ranks or self.nodes) / self.nodes)

    @property
    def cores(self) -> int:
        """Cores of a node."""
        return self.slots * self.threads

    @property
    def seconds(self) -> int:
        """The wall time in whole seconds."""
        return ceil(seconds_of(self.walltime))

    @property
    def warning_seconds(self) -> int:
        """How long before its end a job is warned."""
        if self.warning:
            return ceil(seconds_of(self.warning))
        return min(WARNING_MOST, int(WARNING_SHARE * self.seconds))

    @property
    def clock(self) -> str:
        """The wall time as schedulers write it: hours:minutes:seconds."""
        minutes, seconds = divmod(self.seconds, 60)
        return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"


def request(site: Site, *layers: Mapping[str, Any]) -> Request:
    """The request that the site and these layers make together, a later one's values winning. Raises UsageError."""
    given: dict[str, Any] = {"on": site.scheduler}
    given |= {name: getattr(site, name) for name in ("partition", "account", "image", "pack", "launcher")}
    for layer in layers:
        new = {name: value for name, value in layer.items() if value is not None}
        for name, other in _EITHER:
            if new.get(name) and other not in new:
                given.pop(other, None)
        given |= new
    given |= {name: str(Path(given[name]).expanduser().absolute()) for name in ("image", "pack") if given.get(name)}
    made = Request.read(given, "submit")
    if made.ranks_per_node is None and made.ranks is None and site.cores_per_node:
        made = made.model_copy(update={"ranks_per_node": max(1, site.cores_per_node // made.threads)})
    _check(made, site)
    return made


def _check(made: Request, site: Site) -> None:
    if made.size > made.nodes * made.slots:
        raise UsageError(
            f"--ranks {made.size} is more than {made.nodes} nodes of {made.slots} ranks have room for. "
            f"Use --nodes {ceil(made.size / made.slots)}, or --ranks {made.nodes * made.slots}."
        )
    cores = site.cores_per_node
    if cores and made.cores > cores:
        raise UsageError(
            f"{made.slots} ranks per node of {made.threads} threads are more than the {cores} cores of a node here. "
            f"Use --nodes {ceil(made.size * made.threads / cores)} --ranks-per-node {max(1, cores // made.threads)}."
        )
    if made.gpus_per_node > (made.gpus_per_node if site.gpus_per_node is None else site.gpus_per_node):
        raise UsageError(
            f"--gpus-per-node {made.gpus_per_node} is more than the {site.gpus_per_node} of a node here. "
            f"Use --gpus-per-node {site.gpus_per_node}."
        )
    if made.warning_seconds >= made.seconds:
        raise UsageError(
            f"--warning {made.warning} must be less than --walltime {made.walltime}. Use less, or leave it out."
        )
    try:
        shlex.split(made.launcher)
    except ValueError as error:
        raise UsageError(f"--launcher {made.launcher!r} cannot be read: {error}. Write it as for a shell.") from None
    if made.image and made.pack:
        raise UsageError(f"--image {made.image} and --pack {made.pack} are two environments. Use one of them.")
