"""`anyrank scale strong|weak PROGRAM`: measure the scaling of a program, here or in jobs, and report it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

import click

from anyrank import launcher
from anyrank.batch.job import is_finished
from anyrank.batch.request import Request, SubmitOptions, request
from anyrank.batch.site import load_site
from anyrank.batch.study import StudyRun
from anyrank.cli.execution import rank_list
from anyrank.cli.flags import Command
from anyrank.cli.run import Programs
from anyrank.cli.submit import submit_members
from anyrank.errors import AnyrankError, UsageError
from anyrank.program import Program, flag_of
from anyrank.runtime.options import JOBS, STUDIES, Options
from anyrank.runtime.python import new_folder
from anyrank.runtime.supervisor import parse_hosts
from anyrank.scaling.measured import ScalingStudy
from anyrank.scaling.options import ScaleOptions
from anyrank.scaling.study_folder import KINDS, Plan, StudyFolder
from anyrank.storage.durable import write_atomically
from anyrank.values import seconds_of


class Studies(Programs):
    """The commands for scaling studies of a program."""

    kind: str
    tables = {"settings": ScaleOptions, "job": Request, "submit_options": SubmitOptions, "options": Options}  # noqa: RUF012

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Return the command of a program; here `--on` selects jobs."""
        command = super().get_command(ctx, cmd_name)
        on = next(option for option in command.params if option.name == "on" and isinstance(option, click.Option))
        on.help = "Measure in jobs of this scheduler: slurm, pbs or htcondor.  [default: on this machine]"
        return command

    def action(self, source: str, program: type[Program]) -> Callable[..., int]:
        """Return a function that measures the program."""

        def scale(
            parameters: dict[str, Any],
            settings: ScaleOptions,
            job: Request,
            submit_options: SubmitOptions,
            options: Options,
        ) -> int:
            job_options, given = job.given(), options.given()
            if "threads" in job_options:
                given["threads"] = job.threads
            in_jobs = submit_options.dry_run or "on" in job_options
            ranks = _ranks(settings, job_options, submit_options.site, in_jobs)
            instance = program(**parameters)
            values, grow = instance.parameters, _growing(instance, settings.grow) if self.kind == "weak" else ()
            plan = Plan(self.kind, source, program.name, values, given, grow, ranks, settings.repeat, settings.hosts)
            for number in ranks:
                plan.program_for(number)
            _ = _numbers(settings.predict), _network(settings.network)
            _refuse_mpiexec()
            folder = StudyFolder((Path(settings.out or new_folder(f"{self.kind}-{program.name}"))).absolute())
            if in_jobs:
                return _submit(folder, plan, job_options, submit_options, settings)
            folder.create(plan)
            with _explain_interruption(folder):
                rounds, seconds = range(1, plan.repeat + 1), seconds_of(settings.timeout)
                status = folder.measure(plan, rounds, seconds, settings.hosts, click.echo)
                if settings.predict and not settings.network:
                    status = status or _measure_network(folder, settings.hosts)
                return status or _report(folder, settings)

        return scale


def _ranks(settings: ScaleOptions, job: dict[str, Any], site: str, in_jobs: bool) -> tuple[int, ...]:
    """Return the numbers of ranks; UsageError if they do not fit, or for options that are not valid here."""
    text, hosts = settings.ranks, settings.hosts
    if in_jobs and hosts:
        raise UsageError(f"--hosts {hosts}: jobs get their hosts from the scheduler. Omit the option.")
    if not in_jobs and set(job) - {"threads"}:
        raise UsageError(f"{flag_of(min(set(job) - {'threads'}))} is for jobs. Add --on slurm, pbs or htcondor.")
    ranks = rank_list(text, sys.maxsize if in_jobs or hosts else settings.allow)
    if in_jobs and max(ranks) > (room := request(load_site(site), job).size):
        raise UsageError(
            f"--ranks {text}: {max(ranks)} is more than the {room} ranks of a job. Use more --nodes or "
            "--ranks-per-node."
        )
    parse_hosts(hosts, max(ranks))
    return ranks


def _growing(program: Program, given: str) -> tuple[str, ...]:
    """Return the parameters that grow, as given or as the program declares; UsageError for other names."""
    names = tuple(name.strip("-").replace("-", "_") for name in given.split(",")) if given else program.grows
    numbers = [name for name, value in program.parameters.items() if type(value) in (int, float) and name != "seed"]
    invalid = next((name for name in names if name not in numbers), None)
    if invalid is not None or not names:
        rule = f"{invalid!r} is not a numeric parameter of {program.name}"
        rule = rule if invalid else "must name the growing parameters"
        raise UsageError(f"--grow {rule}. Use some of: {', '.join(numbers)}.")
    return names


def _numbers(predict: str) -> tuple[int, ...]:
    return rank_list(predict, sys.maxsize, "--predict") if predict else ()


def _network(file: str) -> Any:
    """Read the network from a file, None without one; UsageError if the file is not valid."""
    from anyrank.scaling.network import Network

    return Network.read(Path(file)) if file else None


def _refuse_mpiexec() -> None:
    if launcher.tasks() > 1:
        raise UsageError("scale starts ranks itself: run it without mpiexec.")


@contextmanager
def _explain_interruption(folder: StudyFolder) -> Iterator[None]:
    """Convert an interruption, by a full disk or Ctrl-C, into an error that says how to continue."""
    advice = f"The measurements are kept; continue with anyrank scale resume {quote(str(folder.path))}"
    try:
        yield
    except KeyboardInterrupt:
        raise AnyrankError(f"interrupted. {advice}") from None
    except OSError as error:
        raise AnyrankError(f"{error.filename or folder.path}: {error.strerror}. Fix that. {advice}") from None


