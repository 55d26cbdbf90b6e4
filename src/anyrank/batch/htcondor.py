"""HTCondor: condor_submit, condor_submit_dag, condor_rm, and the event log of every job (HTCondor Manual 24)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from anyrank.batch.scheduler import ENDED, RUNNING, WAITING, Job, JobState, Node, Scheduler, call, run_submit_command
from anyrank.errors import AnyrankError, UsageError
from anyrank.storage.durable import publish

#: The log of a job, in its folder, and the file of a DAG, in the folder of its study.
LOG, DAG = "condor.log", "study.dag"
#: The files of submitted DAGs.
DAGS = "study[0-9]*.dag"


#: The events of a log that change the state of a job (HTCondor Manual, "Job Event Log Codes"): submitted, broken
#: executable, evicted or requeued, shadow exception, held, released, not reconnected; running, suspended, unsuspended,
#: disconnected, reconnected; terminated, aborted.
_STATES = (
    dict.fromkeys(("000", "002", "004", "007", "012", "013", "024"), WAITING)
    | dict.fromkeys(("001", "010", "011", "022", "023"), RUNNING)
    | dict.fromkeys(("005", "009"), ENDED)
)
_HEAD = re.compile(r"(\d{3}) \((\d+)\.(\d+)\.\d+\) [\d/:.TZ -]+ (\D.*)")


def parse_log(text: str) -> dict[str, JobState]:
    """Parse a log into states by job id (cluster.process); the reasons are HTCondor's messages."""
    states = {}
    for event in text.split("\n...\n")[:-1]:  # the text after the last separator is incomplete
        head, _, body = event.partition("\n")
        match = _HEAD.fullmatch(head)
        if match and match[1] in _STATES:
            states[f"{int(match[2])}.{int(match[3])}"] = JobState(_STATES[match[1]], _reason(match[1], match[4], body))
    return states


def _reason(code: str, head: str, body: str) -> str:
    if code in ("000", "001", "011", "023"):
        return ""
    ended = re.search(r"(?:Normal|Abnormal) termination \(.*\)", body)
    if code == "005":
        return "" if ended is None or "(return value 0)" in ended[0] else ended[0]
    if code == "004":
        ended = ended or re.search(r"(?<=Reason: ).*", body)
        return f"{head} {ended[0] if ended else ''}".rstrip()
    message, _, _ = body.strip().partition("\n")
    return f"{head} {message}".rstrip()


class HTCondor(Scheduler):
    """Jobs stay in the queue until their run is finished; DAGMan manages runs that need others, and chains."""

    name = "htcondor"
    commands = ("condor_submit", "condor_submit_dag", "condor_rm")
    shared_files: ClassVar = {DAG: "htcondor.dag.j2"}
    files: ClassVar = {"script.sh": "htcondor.sh.j2", "script.sub": "htcondor.sub.j2"}

    def check(self, context: Mapping[str, Any]) -> None:
        """Refuse several nodes and partitions, which HTCondor does not have."""
        if context["job"].partition:
            raise UsageError(f"--partition {context['job'].partition}: HTCondor has no partitions. Omit the option.")
        if context["job"].nodes > 1:
            raise UsageError(
                f"--nodes {context['job'].nodes}: a job of HTCondor runs on one machine. "
                f"Use --nodes 1 --ranks-per-node {context['job'].size}."
            )

    def submit(self, nodes: Sequence[Node], folder: Path) -> dict[str, str]:
        """Submit one script with condor_submit, several as a DAG, whose id is then that of all its runs."""
        if len(nodes) == 1:
            return super().submit(nodes, folder)
        # Use a new file for each DAG, because DAGMan may still use the former one.
        name = f"study{len(list(folder.glob(DAGS)))}.dag"
        publish(folder / DAG, folder / name)
        output = run_submit_command(["condor_submit_dag", "-force", name], folder)
        cluster = re.search(r"submitted to cluster (\d+)", output)
        if cluster is None:
            raise AnyrankError(f"condor_submit_dag printed no cluster number: {' '.join(output.split())}")
        return {node.run: f"{cluster[1]}.0" for node in nodes}

    def _submit(self, node: Node, needs: Sequence[str]) -> str:
        return run_submit_command(["condor_submit", "-terse", "script.sub"], node.folder).split()[0]

    def task(self, job: str, position: int, point: int) -> str:
        """Return the id of a task; HTCondor counts the processes of a cluster."""
        return f"{job.partition('.')[0]}.{position}"

    def job_states(self, jobs: Sequence[Job]) -> dict[Job, JobState]:
        """Read the states from the logs of the jobs; for a run without a log, from the log of its DAG."""
        return {job: state for job in jobs if (state := self._state(job)) is not None}

    def _state(self, job: Job) -> JobState | None:
        own = _read(job.folder / LOG)
        if own:
            return own.get(job.id, list(own.values())[-1])
        study = job.folder.parent.parent / job.folder.name
        array = _read(study / LOG)
        if array:
            return array.get(job.id)
        for folder in (study, job.folder):
            dag = _dag_jobs(folder).get(job.id)
            if dag is not None:
                return JobState(ENDED if dag.state == ENDED else WAITING, f"in a DAG: {dag.reason}".rstrip(": "))
        return None

    def cancel(self, jobs: Sequence[Job], alone: bool = False) -> None:
        """End jobs with condor_rm; with `alone`, a run of a DAG by its own id."""
        ids = [self._own(job) if alone else job.id for job in jobs]
        call(["condor_rm", *dict.fromkeys(ids)])

    @staticmethod
    def _own(job: Job) -> str:
        study = job.folder.parent.parent / job.folder.name
        if job.id not in _dag_jobs(study):
            return job.id
        own = list(_read(job.folder / LOG))
        if not own:
            raise UsageError(f"{job.folder.parent} waits in a DAG: anyrank cancel {study.parent} ends the whole DAG.")
        return own[-1]


def _dag_jobs(folder: Path) -> dict[str, JobState]:
    """Return the states of the DAGMan jobs in a folder."""
    return {job: seen for log in folder.glob(f"{DAGS}.dagman.log") for job, seen in _read(log).items()}


def _read(log: Path) -> dict[str, JobState]:
    try:
        return parse_log(log.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
