"""`anyrank resume RUN`: continue a stopped run, or extend one, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from anyrank.cli.execution import execute, under_watchdog
from anyrank.cli.flags import Command, ProgramCommand
from anyrank.errors import UsageError, at
from anyrank.program import Program, validate
from anyrank.runtime.folder import Description, RunFolder
from anyrank.runtime.options import RESUME, Options
from anyrank.runtime.programs import load


class ResumeCommand(Command):
    """The command for a folder. If the folder holds a run, the command has the parameters of its program, too."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the words, by the command for the run in the folder that they name."""
        folder, program = self._find(args)
        description = folder.describe() if folder is not None else None
        if folder is None or description is None:
            return super().make_context(info_name, args, parent, **extra)
        source, loaded = _load(folder, description, program)
        with at(str(folder.description)):
            recorded = validate(loaded, description.parameters, "{} =".format)
        command = ProgramCommand(
            self.name,
            callback=_resume(source, loaded, description),
            program=loaded,
            recorded=recorded,
            tables=self.tables,
            contexts=RESUME,
            params=[param for param in self.params if param.name in ("run", "program")],
            help=self.help,
        )
        return command.make_context(info_name, args, parent, **extra)

    def _find(self, args: Sequence[str]) -> tuple[RunFolder | None, str | None]:
        """Return the folder among the words, None if there is none, and the value of --program."""
        probe = click.Context(self, ignore_unknown_options=True, allow_extra_args=True, resilient_parsing=True)
        try:
            values, others, _ = self.make_parser(probe).parse_args([*args])
        except click.UsageError:  # the command reports it
            return None, None
        folders = [Path(word) for word in (values.get("run"), *others) if isinstance(word, str) and Path(word).is_dir()]
        return (RunFolder(folders[0]) if folders else None), values.get("program")


def _load(folder: RunFolder, description: Description, program: str | None) -> tuple[str, type[Program]]:
    """Return the source of the run's program and the program; `program` is the source that the user gives."""
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
            f"--program {source} is {loaded.name!r}, but {folder.path} is a run of {description.program!r}. "
            "Give the file of that program."
        )
    return source, loaded


def _resume(source: str, loaded: type[Program], description: Description) -> Callable[..., int]:
    """Return a function that continues the run."""

    def resume(run: Path, program: str | None, parameters: dict[str, Any], options: Options) -> int:
        given = options.given()
        merged = Options(**{**description.options, **given})
        with under_watchdog(merged):
            instance = loaded(**parameters)
        return execute(source, instance, merged, run, given.get("ranks"), extend=True)

    return resume


@click.command(name="resume", cls=ResumeCommand, tables={"options": Options}, contexts=RESUME)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--program", help="The program file, if it is no longer at the path that the run used.")
def command(run: Path, program: str | None, options: Options) -> int:
    """Continue the run in the folder RUN from its newest valid checkpoint.

    An option or a parameter that is not given keeps the value of the run. Of the parameters, only those that the
    program declares as extendable may change, and only grow: --steps 6000 continues a run of 3000 steps, also if it is
    finished, as if it had been one of 6000.
    """
    raise UsageError(
        f"{run} holds no run (no run.toml, and no valid checkpoint). Give the folder of a run, as in --out."
    )
