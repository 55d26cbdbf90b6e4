"""What a run folder and its `job` folder tell of a run that was submitted: ids, attempts, and how it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from anyrank.batch.known import find
from anyrank.batch.scheduler import NEVER, RUNNING, WAITING, Job, Seen
from anyrank.errors import STOPPED, UsageError
from anyrank.runtime.folder import RunFolder
from anyrank.storage.durable import write_atomically

#: In the `job` folder: the ids of the jobs, one to a line; a line for every start and end; what was submitted; a file
#: that is there when the run was cancelled.
ID, ATTEMPTS, SUBMISSION, CANCELLED = "id", "attempts", "submission.json", "cancelled"


@dataclass(frozen=True)
class Standing:
    """How a run stands: in one word, with its step, its attempts, the ids of its jobs, and the reason in words."""

    name: str
    folder: str
    state: str
    step: int | None = None
    attempts: int = 0
    jobs: tuple[str, ...] = ()
    reason: str = ""
    needs: tuple[str, ...] = field(default=(), repr=False)


def job_folder(folder: Path) -> Path:
    """Where the job of a run, or the study's own, lives."""
    return folder / "job"


def write_ids(folder: Path, ids: Iterable[str]) -> None:
    """Write down the jobs of a run."""
    job_folder(folder).mkdir(parents=True, exist_ok=True)
    write_atomically(job_folder(folder) / ID, "".join(f"{one}\n" for one in ids))


def jobs_of(folder: Path) -> list[Job]:
    """The jobs of a run, none where it was not submitted."""
    with suppress(OSError):
        return [Job(job_folder(folder), one) for one in (job_folder(folder) / ID).read_text(encoding="utf-8").split()]
    return []


def write_submission(folder: Path, **facts: Any) -> None:
    """Write down what was submitted, by which scheduler and when."""
    job_folder(folder).mkdir(parents=True, exist_ok=True)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_atomically(job_folder(folder) / SUBMISSION, json.dumps({"time": now, **facts}, indent=2) + "\n")


def submission(folder: Path) -> dict[str, Any]:
    """What was submitted from this folder, a run's or a study's, or with its study; UsageError where nothing was."""
    for place in (folder, folder.parent):
        with suppress(OSError, ValueError, LookupError):
            found: dict[str, Any] = json.loads((job_folder(place) / SUBMISSION).read_text(encoding="utf-8"))
            if folder.name in found["members"] or place == folder:
                return found
    raise UsageError(f"{folder} was not submitted. Give the folder of a run or a study that was.")


def members(folder: Path) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """The runs that were submitted from a folder: their folders, and the names of those that each needs."""
    told = submission(folder)["members"]
    if not (job_folder(folder) / SUBMISSION).exists():
        return {folder.name: (folder, ())}
    return {name: (folder / one["folder"], tuple(one["needs"])) for name, one in told.items()}


def attempts(folder: Path) -> tuple[int, int | None]:
    """How often the job has started, and the exit status of its last attempt, None where it has not ended."""
    try:
        lines = (job_folder(folder) / ATTEMPTS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0, None
    last = next((line for line in reversed(lines) if " given up" not in line), "")
    ended = re.search(r" ended (\d+)", last)
    return sum(" started " in line for line in lines), int(ended[1]) if ended else None


def is_finished(folder: Path) -> bool:
    """Whether the run is finished; a command is when it left with 0."""
    if RunFolder(folder).description.exists():
        return RunFolder(folder).finished() is not None
    return attempts(folder)[1] == 0


def seen(folders: Sequence[Path], scheduler: str) -> dict[Job, Seen]:
    """What the scheduler says of the jobs of these runs. Raises UsageError where its commands are not here."""
    jobs = [job for folder in folders for job in jobs_of(folder)]
    if not jobs:
        return {}
    asked = find(scheduler)
    if asked.missing():
        raise UsageError(
            f"{jobs[0].folder.parent} is a job of {scheduler}, but {asked.missing()} is not on this machine."
        )
    return asked.seen(jobs)


def alive(folder: Path, told: Mapping[Job, Seen]) -> list[Job]:
    """The jobs of a run that wait or run."""
    return [job for job in jobs_of(folder) if job in told and told[job].state in (WAITING, RUNNING)]


def standing(folder: Path) -> list[Standing]:
    """How the run in a folder stands, or every run of a study, in the order of submission."""
    runs = members(folder)
    told = seen([path for path, _ in runs.values()], submission(folder)["scheduler"])
    found: dict[str, Standing] = {}
    for name, (path, needs) in runs.items():
        found[name] = _explained(replace(_one(name, path, told), needs=needs), found)
    return list(found.values())


def _one(name: str, folder: Path, told: Mapping[Job, Seen]) -> Standing:
    starts, status = attempts(folder)
    jobs = jobs_of(folder)
    known = [told[job] for job in jobs if job in told]
    now = next((one for state in (RUNNING, WAITING, NEVER) for one in known if one.state == state), None)
    last = known[-1].reason if known else ""
    if is_finished(folder):
        state, reason = "finished", ""
    elif now is not None and not (now.state == NEVER and starts):
        state, reason = now.state, now.reason
    elif (job_folder(folder) / CANCELLED).exists():
        state, reason = "cancelled", last or "by anyrank cancel"
    elif not starts:
        state, reason = ("ended" if jobs else "new"), last or ("its job is gone and never ran" if jobs else "")
    elif status == STOPPED:
        state, reason = "stopped", last or "its last attempt stopped, with a checkpoint"
    elif status is None:
        state, reason = "killed", last or "its last attempt did not end by itself"
    else:
        state, reason = "failed", _failure(folder) or f"status {status}; its output is in {job_folder(folder)}"
    return Standing(name, str(folder), state, _step(folder), starts, tuple(job.id for job in jobs), reason)


def _explained(one: Standing, before: Mapping[str, Standing]) -> Standing:
    """Name the runs that keep this one, which has not run, from running for ever."""
    bad = [name for name in one.needs if before[name].state in ("failed", "killed", "stopped", "cancelled", NEVER)]
    if not bad or one.attempts or one.state in (RUNNING, "finished"):
        return one
    causes = "; ".join(f"{name}, which {_past(before[name])}" for name in bad)
    return replace(one, state=NEVER, reason=f"needs {causes}")


def _past(one: Standing) -> str:
    words = {NEVER: "never ran", "killed": "was killed"}
    return f"{words.get(one.state, one.state)} ({one.reason})"


def _step(folder: Path) -> int | None:
    """The step of the newest checkpoint."""
    from anyrank.storage.keep import checkpoint_files, step_of

    return max(map(step_of, checkpoint_files(folder / "checkpoints")), default=None)


def _failure(folder: Path) -> str:
    """The error that ended the last attempt, as the run's events tell it."""
    with suppress(OSError, ValueError, LookupError):
        last = json.loads((folder / "events.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        return f"{last['error']} on rank {last['ranks']}, step {last['step']}"
    return ""
