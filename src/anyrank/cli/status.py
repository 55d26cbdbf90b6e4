"""`anyrank status RUN`: show the status of submitted runs, for all schedulers."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from json import dumps
from pathlib import Path

import click

from anyrank.batch.job import run_statuses


@click.command(name="status")
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--json", "json", is_flag=True, help="Print one JSON array.")
def command(runs: tuple[Path, ...], json: bool) -> int:
    """Show the status of the runs in these run or study folders, and why a run failed or waits."""
    statuses = [status for folder in runs for status in run_statuses(folder.absolute())]
    if json:
        click.echo(dumps([asdict(status) for status in statuses], indent=2))
        return 0
    width = max(len(status.name) for status in statuses)
    for status in statuses:
        step = status.progress or ("" if status.step is None else f"step {status.step}")
        attempt = f"attempt {status.attempts}" if status.attempts else ""
        line = f"{status.name:<{width}}  {status.state:<9} {step:<12} {attempt:<11} {' '.join(status.jobs)}"
        line += f"  {status.reason}"
        click.echo(line.rstrip())
    if len(statuses) > 1:
        counts = Counter(status.state for status in statuses)
        click.echo(", ".join(f"{count} {state}" for state, count in counts.items()))
    return 0
