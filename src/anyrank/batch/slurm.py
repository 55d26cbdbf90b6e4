"""Slurm: sbatch, squeue, scancel (https://slurm.schedmd.com/man_index.html)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from anyrank.batch.scheduler import (
    ENDED,
    NEVER,
    RUNNING,
    WAITING,
    Job,
    JobState,
    Node,
    Scheduler,
    call,
    run_submit_command,
)
from anyrank.errors import UsageError

_STATES = {
    **dict.fromkeys(("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"), WAITING),
    **dict.fromkeys(
        ("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"), RUNNING
    ),
}
_NEVER = "DependencyNeverSatisfied"


class Slurm(Scheduler):
    """Jobs requeue themselves, so that a job keeps its id and its dependent jobs."""

    name = "slurm"
    commands = ("sbatch", "squeue", "scancel", "scontrol")
    files: ClassVar = {"script.slurm": "slurm.sh.j2"}

    def check(self, context: Mapping[str, Any]) -> None:
        r"""Refuse % and \ in the name of the job's folder, because Slurm expands them."""
        if re.search(r"[%\\]", str(context["folder"])):
            raise UsageError(
                f"--out {context['folder']}: Slurm cannot write into a name with % or \\. Use another --out."
            )

    def _submit(self, node: Node, needs: Sequence[str]) -> str:
        words = ["sbatch", "--parsable"]
        if needs:
            words += [f"--dependency=after{node.after}:{':'.join(needs)}", "--kill-on-invalid-dep=yes"]
        return run_submit_command([*words, "script.slurm"], node.folder).strip().partition(";")[0]

    def task(self, job: str, position: int, point: int) -> str:
        """Return the id of a task; Slurm uses the numbers of the points."""
        return f"{job}_{point}"

    def job_states(self, jobs: Sequence[Job]) -> dict[Job, JobState]:
        """Read the states from squeue, which remembers ended jobs for some minutes."""
        ids = ",".join(sorted({job.id.partition("_")[0] for job in jobs}))
        words = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r", f"--jobs={ids}"]
        states = parse_squeue(call(words, harmless="Invalid job id"))
        return {job: states[job.id] for job in jobs if job.id in states}

    def cancel(self, jobs: Sequence[Job], alone: bool = False) -> None:
        """End jobs with scancel."""
        call(["scancel", *(job.id for job in jobs)])


def parse_squeue(text: str) -> dict[str, JobState]:
    """Parse lines of `%i|%T|%r` into states by job id."""
    states = {}
    for line in text.splitlines():
        job, state, reason = line.strip().split("|", 2)
        known = NEVER if reason == _NEVER else _STATES.get(state, ENDED)
        states[job] = JobState(known, state if reason in ("None", "") else f"{state}, {reason}")
    return states
