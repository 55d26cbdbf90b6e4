"""`anyrank resume RUN`: continue a stopped run, on any number of ranks."""

from __future__ import annotations

from pathlib import Path

import click

from anyrank.cli.execution import execute, under_watchdog
from anyrank.cli.flags import Command
from anyrank.errors import UsageError, at
from anyrank.program import validate
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.options import RESUME, Options
from anyrank.runtime.programs import load


@click.command(name="resume", cls=Command, tables={"options": Options}, contexts=RESUME)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--program", help="The program file, if it is no longer at the path that the run used.")
def command(run: Path, program: str | None, options: Options) -> int:
    """Continue the run in the folder RUN from its newest valid checkpoint.

    An option that is not given keeps the value of the run. The parameters cannot change.
    """
    folder, given = RunFolder(run), options.given()
    description = folder.describe()
    if description is None:
        raise UsageError(
            f"{run} holds no run (no run.toml, and no valid checkpoint). Give the folder of a run, as in --out."
        )
    source = program or description.source
    if not source:
        raise UsageError(
            f"{folder.description} is missing, and no checkpoint contains the path of the program "
            f"{description.program!r}. Add --program FILE."
        )
    with under_watchdog():
        loaded = load(source)
    if loaded.name != description.program:
        raise UsageError(
            f"--program {source} is {loaded.name!r}, but {run} is a run of {description.program!r}. "
            "Give the file of that program."
        )
    with at(str(folder.description)):
        parameters = validate(loaded, description.parameters, "{} =".format)
    merged = Options(**{**description.options, **given})
    with under_watchdog(merged):
        instance = loaded(**parameters)
    return execute(source, instance, merged, run, given.get("ranks"))
