"""`anyrank verify PROGRAM`: run a program in all the ways that must not matter."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import tomli_w

from anyrank import launcher
from anyrank.cli.execution import rank_list, read_parameters
from anyrank.cli.run import Programs, with_parameter_file
from anyrank.errors import UsageError
from anyrank.layout import SPLITS
from anyrank.program import Program
from anyrank.run.duration import duration
from anyrank.run.options import Options
from anyrank.verify.matrix import Plan
from anyrank.verify.report import write_junit
from anyrank.verify.runner import Runner
from anyrank.verify.verification import Verification


class Verifications(Programs):
    """A verification of each program."""

    def action(self, source: str, program: type[Program]) -> Callable[..., int]:
        """Verify it."""

        @with_parameter_file
        @click.option("-n", "--ranks", default="1,2,3,4", help="Numbers of ranks.  [default: 1,2,3,4]")
        @click.option("--body", default="", help="Kernel bodies: numba,cython.  [default: all]")
        @click.option("--split", default="", help="Splits: rows,bricks.  [default: rows,columns,bricks]")
        @click.option("--quick", is_flag=True, help="The cases that tell most, for every commit.")
        @click.option("--junit", help="Write what came of the cases to this file, as JUnit XML.")
        @click.option("--out", help="A new folder for all runs.  [default: a temporary one, kept if cases differ]")
        @click.option("--timeout", default="10min", help="A run that takes longer has failed.  [default: 10min]")
        @click.option("--allow", type=int, help="The most ranks there may be.  [default: 4, or 2 per core]")
        def verify(
            parameters: str | None, junit: str | None, out: str | None, timeout: str, allow: int | None, **values: Any
        ) -> int:
            plan = _plan(allow, *map(values.pop, ("ranks", "body", "split", "quick")))
            seconds = duration(timeout, "--timeout")
            ready = program(**read_parameters(parameters, values))
            if junit and (Path(junit).is_dir() or not Path(junit).resolve().parent.is_dir()):
                raise UsageError(f"--junit {junit} cannot be written: give a file in a folder that exists.")
            folder = _folder(out, program.name)
            file = folder / "parameters.toml"
            file.write_text(tomli_w.dumps(ready.parameters))
            verification = Verification(Runner(source, file, folder, seconds), plan, click.echo)
            code = 1
            try:
                code = verification.carry_out()
            finally:
                if junit and verification.outcomes:
                    write_junit(Path(junit), program.name, verification.outcomes, verification.found)
                if code == 0 and not out:
                    shutil.rmtree(folder)
                elif code:
                    click.echo(f"The runs are kept in {folder}, numbered as they were made.")
            return code

        return verify


def _plan(allow: int | None, ranks: str, body: str, split: str, quick: bool) -> Plan:
    if launcher.tasks():
        raise UsageError("verify starts ranks itself: run it without mpiexec.")
    numbers = rank_list(ranks, allow)
    bodies, splits = (tuple(text.split(",")) if text else () for text in (body, split))
    for name in bodies:
        Options(body=name)
    for name in splits:
        if name not in SPLITS:
            raise UsageError(f"--split {name!r} must be one of {', '.join(SPLITS)}, or several joined by commas.")
    return Plan(numbers, bodies, splits, quick)


def _folder(out: str | None, program: str) -> Path:
    """A new folder for all runs."""
    if out is None:
        return Path(tempfile.mkdtemp(prefix=f"anyrank-verify-{program}-"))
    try:
        Path(out).mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be made: {error.strerror}. Name a folder that is not there.") from None
    return Path(out).resolve()


@click.group(cls=Verifications, name="verify", subcommand_metavar="PROGRAM [PARAMETERS] [OPTIONS]")
def command() -> None:
    """Run a program on other ranks, splits and bodies, stopped and resumed, and compare every step bit by bit."""