def _submit(
    folder: StudyFolder, plan: Plan, job: dict[str, Any], submit_options: SubmitOptions, settings: ScaleOptions
) -> int:
    """Submit one job per round and one for the report. They run one after the other, to not disturb each other."""
    predicting = [word for name in ("predict", "network") for word in _words(name, getattr(settings, name))]
    network = ["--with-network"] if settings.predict and not settings.network else []
    command = ("anyrank", "scale", "resume", str(folder.path), *_words("timeout", settings.timeout), *network)
    members: list[StudyRun] = []
    if not submit_options.dry_run:
        plan = folder.create(plan)
    for number in range(1, plan.repeat + 1):
        needs = tuple(member.name for member in members[-1:])
        name = f"round-{number:03}"
        round_command = (*command, "--round", str(number))
        members.append(StudyRun(name, folder.path / "jobs" / name, None, {}, {}, {}, needs, round_command))
    report_command = ("anyrank", "scale", "report", str(folder.path), *predicting)
    job_size, needs = {"nodes": 1, "ranks": 1}, (members[-1].name,)
    members.append(StudyRun("report", folder.path / "jobs/report", None, {}, {}, job_size, needs, report_command))
    missing_rounds = [number for number in range(1, plan.repeat + 1) if folder.missing(plan, number)]
    for member in [*(members[number - 1] for number in missing_rounds), *members[-1:] * bool(missing_rounds)]:
        if not submit_options.dry_run and is_finished(member.folder):  # it finished with fewer ranks or rounds than now
            (member.folder / "job/attempts").unlink()
    site = load_site(submit_options.site)
    return submit_members("dag", folder.path / "jobs", members, site, [job, {}], submit_options.dry_run, Path.cwd())


def _words(name: str, value: str) -> list[str]:
    return [flag_of(name), value] if value else []


def _measure_network(folder: StudyFolder, hosts: str) -> int:
    """Measure the network for predictions, unless that was done before; return the exit code."""
    from anyrank.scaling.network import measure

    return 0 if folder.network.exists() else measure(folder.network, max(2, *folder.plan().ranks), hosts)


def _report(folder: StudyFolder, settings: ScaleOptions) -> int:
    """Print the study's table; write tables and plots into its folder."""
    from anyrank.scaling.laws import analyse
    from anyrank.scaling.plots import draw
    from anyrank.scaling.report import as_json, as_text, write_csv

    study, predicted, refusal = folder.read(), [], None
    analysis = analyse(study)
    try:
        predicted = _predictions(folder, study, _numbers(settings.predict), settings.network)
    except UsageError as error:  # the measurements are still shown
        refusal = error
    click.echo(as_text(analysis, study, predicted))
    write_csv(folder.path / "scaling.csv", study)
    write_atomically(folder.path / "scaling.json", json.dumps(as_json(study, analysis, predicted), indent=2) + "\n")
    for path in draw(study, analysis, folder.path / "scaling", predicted):
        click.echo(f"see {path}")
    if refusal is not None:
        raise refusal
    return 0


def _predictions(folder: StudyFolder, study: ScalingStudy, numbers: Sequence[int], network: str) -> list[Any]:
    from anyrank.scaling.model import Model

    if not numbers:
        return []
    parameters = _network(network or str(folder.network))
    return [Model.of(study, parameters).predict(ranks) for ranks in numbers]


@click.group(name="scale")
def command() -> None:
    """Measure how a program scales with the number of ranks; write a table and plots."""


for _kind, _text in zip(
    KINDS,
    ("Keep the problem size, and increase the number of ranks.", "Increase the work with the number of ranks."),
    strict=True,
):
    _group = Studies(_kind, help=_text, subcommand_metavar="PROGRAM [PARAMETERS] [OPTIONS]")
    _group.kind, _group.contexts = _kind, (*JOBS, *STUDIES, _kind)
    command.add_command(_group)


@command.command(cls=Command, tables={"settings": ScaleOptions}, only=("hosts", "timeout"))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--round", "number", type=click.IntRange(1), help="Measure only this round, and write no report.")
@click.option("--with-network", is_flag=True, help="Measure the network, too, for predictions.")
def resume(folder: Path, number: int | None, with_network: bool, settings: ScaleOptions) -> int:
    """Measure what is missing in the study in FOLDER, and write its report."""
    _refuse_mpiexec()
    study = StudyFolder(folder.absolute())
    plan = study.plan()
    rounds = range(1, plan.repeat + 1) if number is None else [number]
    hosts = settings.hosts or plan.hosts
    if number is None and not hosts and (study.path / "jobs").exists() and any(study.missing(plan, n) for n in rounds):
        fix = "Repeat its command with --on, or use --hosts to continue on hosts"
        raise UsageError(f"{folder} is measured in jobs. {fix}.")
    with _explain_interruption(study):
        status = study.measure(plan, rounds, seconds_of(settings.timeout), hosts, click.echo)
        status = status or (_measure_network(study, hosts) if with_network else 0)
        return status if status or number else _report(study, ScaleOptions())


@command.command(cls=Command, tables={"settings": ScaleOptions}, only=("predict", "network"))
@click.argument("folder", type=click.Path(path_type=Path))
def report(folder: Path, settings: ScaleOptions) -> int:
    """Write the report of the study in FOLDER again; --predict adds predictions."""
    study = StudyFolder(folder.absolute())
    with _explain_interruption(study):
        return _report(study, settings)
