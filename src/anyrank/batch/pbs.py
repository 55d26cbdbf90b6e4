"""PBS: qsub, qstat, qdel of OpenPBS and PBS Pro (PBS Professional User's Guide, 2022.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

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
from anyrank.errors import AnyrankError

#: The letters of job_state (pbs_job_attributes(7B)), and Torque's C.
_STATES = dict.fromkeys("QHWTM", WAITING) | dict.fromkeys("BRESU", RUNNING) | dict.fromkeys("FXC", ENDED)


def parse_qstat(text: str) -> dict[str, JobState]:
    """Parse the output of `qstat -f` into states by job id; the reasons are PBS's messages."""
    states = {}
    for part in re.split(r"^Job Id:\s*", text, flags=re.MULTILINE)[1:]:
        name, _, lines = part.partition("\n")
        if lines.startswith("    "):
            lines = lines.replace("\n\t", "")  # PBS continues long values with a tab; Slurm's qstat indents by tabs
        states[name.strip()] = _judge(dict(re.findall(r"^\s+([\w.]+) = (.*)$", lines, flags=re.MULTILINE)))
    return states


def _judge(attributes: dict[str, str]) -> JobState:
    attributes = {name.lower(): value.strip() for name, value in attributes.items()}
    state = _STATES.get(attributes.get("job_state", ""), WAITING)
    needs = ",".join(need for need in attributes.get("depend", "").split(",") if not need.startswith("before"))
    if state == ENDED and needs and not attributes.keys() & {"stime", "start_time"}:
        state = NEVER
    words = [attributes["comment"]] if attributes.get("comment") else []
    if needs and state in (WAITING, NEVER):
        words.append(f"depend = {needs}")
    if state == WAITING and attributes.get("hold_types", "n") != "n":
        words.append(f"Hold_Types = {attributes['hold_types']}")
    if attributes.get("exit_status", "0") != "0":
        words.append(f"Exit_status = {attributes['exit_status']}")
    return JobState(state, ", ".join(words))


class Pbs(Scheduler):
    """Jobs resubmit themselves, because users may not requeue a job of PBS."""

    name = "pbs"
    commands = ("qsub", "qstat", "qdel", "qrls")
    files: ClassVar = {"script.pbs": "pbs.sh.j2"}

    def paths(self, folder: Path, array: bool) -> dict[Path, str]:
        """Return a new script for each array: tasks read it when they start, and tasks of a former array may wait."""
        before = len(list(folder.glob("script*.pbs"))) if array else 0
        return {folder / f"script{before or ''}.pbs": "pbs.sh.j2"}

    def _submit(self, node: Node, needs: Sequence[str]) -> str:
        """Submit a held job, because a job can only depend on jobs that have not ended."""
        words, script = ["qsub", "-h"], str(node.context["script"])
        if needs:
            words += ["-W", f"depend=after{node.after}:{':'.join(needs)}"]
        return run_submit_command([*words, script], node.context["cwd"]).strip()

    def _release(self, ids: Sequence[str]) -> None:
        """Release the first jobs last: if one fails at once, the jobs that depend on it are deleted."""
        call(["qrls", *reversed(ids)])

    def task(self, job: str, position: int, point: int) -> str:
        """Return the id of a task; PBS counts the tasks of an array, and a single task is an ordinary job."""
        return job.replace("[]", f"[{position}]")

    def job_states(self, jobs: Sequence[Job]) -> dict[Job, JobState]:
        """Read the states from qstat, including ended jobs if the server keeps a history."""
        ids = sorted({re.sub(r"\[\d+\]", "[]", job.id) for job in jobs})
        words = ["-f", *(["-t"] if any("[]" in job for job in ids) else []), *ids]
        unknown = "Unknown Job|has finished"
        try:
            states = parse_qstat(call(["qstat", "-x", *words], harmless=unknown))
        except AnyrankError as error:
            if not re.search("history|Unknown option", str(error)):
                raise
            states = parse_qstat(call(["qstat", *words], harmless=unknown))
        return {job: states[job.id] for job in jobs if job.id in states}

    def cancel(self, jobs: Sequence[Job], alone: bool = False) -> None:
        """End jobs with qdel, which gives a running job ten seconds for its checkpoint."""
        call(["qdel", *(job.id for job in jobs)], harmless="Unknown Job|has finished")
