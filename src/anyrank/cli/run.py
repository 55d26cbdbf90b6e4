"""`anyrank run PROGRAM`: run a program of anyrank or of the user."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import click

from anyrank.cli.execution import execute, under_watchdog
from anyrank.cli.flags import ProgramCommand
from anyrank.declaration import Settings
from anyrank.program import Program
from anyrank.runtime.options import Options, OutOptions
from anyrank.runtime.programs import available_programs, load
from anyrank.runtime.user_files import absolute


def help_of(program: type[Program]) -> str:
    """Return the program's docstring for click, marked so that click does not wrap its indented commands."""
    paragraphs = (inspect.getdoc(program) or "").split("\n\n")
    return "\n\n".join(f"\b\n{text}" if text.startswith("    ") else text for text in paragraphs)


class Programs(click.Group):
    """A command for each program, also for a file of the user. A subclass for each verb defines the action."""

    #: The tables of options of the verb, by the parameter names of `action`; and the contexts in which options are
    #: refused.
    tables: ClassVar[Mapping[str, type[Settings]]]
    contexts: tuple[str, ...] = ()

    def action(self, source: str, program: type[Program]) -> Callable[..., int]:
        """Return the action of the verb: a function of the checked `parameters` and of the tables."""
        raise NotImplementedError

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the programs that come with anyrank."""
        return available_programs()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Return the command of a program, with its parameters and the options of the verb."""
        with under_watchdog():
            program = load(cmd_name)
        source = absolute(cmd_name)
        return ProgramCommand(
            cmd_name,
            callback=self.action(source, program),
            program=program,
            tables=self.tables,
            contexts=self.contexts,
            help=help_of(program),
            short_help=program.summary(),
        )


class Runs(Programs):
    """The commands that run a program."""

    tables = {"out_options": OutOptions, "options": Options}  # noqa: RUF012

    def action(self, source: str, program: type[Program]) -> Callable[..., int]:
        """Return a function that runs the program."""

        def run(parameters: dict[str, Any], out_options: OutOptions, options: Options) -> int:
            out = Path(out_options.out) if out_options.out else None
            with under_watchdog(options):
                instance = program(**parameters)
            return execute(source, instance, options, out, options.given().get("ranks"))

        return run


@click.group(cls=Runs, name="run", subcommand_metavar="PROGRAM [PARAMETERS] [OPTIONS]")
def command() -> None:
    """Run a program: a name from `anyrank list`, or your own file, such as ./my_program.py."""
