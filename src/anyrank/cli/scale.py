"""`anyrank scale strong|weak PROGRAM`: measure how a program scales, here or in jobs, and report it."""

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
from anyrank.batch.request import Request, request
from anyrank.batch.site import load_site
from anyrank.batch.study import NOT_IN_JOBS, Member
from anyrank.cli.execution import default_folder, rank_list, read_parameters
from anyrank.cli.run import Programs, with_parameter_file
from anyrank.cli.submit import submit_members, with_job_options
from anyrank.errors import AnyrankError, UsageError
from anyrank.program import Program, flag_of
from anyrank.run.duration import duration
from anyrank.run.options import OPTION_NAMES, Options
from anyrank.run.supervisor import slots
from anyrank.scaling.measured import Study
from anyrank.scaling.study import KINDS, Plan, StudyFolder
from anyrank.storage.durable import write_atomically

#: Options of a run that mean nothing in a study, which decides on its runs' ranks and ends; and those of a job.
NOT_IN_STUDIES = (*NOT_IN_JOBS, "max_restarts", "min_ranks", "check", "digests", "picture")
NOT_IN_THEIR_JOBS = ("ranks", "chain", "at_a_time", "launcher", "max_attempts", "name", "image")
#: The words of a study that its jobs are given, too.
PASSED_ON = ("timeout", "predict", "network")

with_timeout = click.option("--timeout", default="1h", help="A run that takes longer has failed.  [default: 1h]")
WITH_PREDICTION = (
    click.option("--predict", help="Predict the time on so many ranks, too: 1024,16384."),
    click.option("--network", help="What anyrank doctor --network --out has written.  [default: measured here]"),
)


_JOB = tuple(name for name in Request.model_fields if name not in NOT_IN_THEIR_JOBS)
_RUN = tuple(name for name in OPTION_NAMES if name not in NOT_IN_STUDIES)


class Studies(Programs):
    """A scaling study of each program."""

    kind: str

    def action(self, source: str, program: type[Program]) -> Callable[..., int]:
        """Measure it."""

        def scale(parameters: str | None, out: str | None, hosts: str, **values: Any) -> int:
            told = {name: values.pop(name, None) for name in (*PASSED_ON, "ranks", "repeat", "allow", "grow")}
            dry_run, site = values.pop("dry_run"), values.pop("site")
            job = {name: value for name in _JOB if (value := values.pop(name)) not in (None, ())}
            options = {name: value for name in _RUN if (value := values.pop(name)) is not None}
            if "threads" in job:
                options["threads"] = job["threads"]
            Options(**options)
            in_jobs = dry_run or "on" in job
            ranks = _ranks(told["ranks"], told["allow"], hosts, job, site, in_jobs)
            ready = program(**read_parameters(parameters, values))
            grow = _growing(ready, told["grow"]) if self.kind == "weak" else ()
            plan = Plan(self.kind, source, program.name, ready.parameters, options, grow, ranks, told["repeat"], hosts)
            for number in ranks:
                plan.made(number)
            _ = duration(told["timeout"], "--timeout"), _numbers(told["predict"]), _network(told["network"])
            _alone()
            folder = StudyFolder((Path(out) if out else default_folder(f"{self.kind}-{program.name}")).absolute())
            if in_jobs:
                return _submit(folder, plan, job, site, dry_run, told)
            folder.create(plan)
            with _going_on(folder):
                status = folder.measure(
                    plan, range(1, plan.repeat + 1), duration(told["timeout"], "--timeout"), hosts, click.echo
                )
                if told["predict"] and not told["network"]:
                    status = status or _measure_network(folder, hosts)
                return status or _report(folder, told["predict"], told["network"])

        options = [
            with_parameter_file,
            click.option("--out", help="The study's folder; one that is there goes on.  [default: a new one in runs/]"),
            click.option("-n", "--ranks", default="1,2", help="Numbers of ranks.  [default: 1,2]"),
            click.option("--repeat", type=click.IntRange(1), default=5, help="Rounds.  [default: 5]"),
            click.option("--hosts", default="", help="Where to start the ranks here: node1:8,node2:8."),
            click.option("--allow", type=int, help="The most ranks there may be here.  [default: 4, or 2 per core]"),
            *WITH_PREDICTION,
            with_timeout,
        ]
        if self.kind == "weak":
            told = ", ".join(program.grows) or "required"
            options.append(click.option("--grow", help=f"Parameters that grow with the ranks.  [default: {told}]"))
        made = with_job_options(scale, NOT_IN_STUDIES)
        found = made.__click_params__  # type: ignore[attr-defined]
        found[:] = [option for option in found if option.name not in NOT_IN_THEIR_JOBS]
        next(
            option for option in found if option.name == "on"
        ).help = "Measure in jobs: slurm, pbs, htcondor.  [default: here]"
        for option in reversed(options):
            made = option(made)
        return made


