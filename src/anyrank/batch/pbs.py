"""PBS: qsub, qstat, qdel of OpenPBS and PBS Pro (PBS Professional User's Guide, 2022.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from anyrank.batch.scheduler import ENDED, NEVER, RUNNING, WAITING, Job, Node, Scheduler, Seen, call, submitted
from anyrank.errors import AnyrankError

#: The letters of job_state (pbs_job_attributes(7B)), and Torque's C.
_STATES = dict.fromkeys("QHWTM", WAITING) | dict.fromkeys("BRESU", RUNNING) | dict.fromkeys("FXC", ENDED)


def parse_qstat(text: str) -> dict[str, Seen]:
    """What `qstat -f` says of each job, by its id; the reasons are PBS's own words."""
    found = {}
    for part in re.split(r"^Job Id:\s*", text, flags=re.MULTILINE)[1:]:
        name, _, said = part.partition("\n")
        if said.startswith("    "):
            said = said.replace("\n\t", "")  # PBS breaks long values so; Slurm's qstat begins every line with a tab
        found[name.strip()] = _judge(dict(re.findall(r"^\s+([\w.]+) = (.*)$", said, flags=re.MULTILINE)))
    return found


def _judge(said: dict[str, str]) -> Seen:
    said = {name.lower(): value.strip() for name, value in said.items()}
    state = _STATES.get(said.get("job_state", ""), WAITING)
    needs = ",".join(need for need in said.get("depend", "").split(",") if not need.startswith("before"))
    if state == ENDED and needs and not said.keys() & {"stime", "start_time"}:
        state = NEVER
    words = [said["comment"]] if said.get("comment") else []
    if needs and state in (WAITING, NEVER):
        words.append(f"depend = {needs}")
    if state == WAITING and said.get("hold_types", "n") != "n":
        words.append(f"Hold_Types = {said['hold_types']}")
    if said.get("exit_status", "0") != "0":
        words.append(f"Exit_status = {said['exit_status']}")
    return Seen(state, ", ".join(words))


class Pbs(Scheduler):
    """Jobs resubmit themselves: users may not requeue a job of PBS."""

    name = "pbs"
    commands = ("qsub", "qstat", "qdel", "qrls")
    files: ClassVar = {"script.pbs": "pbs.sh.j2"}

    def paths(self, folder: Path, array: bool) -> dict[Path, str]:
        """A new one for each array: tasks read it when they start, and those of the one before may still wait."""
        before = len(list(folder.glob("script*.pbs"))) if array else 0
        return {folder / f"script{before or ''}.pbs": "pbs.sh.j2"}

    def _submit(self, node: Node, needs: Sequence[str]) -> str:
        """Held, because a job that has ended cannot be named as one to wait for."""
        words, script = ["qsub", "-h"], str(node.context["script"])
        if needs:
            words += ["-W", f"depend=after{node.after}:{':'.join(needs)}"]
        return submitted([*words, script], node.context["cwd"]).strip()

    def _release(self, ids: Sequence[str]) -> None:
        """The first ones last: where one fails at once, those that need it are gone."""
        call(["qrls", *reversed(ids)])

    def task(self, job: str, position: int, point: int) -> str:
        """PBS counts the tasks of an array; one task alone is none."""
        return job.replace("[]", f"[{position}]")

    def seen(self, jobs: Sequence[Job]) -> dict[Job, Seen]:
        """From qstat, with the jobs that have ended where the server remembers them."""
        ids = sorted({re.sub(r"\[\d+\]", "[]", job.id) for job in jobs})
        words = ["-f", *(["-t"] if any("[]" in one for one in ids) else []), *ids]
        gone = "Unknown Job|has finished"
        try:
            found = parse_qstat(call(["qstat", "-x", *words], harmless=gone))
        except AnyrankError as error:
            if not re.search("history|Unknown option", str(error)):
                raise
            found = parse_qstat(call(["qstat", *words], harmless=gone))
        return {job: found[job.id] for job in jobs if job.id in found}

    def cancel(self, jobs: Sequence[Job], alone: bool = False) -> None:
        """By qdel, which leaves a running job ten seconds for its checkpoint."""
        call(["qdel", *(job.id for job in jobs)], harmless="Unknown Job|has finished")
