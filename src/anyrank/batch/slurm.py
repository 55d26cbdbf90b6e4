"""Slurm: sbatch, squeue, scancel (https://slurm.schedmd.com/man_index.html)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from anyrank.batch.scheduler import ENDED, NEVER, RUNNING, WAITING, Job, Node, Scheduler, Seen, call, submitted
from anyrank.errors import UsageError

_STATES = {
    **dict.fromkeys(("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"), WAITING),
    **dict.fromkeys(
        ("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"), RUNNING
    ),
}
_NEVER = "DependencyNeverSatisfied"


class Slurm(Scheduler):
    """Jobs requeue themselves, so that a job keeps its id and those that depend on it."""

    name = "slurm"
    commands = ("sbatch", "squeue", "scancel", "scontrol")
    files: ClassVar = {"script.slurm": "slurm.sh.j2"}

    def check(self, context: Mapping[str, Any]) -> None:
        r"""Slurm expands % and \ in the name of the folder in which a job writes."""
        if re.search(r"[%\\]", str(context["folder"])):
            raise UsageError(
                f"--out {context['folder']}: Slurm cannot write into a name with % or \\. Use another --out."
            )

    def _submit(self, node: Node, needs: Sequence[str]) -> str:
        words = ["sbatch", "--parsable"]
        if needs:
            words += [f"--dependency=after{node.after}:{':'.join(needs)}", "--kill-on-invalid-dep=yes"]
        return submitted([*words, "script.slurm"], node.folder).strip().partition(";")[0]

    def task(self, job: str, position: int, point: int) -> str:
        """Slurm takes the points' own numbers."""
        return f"{job}_{point}"

    def seen(self, jobs: Sequence[Job]) -> dict[Job, Seen]:
        """From squeue, which knows jobs that ended for some minutes."""
        ids = ",".join(sorted({job.id.partition("_")[0] for job in jobs}))
        words = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r", f"--jobs={ids}"]
        found = parse_squeue(call(words, harmless="Invalid job id"))
        return {job: found[job.id] for job in jobs if job.id in found}

    def cancel(self, jobs: Sequence[Job], alone: bool = False) -> None:
        """By scancel."""
        call(["scancel", *(job.id for job in jobs)])


def parse_squeue(text: str) -> dict[str, Seen]:
    """Jobs by id from lines of `%i|%T|%r`."""
    found = {}
    for line in text.splitlines():
        job, state, reason = line.strip().split("|", 2)
        known = NEVER if reason == _NEVER else _STATES.get(state, ENDED)
        found[job] = Seen(known, state if reason in ("None", "") else f"{state}, {reason}")
    return found
