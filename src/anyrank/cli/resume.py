"""`anyrank resume RUN`: go on with a stopped run, on any number of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from anyrank.cli.execution import carry_out
from anyrank.cli.run import with_run_options
from anyrank.errors import UsageError
from anyrank.programs import load
from anyrank.run.folder import RunFolder
from anyrank.run.options import OPTION_NAMES, Options


@click.command(name="resume")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--program", help="Take the program from this file, not from where it was at the run's start.")
@with_run_options
def command(run: Path, program: str | None, **given: Any) -> int:
    """Go on with the run in the folder RUN from its newest good checkpoint.

    Options that are not given are those of the run's start; its parameters never change.
    """
    description = RunFolder(run).describe()
    if description is None:
        raise UsageError(f"{run} holds no run (no run.toml). Give the folder of a run, as --out named it.")
    kept = {name: value for name, value in description.get("options", {}).items() if name in OPTION_NAMES}
    options = Options(**{**kept, **{name: value for name, value in given.items() if value is not None}})
    source = program or description["source"]
    loaded = load(source)
    if program and loaded.name != description.get("program"):
        raise UsageError(
            f"--program {program} is {loaded.name!r}, but {run} is a run of {description.get('program')!r}. "
            "Give the file of that program."
        )
    return carry_out(source, loaded(**description.get("parameters", {})), options, run, given["ranks"])
