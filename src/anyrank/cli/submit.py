"""`anyrank submit RUN|PROGRAM|STUDY.toml`: submit runs to a batch scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from anyrank import launcher
from anyrank.batch.job import submission
from anyrank.batch.request import Request, SubmitOptions, request
from anyrank.batch.site import Site, load_site
from anyrank.batch.study import StudyRun, read_study
from anyrank.batch.submission import Submission
from anyrank.cli.flags import Command, ProgramCommand
from anyrank.cli.run import Programs
from anyrank.declaration import Settings
from anyrank.errors import UsageError, at
from anyrank.program import Program, validate
from anyrank.runtime.folder import Description, RunFolder
from anyrank.runtime.options import JOBS, Options, OutOptions
from anyrank.runtime.programs import available_programs, load
from anyrank.runtime.python import new_folder

TABLES: dict[str, type[Settings]] = {"job_options": Request, "submit_options": SubmitOptions, "options": Options}


class Submissions(Programs):
    """The commands that submit a program, a run folder, or a study (a TOML file)."""

    tables = {"out_options": OutOptions, **TABLES}  # noqa: RUF012
    contexts = JOBS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Return the command for a folder, a study, or a program."""
        path = Path(cmd_name)
        if path.suffix == ".toml":
            return _command(cmd_name, "Submit the study in this file.", _study(path))
        if path.is_dir() and ((path / "run.toml").exists() or cmd_name not in available_programs()):
            return _run_command(cmd_name, path)
        return super().get_command(ctx, cmd_name)

    def action(self, source: str, program: type[Program]) -> Callable[..., int]:
        """Return a function that submits a run of the program."""

        def submit(
            parameters: dict[str, Any],
            out_options: OutOptions,
            job_options: Request,
            submit_options: SubmitOptions,
            options: Options,
        ) -> int:
            instance = program(**parameters)
            if launcher.tasks() <= 1:  # several are refused below
                instance._before_submission()
            folder = (Path(out_options.out) if out_options.out else new_folder(program.name)).absolute()
            member = StudyRun(folder.name, folder, source, instance.parameters, options.given(), {}, (), ())
            return submit_members(
                "run",
                folder,
                [member],
                load_site(submit_options.site),
                [job_options.given()],
                submit_options.dry_run,
                Path.cwd(),
            )

        return submit


def _command(name: str, text: str, action: Callable[..., int]) -> click.Command:
    return click.command(name, cls=Command, tables=TABLES, contexts=JOBS, help=text)(action)


def _run_command(name: str, folder: Path) -> click.Command:
    """Return the command for the run in a folder, with the parameters of its program."""
    description = RunFolder(folder).describe()
    if description is None:
        raise UsageError(f"{folder} holds no run (no run.toml). Give a run's folder, or a study's TOML file.")
    if not description.source:
        raise UsageError(f"{folder}/run.toml is missing. Write it with: anyrank resume {folder} --program FILE.")
    program = load(description.source)
    with at(f"{folder}/run.toml"):
        recorded = validate(program, description.parameters, "{} =".format)
    return ProgramCommand(
        name,
        callback=_resubmit(folder, description, program),
        program=program,
        recorded=recorded,
        tables=TABLES,
        contexts=JOBS,
        help="Submit the run in this folder. Larger values of extendable parameters, such as --steps, extend it.",
    )


def _resubmit(folder: Path, description: Description, program: type[Program]) -> Callable[..., int]:
    """Return a function that submits the run in a folder; its earlier request holds for options that are not given."""

    def submit(
        parameters: dict[str, Any], job_options: Request, submit_options: SubmitOptions, options: Options
    ) -> int:
        path, larger = folder.absolute(), program(**parameters).parameters
        RunFolder(path).check(program.name, larger, program.extendable_parameters(), extend=True)
        if larger != description.parameters and not submit_options.dry_run:
            RunFolder(path).extend(larger)
        earlier = {"threads": description.options.get("threads")}
        member = StudyRun(
            path.name,
            path,
            description.source,
            description.parameters if submit_options.dry_run else larger,
            options.given(),
            {},
            (),
            (),
        )
        cwd, site = Path.cwd(), load_site(submit_options.site)
        with suppress(UsageError):  # if it was not submitted before
            last = submission(path)
            cwd, earlier = Path(last["cwd"]), last["requests"][path.name]
            site = site if submit_options.site else Site(**last["site"])
        return submit_members("run", path, [member], site, [earlier, job_options.given()], submit_options.dry_run, cwd)

    return submit


def _study(file: Path) -> Callable[..., int]:
    """Return a function that submits the study in a file."""

    @click.option(
        "--points", help="Submit only these points of a sweep, such as 3,7-9.  [default: all that are not finished]"
    )
    def submit(points: str | None, job_options: Request, submit_options: SubmitOptions, options: Options) -> int:
        study = read_study(file)
        only = None if points is None else frozenset(member.name for member in study.select(points))
        if given := options.given():
            raise UsageError(
                f"--{next(iter(given))} is an option of runs: for a study, set it in {file}, in [options]."
            )
        job = {"at_a_time": study.at_a_time, **study.job}
        site = load_site(submit_options.site or str(job.pop("site", "")))
        layers = [job, job_options.given()]
        return submit_members(
            study.kind, study.out, study.ordered(), site, layers, submit_options.dry_run, Path.cwd(), only
        )

    return submit


def submit_members(
    kind: str,
    folder: Path,
    members: Sequence[StudyRun],
    site: Site,
    layers: Sequence[dict[str, Any]],
    dry_run: bool,
    cwd: Path,
    only: frozenset[str] | None = None,
) -> int:
    """Submit these runs, or print their scripts, and return 0. Later `layers` of requests override earlier layers."""
    if launcher.tasks() > 1:
        raise UsageError("submit must run on one process: run it without mpiexec.")
    requests = {member.name: request(site, *layers[:-1], member.job, layers[-1]) for member in members}
    prepared = Submission(kind, folder, members, requests, site, cwd, only)
    prepared.check()
    if dry_run:
        for name, text in prepared.scripts().items():
            click.echo(f"# {name}\n{text}")
        return 0
    ids = prepared.submit()
    for name, job in ids.items():
        click.echo(f"{name}: job {job} on {prepared.scheduler.name}")
    skipped = len(members) - len(ids)
    if kind == "run" and skipped:
        click.echo(f"{folder} is finished: nothing to submit")
    elif skipped:
        click.echo(f"{skipped} of {len(members)} runs not submitted: finished, or already queued")
    click.echo(f"See anyrank status {folder}")
    return 0


@click.group(cls=Submissions, name="submit", subcommand_metavar="PROGRAM|RUN|STUDY.toml [PARAMETERS] [OPTIONS]")
def command() -> None:
    """Submit a new run of a program, the run in a folder, or a study (a TOML file) to Slurm, PBS or HTCondor."""
