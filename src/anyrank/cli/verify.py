"""`anyrank verify PROGRAM`: check that a program gives the same bits in all cases."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import tomli_w

from anyrank import launcher
from anyrank.cli.execution import rank_list
from anyrank.cli.run import Programs
from anyrank.errors import UsageError
from anyrank.program import Program
from anyrank.runtime.options import option_words
from anyrank.values import seconds_of
from anyrank.verify.matrix import CaseMatrix
from anyrank.verify.options import VerifyOptions
from anyrank.verify.report import write_junit
from anyrank.verify.runner import Runner
from anyrank.verify.verification import Verification


class Verifications(Programs):
    """The commands that verify a program."""

    tables = {"settings": VerifyOptions}  # noqa: RUF012

    def action(self, source: str, program: type[Program]) -> Callable[..., int]:
        """Return a function that verifies the program."""

        def verify(parameters: dict[str, Any], settings: VerifyOptions) -> int:
            plan, instance, junit = _plan(settings, program), program(**parameters), settings.junit
            if junit and (Path(junit).is_dir() or not Path(junit).resolve().parent.is_dir()):
                raise UsageError(f"--junit {junit} cannot be written: give a file in a folder that exists.")
            folder = _folder(settings.out, program.name)
            file = folder / "parameters.toml"
            file.write_text(tomli_w.dumps(instance.parameters), encoding="utf-8")
            outputs = option_words(settings.outputs())
            runner = Runner(source, file, folder, seconds_of(settings.timeout), outputs)
            verification = Verification(runner, plan, click.echo)
            code = 1
            try:
                code = verification.execute()
            finally:
                if junit and verification.outcomes:
                    write_junit(Path(junit), program.name, verification.outcomes, verification.explanations)
                if code == 0 and not settings.out:
                    shutil.rmtree(folder)
                elif code:
                    click.echo(f"The runs are kept in {folder}, numbered in the order of execution.")
            return code

        return verify


def _plan(settings: VerifyOptions, program: type[Program]) -> CaseMatrix:
    if launcher.tasks() > 1:
        raise UsageError("verify starts ranks itself: run it without mpiexec.")
    numbers = rank_list(settings.ranks, settings.allow)
    bodies, splits = (tuple(text.split(",")) if text else () for text in (settings.body, settings.split))
    extendable = "steps" in program.extendable_parameters()
    return CaseMatrix(numbers, bodies, splits, settings.quick, program.deep_halos, extendable)


def _folder(out: str, program: str) -> Path:
    """Make a new folder for all runs and return it."""
    if not out:
        return Path(tempfile.mkdtemp(prefix=f"anyrank-verify-{program}-"))
    try:
        Path(out).mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be made: {error.strerror}. Give the name of a new folder.") from None
    return Path(out).resolve()


@click.group(cls=Verifications, name="verify", subcommand_metavar="PROGRAM [PARAMETERS] [OPTIONS]")
def command() -> None:
    """Run a program on different ranks, with different splits, bodies and restarts; compare every step bit for bit."""
