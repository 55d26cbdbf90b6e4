"""`anyrank run PROGRAM`: run a program, ours or the user's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, get_type_hints

import click

from anyrank.cli.execution import carry_out, read_parameters
from anyrank.kernel import FILES
from anyrank.program import Program, choices, flag_of
from anyrank.programs import available, load
from anyrank.run.options import CHECKPOINT_IO, OPTION_NAMES, TRANSFERS, Options

RUN_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("-n", "--ranks", type=int, help="MPI ranks; more than 1 starts mpiexec.  [default: 1]"),
    click.option("--threads", type=int, help="Threads of a rank.  [default: 1]"),
    click.option("--bind", help="Bind ranks to cores: auto (in batch jobs), core, none.  [default: auto]"),
    click.option("--body", help=f"Kernel body: auto, {', '.join(FILES)}; a,b: by turns on a node.  [default: auto]"),
    click.option("--split", help="auto, rows, columns, bricks, or a grid such as 2x3.  [default: auto]"),
    click.option("--halo-steps", type=int, help="Exchange wider halos, once in so many steps.  [default: 1]"),
    click.option("--transfer", help=f"Halos of GPUs: {', '.join(TRANSFERS)} (pinned memory).  [default: auto]"),
    click.option("--checkpoint-every", help="Steps (200), a time (10min), auto or off.  [default: auto]"),
    click.option("--checkpoint-io", help=f"{', '.join(CHECKPOINT_IO)}.  [default: pwrite]"),
    click.option("--keep", type=int, help="How many checkpoints stay, beside marked ones.  [default: 2]"),
    click.option("--mtbf", help="Mean time between failures, for --checkpoint-every auto.  [default: 24h]"),
    click.option("--walltime", help="Stop with a checkpoint before so much time is over (2:00:00, 90min)."),
    click.option("--stop-at", type=int, help="Stop with a checkpoint at this step, with status 75."),
    click.option(
        "--hang-timeout", help="Without a step for so long, show all stacks and end; 0: never.  [default: 30min]"
    ),
    click.option("--memory-limit", help="What each rank may take of memory, where programs can spill: 2GB."),
    click.option("--check", is_flag=True, default=None, help="Check that all ranks make the same collective calls."),
    click.option("--digests", is_flag=True, default=None, help="Write the digests of every step to digests.jsonl."),
    click.option("--max-restarts", type=int, help="Restart a run that died so many times.  [default: 0]"),
    click.option("--min-ranks", type=int, help="Restart on no fewer ranks, where hosts are gone.  [default: 1]"),
    click.option("--hosts", help="Where to start the ranks: node1:8,node2:8."),
    click.option("--chaos", help="Faults to inject, such as 'kill rank=2 step=100'; see docs/trust.md."),
    click.option("--i-mean-it", is_flag=True, default=None, help="Allow --chaos on a run that was begun before."),
    click.option("--picture/--no-picture", default=None, help="Draw the final state, if the program can."),
    click.option("--json", "json", is_flag=True, default=None, help="Print summary.json as the last line."),
    click.option("--quiet", is_flag=True, default=None, help="No progress, no words."),
)


def with_run_options(command: Callable[..., Any], without: Collection[str] = ()) -> Callable[..., Any]:
    """Give a click command the options of every run, but for some."""
    for option in reversed(RUN_OPTIONS):
        command = option(command)
    found = command.__click_params__  # type: ignore[attr-defined]
    found[:] = [option for option in found if option.name not in without]
    return command


with_parameter_file = click.option("--parameters", help="A TOML file of parameters; flags win over it.")


def parameter_options(program: type[Program]) -> list[click.Option]:
    """One flag per parameter; the values are checked by the program, in one place for flags and files."""
    hints = get_type_hints(program)
    options = []
    for name, info in program.declared().items():
        flag, kind = flag_of(name), hints.get(name, str)
        allowed = choices(kind)
        bounds = ", ".join(str(bound).split("(")[-1].rstrip(")") for bound in info.metadata)
        notes = [info.description or "", f"one of {', '.join(allowed)}" if allowed else "", bounds]
        text = "; ".join(note for note in notes if note)
        text += "  [required]" if info.is_required() else f"  [default: {info.default}]"
        if kind is bool:
            options.append(click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=text))
        else:
            options.append(click.Option([flag, name], default=None, metavar=_metavar(kind), help=text))
    return options


def _metavar(kind: Any) -> str:
    return {int: "INTEGER", float: "NUMBER"}.get(kind, "TEXT")


def _help(program: type[Program]) -> str:
    """The docstring; click must not wrap its indented lines, which are commands."""
    paragraphs = (inspect.getdoc(program) or "").split("\n\n")
    return "\n\n".join(f"\b\n{text}" if text.startswith("    ") else text for text in paragraphs)


class Programs(click.Group):
    """A command per program; a file of the user's counts as one. A verb's subclass tells what they do."""

    def action(self, source: str, program: type[Program]) -> Callable[..., int]:
        """What the verb does with a program: a function of click options, and of `parameters` and their values."""
        raise NotImplementedError

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the programs that come with anyrank."""
        return available()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """The command of a program: its parameters and the options of the verb."""
        program = load(cmd_name)
        source = str(Path(cmd_name).resolve()) if cmd_name.partition(":")[0].endswith(".py") else cmd_name
        action = self.action(source, program)
        made = click.command(cmd_name, help=_help(program), short_help=program.summary())(action)
        made.params = [*parameter_options(program), *made.params]
        return made


class Runs(Programs):
    """A run of each program."""

    def action(self, source: str, program: type[Program]) -> Callable[..., int]:
        """Run it."""

        @click.option("--out", help="The run folder.  [default: a new one under runs/]")
        @with_parameter_file
        @with_run_options
        def run(out: str | None, parameters: str | None, **values: Any) -> int:
            given = {name: values.pop(name) for name in OPTION_NAMES}
            options = Options(**{name: value for name, value in given.items() if value is not None})
            ready = program(**read_parameters(parameters, values))
            return carry_out(source, ready, options, Path(out) if out else None, given["ranks"])

        return run


@click.group(cls=Runs, name="run", subcommand_metavar="PROGRAM [PARAMETERS] [OPTIONS]")
def command() -> None:
    """Run a program: a name (`anyrank list`), or a file of yours (./my_program.py)."""
