"""`anyrank table RUNS…`: one row for each run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from anyrank.errors import UsageError


@click.command(name="table")
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--format", "form", type=click.Choice(["csv", "json"]), default="csv", help="The format.  [default: csv]")
def command(runs: tuple[Path, ...], form: str) -> int:
    """Print one row for each run in these run or study folders: parameters, results, speed, digest and lineage.

    A run that cannot be read is named on standard error, and the status is then 1.
    """
    from anyrank.runtime.table import write_csv

    problems: list[str] = []
    rows = [*_rows(runs, problems)]
    if form == "json":
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        write_csv(rows, sys.stdout)
    for problem in problems:
        click.echo(f"anyrank: {problem}", err=True)
    return 1 if problems else 0


def _rows(runs: Iterable[Path], problems: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the runs that can be read; add a message for each other one to `problems`."""
    from anyrank.runtime.table import row, runs_in

    for given in runs:
        try:
            folders = runs_in(given)
        except (UsageError, OSError) as error:
            problems.append(str(error))
            continue
        for folder in folders:
            try:
                yield row(folder)
            except (UsageError, OSError, ValueError, LookupError, TypeError) as error:
                problems.append(str(error) if isinstance(error, UsageError) else f"{folder} cannot be read: {error!r}")
