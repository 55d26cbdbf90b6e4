"""The state of a submitted run, from its run folder and its `job` folder: ids, attempts and status."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from anyrank.batch.known import find_scheduler
from anyrank.batch.scheduler import NEVER, RUNNING, WAITING, Job, JobState
from anyrank.errors import STOPPED, UsageError
from anyrank.runtime.folder import RunFolder
from anyrank.storage.durable import write_atomically

#: Files in the `job` folder: the ids of the jobs, one per line; a line for each start and end of an attempt; the
#: submission; and a file that exists if the run was cancelled.
ID, ATTEMPTS, SUBMISSION, CANCELLED = "id", "attempts", "submission.json", "cancelled"


@dataclass(frozen=True)
class RunStatus:
    """The status of a run: its state, step, attempts, job ids, the reason as text, and how far it is if it tells."""

    name: str
    folder: str
    state: str
    step: int | None = None
    attempts: int = 0
    jobs: tuple[str, ...] = ()
    reason: str = ""
    needs: tuple[str, ...] = field(default=(), repr=False)
    progress: str = ""


def job_folder(folder: Path) -> Path:
    """Return the folder with the job files of a run or a study."""
    return folder / "job"


def write_ids(folder: Path, ids: Iterable[str]) -> None:
    """Write the job ids of a run."""
    job_folder(folder).mkdir(parents=True, exist_ok=True)
    write_atomically(job_folder(folder) / ID, "".join(f"{job}\n" for job in ids))


def jobs_of(folder: Path) -> list[Job]:
    """Return the jobs of a run; empty if it was not submitted."""
    with suppress(OSError):
        ids = (job_folder(folder) / ID).read_text(encoding="utf-8").split()
        return [Job(job_folder(folder), job_id) for job_id in ids]
    return []


def write_submission(folder: Path, **metadata: Any) -> None:
    """Write the metadata of a submission with the current time."""
    job_folder(folder).mkdir(parents=True, exist_ok=True)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_atomically(job_folder(folder) / SUBMISSION, json.dumps({"time": now, **metadata}, indent=2) + "\n")


def submission(folder: Path) -> dict[str, Any]:
    """Read the submission of a run or a study, or of the study that holds the run; UsageError if there is none."""
    for origin in (folder, folder.parent):
        with suppress(OSError, ValueError, LookupError):
            content: dict[str, Any] = json.loads((job_folder(origin) / SUBMISSION).read_text(encoding="utf-8"))
            if folder.name in content["members"] or origin == folder:
                return content
    raise UsageError(f"{folder} was not submitted. Give the folder of a submitted run or study.")


def members(folder: Path) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """Return the submitted runs of a folder: for each its folder, and the names of the runs that it needs."""
    entries = submission(folder)["members"]
    if not (job_folder(folder) / SUBMISSION).exists():
        return {folder.name: (folder, ())}
    return {name: (folder / entry["folder"], tuple(entry["needs"])) for name, entry in entries.items()}


def attempts(folder: Path) -> tuple[int, int | None]:
    """Return the number of attempts, and the exit status of the last one, None if it has not ended."""
    try:
        lines = (job_folder(folder) / ATTEMPTS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0, None
    last = next((line for line in reversed(lines) if " given up" not in line), "")
    ended = re.search(r" ended (\d+)", last)
    return sum(" started " in line for line in lines), int(ended[1]) if ended else None


def is_finished(folder: Path) -> bool:
    """Return whether the run is finished; a command is finished if it returned 0."""
    if RunFolder(folder).description.exists():
        return RunFolder(folder).finished() is not None
    return attempts(folder)[1] == 0


def job_states(folders: Sequence[Path], scheduler: str) -> dict[Job, JobState]:
    """Ask the scheduler for the states of the jobs of these runs. UsageError if its commands are missing here."""
    jobs = [job for folder in folders for job in jobs_of(folder)]
    if not jobs:
        return {}
    system = find_scheduler(scheduler)
    if system.missing():
        raise UsageError(
            f"{jobs[0].folder.parent} is a job of {scheduler}, but {system.missing()} is not on this machine. "
            "Use a machine that has it."
        )
    return system.job_states(jobs)


def live_jobs(folder: Path, states: Mapping[Job, JobState]) -> list[Job]:
    """Return the waiting and running jobs of a run."""
    return [job for job in jobs_of(folder) if job in states and states[job].state in (WAITING, RUNNING)]


def run_statuses(folder: Path) -> list[RunStatus]:
    """Return the status of the run in a folder, or of every run of a study, in the order of submission."""
    runs = members(folder)
    states = job_states([path for path, _ in runs.values()], submission(folder)["scheduler"])
    statuses: dict[str, RunStatus] = {}
    for name, (path, needs) in runs.items():
        statuses[name] = _with_cause(replace(_status_of(name, path, states), needs=needs), statuses)
    return list(statuses.values())


def _status_of(name: str, folder: Path, states: Mapping[Job, JobState]) -> RunStatus:
    starts, status = attempts(folder)
    jobs = jobs_of(folder)
    known = [states[job] for job in jobs if job in states]
    now = next((job for state in (RUNNING, WAITING, NEVER) for job in known if job.state == state), None)
    last = known[-1].reason if known else ""
    if is_finished(folder):
        state, reason = "finished", ""
    elif now is not None and not (now.state == NEVER and starts):
        state, reason = now.state, now.reason
    elif (job_folder(folder) / CANCELLED).exists():
        state, reason = "cancelled", last or "by anyrank cancel"
    elif not starts:
        state, reason = ("ended" if jobs else "new"), last or ("its job disappeared and never ran" if jobs else "")
    elif status == STOPPED:
        state, reason = "stopped", last or "its last attempt stopped, with a checkpoint"
    elif status is None:
        state, reason = "killed", last or "its last attempt did not end by itself"
    else:
        state, reason = "failed", _failure(folder) or f"status {status}; its output is in {job_folder(folder)}"
    ids, progress = tuple(job.id for job in jobs), _progress(folder)
    return RunStatus(name, str(folder), state, _step(folder), starts, ids, reason, progress=progress)


def _with_cause(run: RunStatus, before: Mapping[str, RunStatus]) -> RunStatus:
    """Give the reason if a run can never start, because runs that it needs have failed."""
    bad = [name for name in run.needs if before[name].state in ("failed", "killed", "stopped", "cancelled", NEVER)]
    if not bad or run.attempts or run.state in (RUNNING, "finished"):
        return run
    causes = "; ".join(f"{name}, which {_outcome(before[name])}" for name in bad)
    return replace(run, state=NEVER, reason=f"needs {causes}")


def _outcome(run: RunStatus) -> str:
    words = {NEVER: "never ran", "killed": "was killed"}
    return f"{words.get(run.state, run.state)} ({run.reason})"


def _step(folder: Path) -> int | None:
    """Return the step of the newest checkpoint."""
    from anyrank.storage.checkpoint_folder import checkpoint_files, step_of

    return max(map(step_of, checkpoint_files(folder / "checkpoints")), default=None)


def _progress(folder: Path) -> str:
    """Return how far the run is, if its program tells it in other words than the step."""
    with suppress(OSError, ValueError):
        return RunFolder(folder).progress.read_text(encoding="utf-8").strip()
    return ""


def _failure(folder: Path) -> str:
    """Return the error that ended the last attempt, from the events of the run."""
    with suppress(OSError, ValueError, LookupError):
        last = json.loads((folder / "events.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        return f"{last['error']} on rank {last['ranks']}, step {last['step']}"
    return ""
