"""`anyrank cancel RUN`: end the jobs of runs, whatever the scheduler."""

from __future__ import annotations

from pathlib import Path

import click

from anyrank.batch.job import CANCELLED, is_finished, job_folder, job_states, live_jobs, members, submission
from anyrank.batch.known import find_scheduler


@click.command(name="cancel")
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True)
def command(runs: tuple[Path, ...]) -> int:
    """End the queued and running jobs of these run or study folders. No file is deleted."""
    for folder in map(Path.absolute, runs):
        scheduler = submission(folder)["scheduler"]
        paths = [path for path, _ in members(folder).values()]
        states = job_states(paths, scheduler)
        for path in paths:
            if not is_finished(path):
                (job_folder(path) / CANCELLED).touch()  # a job checks for this file before it continues
        jobs = [job for path in paths for job in live_jobs(path, states)]
        if jobs:
            find_scheduler(scheduler).cancel(jobs, len(paths) == 1)
        names = " ".join(job.id for job in jobs)
        click.echo(f"{folder}: cancelled {names}" if jobs else f"{folder}: nothing is queued or running")
    return 0