def _ranks(text: str, allow: int | None, hosts: str, job: dict[str, Any], site: str, in_jobs: bool) -> tuple[int, ...]:
    """The numbers of ranks, if there is room for them; UsageError where not, or for what is another place's."""
    if in_jobs and hosts:
        raise UsageError(f"--hosts {hosts}: jobs get theirs from the scheduler. Leave it out.")
    if not in_jobs and set(job) - {"threads"}:
        raise UsageError(f"{flag_of(min(set(job) - {'threads'}))} is for jobs. Add --on slurm, pbs or htcondor.")
    ranks = rank_list(text, sys.maxsize if in_jobs or hosts else allow)
    if in_jobs and max(ranks) > (room := request(load_site(site), job).size):
        raise UsageError(
            f"--ranks {text}: {max(ranks)} are more than the {room} of a job. Ask for more --nodes or --ranks-per-node."
        )
    slots(hosts, max(ranks))
    return ranks


def _growing(program: Program, given: str | None) -> tuple[str, ...]:
    """The parameters that grow: as given, or as the program says; UsageError for what cannot."""
    names = tuple(name.strip("-").replace("-", "_") for name in given.split(",")) if given else program.grows
    numbers = [name for name, value in program.parameters.items() if type(value) in (int, float) and name != "seed"]
    wrong = next((name for name in names if name not in numbers), None)
    if wrong is not None or not names:
        what = f"{wrong!r} is no parameter of {program.name} that can" if wrong else "must say what is to"
        raise UsageError(f"--grow {what} grow with the ranks. Use some of: {', '.join(numbers)}.")
    return names


def _numbers(predict: str | None) -> tuple[int, ...]:
    return rank_list(predict, sys.maxsize, "--predict") if predict else ()


def _network(file: str | None) -> Any:
    """What the file of a network says, None without one; UsageError where it says nothing."""
    from anyrank.scaling.network import Network

    return Network.read(Path(file)) if file else None


def _alone() -> None:
    if launcher.tasks():
        raise UsageError("scale starts ranks itself: run it without mpiexec.")


@contextmanager
def _going_on(folder: StudyFolder) -> Iterator[None]:
    """Turn what ends a study halfway, a full disk or Ctrl-C, into words that tell how it goes on."""
    then = f"What was measured is kept; go on with anyrank scale resume {quote(str(folder.path))}"
    try:
        yield
    except KeyboardInterrupt:
        raise AnyrankError(f"interrupted. {then}") from None
    except OSError as error:
        raise AnyrankError(f"{error.filename or folder.path}: {error.strerror}. Mend that. {then}") from None


def _submit(folder: StudyFolder, plan: Plan, asked: dict[str, Any], site: str, dry_run: bool, told: Any) -> int:
    """One job a round, each after the one before, so that none disturbs another; and one for the report."""
    words = {name: [flag_of(name), told[name]] for name in PASSED_ON if told[name]}
    network = ["--with-network"] if told["predict"] and not told["network"] else []
    command = ("anyrank", "scale", "resume", str(folder.path), *words["timeout"], *network)
    members: list[Member] = []
    if not dry_run:
        plan = folder.create(plan)
    for number in range(1, plan.repeat + 1):
        needs = tuple(member.name for member in members[-1:])
        name = f"round-{number:03}"
        one = (*command, "--round", str(number))
        members.append(Member(name, folder.path / "jobs" / name, None, {}, {}, {}, needs, one))
    last = ("anyrank", "scale", "report", str(folder.path), *words.get("predict", ()), *words.get("network", ()))
    alone = {"nodes": 1, "ranks": 1}
    members.append(Member("report", folder.path / "jobs/report", None, {}, {}, alone, (members[-1].name,), last))
    lacking = [number for number in range(1, plan.repeat + 1) if folder.missing(plan, number)]
    for member in [*(members[number - 1] for number in lacking), *members[-1:] * bool(lacking)]:
        if not dry_run and is_finished(member.folder):  # of fewer ranks or rounds than now
            (member.folder / "job/attempts").unlink()
    return submit_members("dag", folder.path / "jobs", members, load_site(site), [asked, {}], dry_run, Path.cwd())


