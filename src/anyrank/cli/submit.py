"""`anyrank submit RUN|PROGRAM|STUDY.toml`: give runs to a batch scheduler."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from anyrank import launcher
from anyrank.batch.job import before
from anyrank.batch.request import Request, request
from anyrank.batch.site import Site, load_site
from anyrank.batch.study import NOT_IN_JOBS, Member, read_study
from anyrank.batch.submission import Submission
from anyrank.cli.execution import default_folder, read_parameters
from anyrank.cli.run import RUN_OPTIONS, Programs, with_parameter_file
from anyrank.errors import UsageError
from anyrank.program import Program
from anyrank.run.folder import RunFolder
from anyrank.run.options import OPTION_NAMES, Options

JOB_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--on", help="slurm, pbs or htcondor.  [default: the site's, or the only one here]"),
    click.option("--site", default="", help="A site of yours: ~/.config/anyrank/sites/NAME.toml.  [default: default]"),
    click.option("--nodes", type=int, help="Nodes.  [default: 1]"),
    click.option("-n", "--ranks", type=int, help="MPI ranks in all.  [default: nodes × ranks per node]"),
    click.option("--ranks-per-node", type=int, help="Ranks of a node.  [default: the site's cores, or 1]"),
    click.option("--threads", type=int, help="Threads, and so cores, of a rank.  [default: 1]"),
    click.option("--gpus-per-node", type=int, help="GPUs of a node.  [default: 0]"),
    click.option("--memory", help="Memory of a node: 16G."),
    click.option("--walltime", help="Time limit of a job; a run goes on in the next one.  [default: 1:00:00]"),
    click.option("--warning", help="How long before it the run is warned.  [default: 2min, or a quarter of it]"),
    click.option("--partition", "--queue", help="Partition, or queue."),
    click.option("--account", help="Who pays."),
    click.option("--name", help="The job's name.  [default: the run folder's]"),
    click.option("--max-attempts", type=int, help="Start a run so many times at most.  [default: 100]"),
    click.option("--chain", type=int, help="Submit so many jobs, each after the one before.  [default: 1, requeued]"),
    click.option("--at-a-time", type=int, help="How many jobs of a sweep may run together."),
    click.option("--pack", help="An archive made by anyrank pack, which nodes unpack onto their own disks."),
    click.option("--image", help="A container image with anyrank in it (Apptainer)."),
    click.option("--launcher", help="What starts the ranks, such as 'srun --mpi=pmi2'.  [default: anyrank's mpiexec]"),
    click.option("--dry-run", is_flag=True, help="Print the scripts, and do nothing."),
)


def _named(option: Callable[[Any], Any]) -> str:
    def probe() -> None: ...

    return str(option(probe).__click_params__[0].name)


def with_job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command the options of jobs and, of those of a run, what a job can take."""
    fit = [option for option in RUN_OPTIONS if _named(option) not in NOT_IN_JOBS]
    for option in reversed((*JOB_OPTIONS, *fit)):
        command = option(command)
    return command


class Submissions(Programs):
    """A submission of each program; of a run folder; and of a study, a TOML file."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """The command for a folder, a study, or a program."""
        path = Path(cmd_name)
        if path.suffix == ".toml":
            return click.command(cmd_name, help="Submit the study in this file.")(_study(path))
        if path.is_dir():
            return click.command(cmd_name, help="Submit the run in this folder.")(_again(path))
        return super().get_command(ctx, cmd_name)

    def action(self, source: str, program: type[Program]) -> Callable[..., int]:
        """Submit a run of it."""

        @click.option("--out", help="The run folder.  [default: a new one under runs/]")
        @with_parameter_file
        @with_job_options
        def submit(out: str | None, parameters: str | None, dry_run: bool, site: str, **values: Any) -> int:
            asked, options = _split(values)
            ready = program(**read_parameters(parameters, values))
            folder = (Path(out) if out else default_folder(program.name)).absolute()
            RunFolder(folder).check(program.name, ready.parameters)
            member = Member(folder.name, folder, source, ready.parameters, options, {}, (), ())
            return _submit("run", folder, [member], load_site(site), {}, asked, dry_run)

        return submit


def _again(folder: Path) -> Callable[..., int]:
    """Submit the run that is in a folder."""

    @with_job_options
    def submit(dry_run: bool, site: str, **values: Any) -> int:
        asked, options = _split(values)
        description = RunFolder(folder).describe()
        if description is None:
            raise UsageError(f"{folder} holds no run (no run.toml). Give the folder of a run, as --out named it.")
        path = folder.absolute()
        member = Member(path.name, path, description["source"], description["parameters"], options, {}, (), ())
        kept = {"threads": description.get("options", {}).get("threads")}
        return _submit("run", path, [member], load_site(site), {**kept, **before(path)}, asked, dry_run)

    return submit


def _study(file: Path) -> Callable[..., int]:
    """Submit what a file describes."""

    @click.option("--points", help="Only these points of a sweep: 3,7-9.  [default: all that are not finished]")
    @with_job_options
    def submit(points: str | None, dry_run: bool, site: str, **values: Any) -> int:
        asked, options = _split(values)
        study = read_study(file)
        only = None if points is None else frozenset(member.name for member in study.chosen(points))
        if options:
            raise UsageError(f"--{next(iter(options))} is an option of runs: a study's stand in {file}, in [options].")
        asked.setdefault("at_a_time", study.at_a_time)
        chosen = load_site(site or str(study.job.get("site", "")))
        job = {name: value for name, value in study.job.items() if name != "site"}
        return _submit(study.kind, study.out, [*study.ordered()], chosen, job, asked, dry_run, only)

    return submit


def _split(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take what the job asks, and the options of its run, out of all values; what was not given is left out."""
    asked = {name: values.pop(name) for name in Request.model_fields if name in values}
    options = {name: values.pop(name) for name in OPTION_NAMES if name in values}
    given = {name: value for name, value in options.items() if value is not None}
    Options(**given)
    return {name: value for name, value in asked.items() if value is not None}, given


def _submit(
    kind: str,
    folder: Path,
    members: list[Member],
    site: Site,
    job: dict[str, Any],
    asked: dict[str, Any],
    dry_run: bool,
    only: frozenset[str] | None = None,
) -> int:
    if launcher.tasks():
        raise UsageError("submit asks a scheduler, once: run it without mpiexec.")
    requests = {member.name: request(site, job, member.job, asked) for member in members}
    command = shlex.join(["anyrank", *click.get_current_context().find_root().obj])
    submission = Submission(kind, folder, members, requests, site, Path.cwd(), command, only)
    if dry_run:
        for name, text in submission.scripts().items():
            click.echo(f"# {name}\n{text}")
        return 0
    ids = submission.submit()
    for name, job_id in ids.items():
        click.echo(f"{name}: job {job_id} on {submission.scheduler.name}")
    left = len(members) - len(ids)
    if kind == "run" and left:
        click.echo(f"{folder} is finished: nothing to submit")
    elif left:
        click.echo(f"{left} of {len(members)} runs not submitted: finished, or queued already")
    click.echo(f"See anyrank status {folder}")
    return 0


@click.group(cls=Submissions, name="submit", subcommand_metavar="PROGRAM|RUN|STUDY.toml [PARAMETERS] [OPTIONS]")
def command() -> None:
    """Give a run to Slurm, PBS or HTCondor: a program's, one in a folder, or all of a study (a TOML file)."""
