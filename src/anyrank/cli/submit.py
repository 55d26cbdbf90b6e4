"""`anyrank submit RUN|PROGRAM|STUDY.toml`: give runs to a batch scheduler."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from anyrank import launcher
from anyrank.batch.job import submission
from anyrank.batch.request import Request, request
from anyrank.batch.site import Site, load_site
from anyrank.batch.study import NOT_IN_JOBS, Member, read_study
from anyrank.batch.submission import Submission
from anyrank.cli.execution import default_folder, read_parameters
from anyrank.cli.run import Programs, with_parameter_file, with_run_options
from anyrank.errors import UsageError
from anyrank.program import Program
from anyrank.programs import available
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
    click.option("--directive", "directives", multiple=True, help="A line more for the scheduler: '--qos=long'."),
    click.option("--dry-run", is_flag=True, help="Print the scripts, and do nothing."),
)


def with_job_options(command: Callable[..., Any], without: Collection[str] = NOT_IN_JOBS) -> Callable[..., Any]:
    """Give a click command the options of jobs and, but for some, those of a run."""
    command = with_run_options(command, without)
    for option in reversed(JOB_OPTIONS):
        command = option(command)
    return command


class Submissions(Programs):
    """A submission of each program; of a run folder; and of a study, a TOML file."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """The command for a folder, a study, or a program."""
        path = Path(cmd_name)
        if path.suffix == ".toml":
            return click.command(cmd_name, help="Submit the study in this file.")(_study(path))
        if path.is_dir() and ((path / "run.toml").exists() or cmd_name not in available()):
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
            member = Member(folder.name, folder, source, ready.parameters, options, {}, (), ())
            return submit_members("run", folder, [member], load_site(site), [asked], dry_run, Path.cwd())

        return submit


def _again(folder: Path) -> Callable[..., int]:
    """Submit the run that is in a folder, as it was before but for what is given."""

    @with_job_options
    def submit(dry_run: bool, site: str, **values: Any) -> int:
        asked, options = _split(values)
        path, told = folder.absolute(), RunFolder(folder).describe()
        if told is None:
            raise UsageError(f"{folder} holds no run (no run.toml). Give a run's folder, or a study's TOML file.")
        member = Member(path.name, path, told["source"], told["parameters"], options, {}, (), ())
        cwd, used, before = Path.cwd(), load_site(site), {"threads": told.get("options", {}).get("threads")}
        with suppress(UsageError):  # where it was not submitted before
            last = submission(path)
            cwd, before = Path(last["cwd"]), last["requests"][path.name]
            used = used if site else Site(**last["site"])
        return submit_members("run", path, [member], used, [before, asked], dry_run, cwd)

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
        job = {"at_a_time": study.at_a_time, **study.job}
        used = load_site(site or str(job.pop("site", "")))
        return submit_members(study.kind, study.out, study.ordered(), used, [job, asked], dry_run, Path.cwd(), only)

    return submit


def _split(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take what the job asks, and the options of its run, out of all values; what was not given is left out."""
    names: tuple[Collection[str], Collection[str]] = (Request.model_fields, OPTION_NAMES)
    taken = [{name: values.pop(name) for name in some if name in values} for some in names]
    asked, options = ({name: value for name, value in one.items() if value not in (None, ())} for one in taken)
    Options(**options)
    return asked, options


def submit_members(
    kind: str,
    folder: Path,
    members: Sequence[Member],
    site: Site,
    layers: Sequence[dict[str, Any]],
    dry_run: bool,
    cwd: Path,
    only: frozenset[str] | None = None,
) -> int:
    """Submit these runs, or print their scripts; `layers` are requests, a later one's values winning. 0."""
    if launcher.tasks():
        raise UsageError("submit asks a scheduler, once: run it without mpiexec.")
    requests = {member.name: request(site, *layers[:-1], member.job, layers[-1]) for member in members}
    made = Submission(kind, folder, members, requests, site, cwd, only)
    made.check()
    if dry_run:
        for name, text in made.scripts().items():
            click.echo(f"# {name}\n{text}")
        return 0
    ids = made.submit()
    for name, job in ids.items():
        click.echo(f"{name}: job {job} on {made.scheduler.name}")
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
