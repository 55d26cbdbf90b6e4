"""HTCondor: condor_submit, condor_submit_dag, condor_rm, and the log that every job writes (HTCondor Manual 24)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from anyrank.batch.scheduler import ENDED, RUNNING, WAITING, Job, Node, Scheduler, Seen, call, submitted
from anyrank.errors import AnyrankError, UsageError
from anyrank.storage.durable import publish

#: The log of a job, in its folder; the DAG, and the log of the job that minds it, in the study's.
LOG, DAG = "condor.log", "study.dag"
#: Those that were submitted.
DAGS = "study[0-9]*.dag"


#: The events of a log that say what becomes of a job (HTCondor Manual, "Job Event Log Codes"): submitted, broken
#: executable, evicted or requeued, shadow exception, held, released, not reconnected; running, suspended, unsuspended,
#: disconnected, reconnected; terminated, aborted.
_STATES = (
    dict.fromkeys(("000", "002", "004", "007", "012", "013", "024"), WAITING)
    | dict.fromkeys(("001", "010", "011", "022", "023"), RUNNING)
    | dict.fromkeys(("005", "009"), ENDED)
)
_HEAD = re.compile(r"(\d{3}) \((\d+)\.(\d+)\.\d+\) [\d/:.TZ -]+ (\D.*)")


def parse_log(text: str) -> dict[str, Seen]:
    """What the log of jobs says of each, by its id (cluster.process); the reasons are HTCondor's own words."""
    found = {}
    for event in text.split("\n...\n")[:-1]:  # what follows the last mark is still being written
        head, _, body = event.partition("\n")
        match = _HEAD.fullmatch(head)
        if match and match[1] in _STATES:
            found[f"{int(match[2])}.{int(match[3])}"] = Seen(_STATES[match[1]], _reason(match[1], match[4], body))
    return found


def _reason(code: str, head: str, body: str) -> str:
    if code in ("000", "001", "011", "023"):
        return ""
    ended = re.search(r"(?:Normal|Abnormal) termination \(.*\)", body)
    if code == "005":
        return "" if ended is None or "(return value 0)" in ended[0] else ended[0]
    if code == "004":
        ended = ended or re.search(r"(?<=Reason: ).*", body)
        return f"{head} {ended[0] if ended else ''}".rstrip()
    said, _, _ = body.strip().partition("\n")
    return f"{head} {said}".rstrip()


class HTCondor(Scheduler):
    """Jobs stay in the queue until their run is finished; DAGMan minds runs that need others, and chains."""

    name = "htcondor"
    commands = ("condor_submit", "condor_submit_dag", "condor_rm")
    joined: ClassVar = {DAG: "htcondor.dag.j2"}
    files: ClassVar = {"script.sh": "htcondor.sh.j2", "script.sub": "htcondor.sub.j2"}

    def check(self, context: Mapping[str, Any]) -> None:
        """A job of HTCondor runs on one machine, and there are no partitions."""
        if context["job"].partition:
            raise UsageError(f"--partition {context['job'].partition}: HTCondor has none. Leave it out.")
        if context["job"].nodes > 1:
            raise UsageError(
                f"--nodes {context['job'].nodes}: a job of HTCondor runs on one machine. "
                f"Use --nodes 1 --ranks-per-node {context['job'].size}."
            )

    def submit(self, nodes: Sequence[Node], folder: Path) -> dict[str, str]:
        """One script by condor_submit, several as a DAG, whose id is that of all its runs."""
        if len(nodes) == 1:
            return super().submit(nodes, folder)
        # A DAG of its own each time, for DAGMan may still be at the one before.
        name = f"study{len(list(folder.glob(DAGS)))}.dag"
        publish(folder / DAG, folder / name)
        said = submitted(["condor_submit_dag", "-force", name], folder)
        cluster = re.search(r"submitted to cluster (\d+)", said)
        if cluster is None:
            raise AnyrankError(f"condor_submit_dag did not tell the DAG's number: {' '.join(said.split())}")
        return {node.run: f"{cluster[1]}.0" for node in nodes}

    def _submit(self, node: Node, needs: Sequence[str]) -> str:
        return submitted(["condor_submit", "-terse", "script.sub"], node.folder).split()[0]

    def task(self, job: str, position: int, point: int) -> str:
        """HTCondor counts the processes of a cluster."""
        return f"{job.partition('.')[0]}.{position}"

    def seen(self, jobs: Sequence[Job]) -> dict[Job, Seen]:
        """From the logs that the jobs write, and for a run that has none yet from that of its DAG."""
        return {job: seen for job in jobs if (seen := self._seen(job)) is not None}

    def _seen(self, job: Job) -> Seen | None:
        own = _read(job.folder / LOG)
        if own:
            return own.get(job.id, list(own.values())[-1])
        study = job.folder.parent.parent / job.folder.name
        array = _read(study / LOG)
        if array:
            return array.get(job.id)
        for folder in (study, job.folder):
            minder = _minders(folder).get(job.id)
            if minder is not None:
                return Seen(ENDED if minder.state == ENDED else WAITING, f"in a DAG: {minder.reason}".rstrip(": "))
        return None

    def cancel(self, jobs: Sequence[Job], alone: bool = False) -> None:
        """By condor_rm; of a DAG's run `alone`, by the number that DAGMan gave it."""
        ids = [self._own(job) if alone else job.id for job in jobs]
        call(["condor_rm", *dict.fromkeys(ids)])

    @staticmethod
    def _own(job: Job) -> str:
        study = job.folder.parent.parent / job.folder.name
        if job.id not in _minders(study):
            return job.id
        own = list(_read(job.folder / LOG))
        if not own:
            raise UsageError(f"{job.folder.parent} waits in a DAG: anyrank cancel {study.parent} ends all of it.")
        return own[-1]


def _minders(folder: Path) -> dict[str, Seen]:
    """The jobs that mind the DAGs in a folder."""
    return {job: seen for log in folder.glob(f"{DAGS}.dagman.log") for job, seen in _read(log).items()}


def _read(log: Path) -> dict[str, Seen]:
    try:
        return parse_log(log.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
