"""`anyrank farm FILE.py:FUNCTION --table TABLE`: independent tasks on all ranks; short for `anyrank run farm`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from anyrank.cli.execution import execute, under_watchdog
from anyrank.cli.flags import ProgramCommand
from anyrank.cli.run import help_of
from anyrank.declaration import Settings
from anyrank.runtime.options import Options, OutOptions
from anyrank.runtime.programs import load

NAME = "farm"


def _run(parameters: dict[str, Any], out_options: OutOptions, options: Options, dry_run: bool) -> int:
    out = Path(out_options.out) if out_options.out else None
    with under_watchdog(options):
        instance = load(NAME)(**parameters)
    if dry_run:
        click.echo("\n".join(instance.preview()))  # type: ignore[attr-defined]
        return 0
    return execute(NAME, instance, options, out, options.given().get("ranks"))


def _command() -> click.Command:
    program = load(NAME)
    tables: dict[str, type[Settings]] = {"out_options": OutOptions, "options": Options}
    return ProgramCommand(
        NAME,
        callback=_run,
        program=program,
        tables=tables,
        params=[
            click.Option(["--dry-run"], is_flag=True, help="Check the table, print the first tasks, and run none."),
        ],
        help=help_of(program),
        short_help=program.summary(),
    )


command = _command()