def _measure_network(folder: StudyFolder, hosts: str) -> int:
    """Measure the network of the study's ranks for its predictions, unless that was done before; the exit code."""
    from anyrank.scaling.network import measure

    return 0 if folder.network.exists() else measure(folder.network, max(2, *folder.plan().ranks), hosts)


def _report(folder: StudyFolder, predict: str | None, network: str | None) -> int:
    """Print the study's table; write tables and plots into its folder."""
    from anyrank.scaling.laws import analyse
    from anyrank.scaling.plots import draw
    from anyrank.scaling.report import as_json, table, write_csv

    study, predicted, refusal = folder.read(), [], None
    analysis = analyse(study)
    try:
        predicted = _predictions(folder, study, _numbers(predict), network)
    except UsageError as error:  # what was measured is shown all the same
        refusal = error
    click.echo(table(analysis, study, predicted))
    write_csv(folder.path / "scaling.csv", study)
    write_atomically(folder.path / "scaling.json", json.dumps(as_json(study, analysis, predicted), indent=2) + "\n")
    for path in draw(study, analysis, folder.path / "scaling", predicted):
        click.echo(f"see {path}")
    if refusal is not None:
        raise refusal
    return 0


def _predictions(folder: StudyFolder, study: Study, numbers: Sequence[int], network: str | None) -> list[Any]:
    from anyrank.scaling.model import Model

    if not numbers:
        return []
    found = _network(network or str(folder.network))
    return [Model.of(study, found).predict(ranks) for ranks in numbers]


@click.group(name="scale")
def command() -> None:
    """Measure how a program scales, and say so in numbers and plots."""


for _kind, _text in zip(KINDS, ("One problem on more ranks.", "Work that grows with the ranks."), strict=True):
    _group = Studies(_kind, help=_text, subcommand_metavar="PROGRAM [PARAMETERS] [OPTIONS]")
    _group.kind = _kind
    command.add_command(_group)


@command.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--round", "number", type=click.IntRange(1), help="This round alone, and no report.")
@click.option("--hosts", default="", help="Where to start the ranks: node1:8,node2:8.")
@click.option("--with-network", is_flag=True, help="Measure the network, too, for predictions.")
@with_timeout
def resume(folder: Path, number: int | None, hosts: str, with_network: bool, timeout: str) -> int:
    """Measure what the study in FOLDER still lacks, and report it."""
    _alone()
    study = StudyFolder(folder.absolute())
    plan = study.plan()
    rounds = range(1, plan.repeat + 1) if number is None else [number]
    hosts = hosts or plan.hosts
    if number is None and not hosts and (study.path / "jobs").exists() and any(study.missing(plan, n) for n in rounds):
        raise UsageError(f"{folder} is measured in jobs. Give its command again, with --on; or --hosts to go on there.")
    with _going_on(study):
        status = study.measure(plan, rounds, duration(timeout, "--timeout"), hosts, click.echo)
        status = status or (_measure_network(study, hosts) if with_network else 0)
        return status if status or number else _report(study, None, None)


@command.command()
@click.argument("folder", type=click.Path(path_type=Path))
@WITH_PREDICTION[0]
@WITH_PREDICTION[1]
def report(folder: Path, predict: str | None, network: str | None) -> int:
    """Report the study in FOLDER once more, perhaps with predictions."""
    study = StudyFolder(folder.absolute())
    with _going_on(study):
        return _report(study, predict, network)
