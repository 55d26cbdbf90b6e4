"""A scaling study in a folder: runs in rounds, one after the other, and what is kept of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import inf
from pathlib import Path
from typing import Any

import tomli_w

from anyrank.errors import STOPPED, AnyrankError, UsageError
from anyrank.program import Program, flag_of
from anyrank.runtime.child_run import run_child
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.options import option_words
from anyrank.runtime.programs import load
from anyrank.runtime.supervisor import parse_hosts
from anyrank.scaling.measured import Sample, Study
from anyrank.storage.durable import write_atomically
from anyrank.toml import read_toml

KINDS = ("strong", "weak")
#: What of a run's provenance tells the machine.
MACHINE = ("host", "processor", "mpi", "anyrank", "commit", "utc")
#: Lines of a failed run's words that are shown.
SHOWN = 12
_TOO_FEW = "{}: of {} step(s) nothing can be measured, for the first only warms up. Choose parameters for 2 or more."


@dataclass(frozen=True)
class Plan:
    """What a study measures: a program with its parameters at one rank, on each of `ranks`, `repeat` times.

    `hosts` is where its ranks were last asked to start, if they are not to start here or in jobs.
    """

    kind: str
    source: str
    program: str
    parameters: dict[str, Any]
    options: dict[str, Any]
    grow: tuple[str, ...]
    ranks: tuple[int, ...]
    repeat: int
    hosts: str = ""

    def made(self, ranks: int) -> Program:
        """The program as it is measured on so many ranks; UsageError where it cannot grow so far, or is too short."""
        cls = load(self.source)
        made = cls(**(grown(cls, self.parameters, self.grow, ranks) if self.kind == "weak" else self.parameters))
        if cls.done is Program.done and made.steps < 2:
            raise UsageError(_TOO_FEW.format(self.program, made.steps))
        if not made.work()[0] > 0:
            raise UsageError(f"{self.program}: its work() tells {made.work()[0]!r} of a step. It must be more than 0.")
        return made

    def facts(self) -> dict[str, Any]:
        """What must be the same in all of a study, by name or flag."""
        words = {"program": self.program, "kind": self.kind, "source": self.source, "--grow": ",".join(self.grow)}
        return words | {flag_of(name): value for name, value in {**self.parameters, **self.options}.items()}

    def order(self, number: int) -> list[int]:
        """The numbers of ranks in a round: upwards in one, downwards in the next, so that drift favours none."""
        return sorted(self.ranks, reverse=number % 2 == 0)


def grown(program: type[Program], parameters: Mapping[str, Any], grow: Sequence[str], ranks: int) -> dict[str, Any]:
    """The parameters with which a program does `ranks` times the work: all in `grow` by the same factor.

    Whole numbers are rounded, so that the work is not quite that; the rates of a study count what was done.
    UsageError where the program refuses them.
    """
    whole = {name: isinstance(parameters[name], int) for name in grow}

    def at(factor: float) -> dict[str, Any]:
        larger = {name: parameters[name] * factor for name in grow}
        return {**parameters, **{name: round(value) if whole[name] else value for name, value in larger.items()}}

    def work(factor: float) -> float:
        try:
            made = program(**at(factor))
        except UsageError:
            return inf
        return float(made.work()[0] * made.steps)

    low, high, goal = 1.0, float(ranks), ranks * work(1.0)
    if work(high) < (1 - 1e-9) * goal:
        names = ", ".join(map(flag_of, grow))
        raise UsageError(
            f"{program.name}: {ranks} times {names} is not {ranks} times what its work() tells. Give others to --grow."
        )
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if work(middle) < goal else (low, middle)
    program(**at(high))
    return at(min(high, low, key=lambda factor: abs(work(factor) - goal)))


class StudyFolder:
    """The folder of a study: `study.toml`, `samples/`, runs while they run, and the report."""

    def __init__(self, path: Path):
        self.path = path
        self.description, self.samples, self.network = path / "study.toml", path / "samples", path / "network.json"

    def plan(self) -> Plan:
        """The plan of the study that is there; UsageError where there is none."""
        try:
            told = read_toml(self.description)
            return Plan(**{**told, "grow": tuple(told["grow"]), "ranks": tuple(told["ranks"])})
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UsageError(f"{self.path} holds no scaling study ({error}). Give the folder of one.") from None

    def create(self, plan: Plan) -> Plan:
        """Make the folder, or add ranks and rounds to its study; the plan of all. UsageError where it holds another.

        A study that has no sample yet, and no jobs, gives way.
        """
        try:
            if self.description.exists():
                begun = any(self.samples.glob("p*")) or (self.path / "jobs").exists()
                plan = self._joined(plan) if begun else plan
            elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise UsageError(f"--out {self.path} holds something, and no study. Use another --out.")
            self.samples.mkdir(parents=True, exist_ok=True)
            write_atomically(self.description, tomli_w.dumps(asdict(plan)))
        except OSError as error:
            raise UsageError(f"--out {self.path} cannot be written ({error.strerror}). Use another --out.") from None
        return plan

    def _joined(self, plan: Plan) -> Plan:
        there = self.plan()
        was, asked = there.facts(), plan.facts()
        for name in (*asked, *was):
            old, new = was.get(name), asked.get(name)
            if old != new:
                raise UsageError(
                    f"--out {self.path} holds a study of another {name} ({old} is not {new}). Use another --out."
                )
        ranks = tuple(sorted({*there.ranks, *plan.ranks}))
        return replace(plan, ranks=ranks, repeat=max(there.repeat, plan.repeat))

    def _sample(self, ranks: int, number: int) -> Path:
        return self.samples / f"p{ranks:06}-r{number:03}.json"

    def missing(self, plan: Plan, number: int) -> list[int]:
        """The numbers of ranks that a round still lacks, in their order."""
        return [ranks for ranks in plan.order(number) if not self._sample(ranks, number).exists()]

    def read(self) -> Study:
        """What has been measured so far; UsageError where that is nothing."""
        plan = self.plan()
        found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.samples.glob("p*-r*.json"))]
        if not found:
            raise UsageError(f"{self.path} holds no sample yet. Measure first: anyrank scale resume {self.path}")
        names = [field.name for field in fields(Sample)]
        samples = tuple(Sample(**{name: one[name] for name in names}) for one in found)
        unit = plan.made(plan.ranks[0]).work()[1]
        told = (plan.kind, plan.program, plan.source, plan.parameters, plan.options, plan.grow, unit)
        return Study(*told, samples, found[0]["machine"])

    def measure(self, plan: Plan, rounds: Sequence[int], timeout: float, hosts: str, say: Callable[[str], None]) -> int:
        """Make the runs of these rounds that are missing; 0, or 75 where a run was stopped.

        A short run on all ranks comes first, and does not count. Raises AnyrankError where a run fails, or its digest
        is not that of the others, and UsageError where another process measures.
        """
        if not any(self.missing(plan, number) for number in rounds):
            return 0
        runs = RunFolder(self.path / "runs")
        runs.lock()
        try:
            status = self._measure(plan, rounds, _Runner(plan, runs.path, timeout, hosts), say)
        finally:
            runs.unlock()
        if status == 0:
            shutil.rmtree(runs.path, ignore_errors=True)
        return status

    def _measure(self, plan: Plan, rounds: Sequence[int], runner: _Runner, say: Callable[[str], None]) -> int:
        runner.run(max(plan.ranks), "warm-up", stop_at=2)
        for number in rounds:
            missing = self.missing(plan, number)
            if missing and any(self.samples.glob(f"p*-r{number:03}.json")):
                say(f"round {number} goes on: what has changed since its first runs is in its ratios")
            for ranks in missing:
                summary = runner.run(ranks, f"p{ranks:06}-r{number:03}")
                if summary is None:
                    say(f"stopped before its end: go on with anyrank scale resume {self.path}")
                    return STOPPED
                sample = self._keep(plan, ranks, number, summary)
                say(f"round {number} of {plan.repeat}: {ranks} rank(s), {sample.seconds:.3f} s")
        return 0

    def _keep(self, plan: Plan, ranks: int, number: int, summary: Mapping[str, Any]) -> Sample:
        timing = summary["timing"]
        facts = {name: value for name, value in summary["provenance"].items() if name in MACHINE}
        if not timing["warm_up"]:
            raise AnyrankError(_TOO_FEW.format(plan.program, timing["steps"]))
        for path in self.samples.glob("p*-r*.json"):
            other = json.loads(path.read_text(encoding="utf-8"))
            there, here = _model(other["machine"]), _model(facts)
            if other["round"] == number and there != here:
                raise AnyrankError(
                    f"round {number} was begun on {there}, and this is {here}: their times cannot be compared. "
                    f"Go on where it was begun, or use another --out."
                )
            if other["digest"] != summary["digest"] and (plan.kind == "strong" or other["ranks"] == ranks):
                raise AnyrankError(
                    f"{plan.program}: on {ranks} ranks the digest is {summary['digest']}, and {other['digest']} in "
                    f"{path.name}: these results differ, so their times mean nothing. Find out why: anyrank verify "
                    f"{plan.source}"
                )
        sample = Sample(
            ranks=ranks,
            round=number,
            work=plan.made(ranks).work()[0] * timing["steps"],
            **{name: summary[name] for name in ("nodes", "crowded")},
            **{name: timing[name] for name in ("seconds", "steps", "phases", "traffic", "noise")},
        )
        told = {**asdict(sample), "digest": summary["digest"], "machine": {**facts, "cores": summary["cores"]}}
        write_atomically(self._sample(ranks, number), json.dumps(told, indent=2) + "\n")
        return sample


def _model(machine: Mapping[str, Any]) -> str:
    """What kind of processor it is, without how much of it a process had."""
    return str(machine.get("processor")).rpartition(", ")[0]


@dataclass
class _Runner:
    plan: Plan
    folder: Path
    timeout: float
    hosts: str

    def run(self, ranks: int, name: str, stop_at: int | None = None) -> dict[str, Any] | None:
        """The summary of one run on so many ranks, None where it was stopped; AnyrankError where it fails."""
        out = RunFolder(self.folder / name)
        shutil.rmtree(out.path, ignore_errors=True)
        parameters, log = self.folder / f"{name}.toml", self.folder / f"{name}.txt"
        parameters.write_text(tomli_w.dumps(self.plan.made(ranks).parameters), encoding="utf-8")
        options = {"checkpoint_every": "off", **self.plan.options, "ranks": ranks, "picture": False, "quiet": True}
        options |= {} if stop_at is None else {"stop_at": stop_at}
        run = ["run", self.plan.source, "--parameters", str(parameters), "--out", str(out.path), *option_words(options)]
        log.unlink(missing_ok=True)
        ended = run_child(run, ranks, out.path, log, self.timeout, hosts=parse_hosts(self.hosts, ranks))
        if ended.status is None:
            raise AnyrankError(f"on {ranks} ranks, it was not over after {self.timeout:g} s (--timeout).")
        if not ended.finished and not ended.stopped:
            last = "\n".join(ended.messages(SHOWN))
            kind = UsageError if ended.status == UsageError.status else AnyrankError
            raise kind(f"on {ranks} ranks, the run failed with status {ended.status}; all is in {log}:\n{last}")
        shutil.rmtree(out.path)  # its state may be large
        return ended.summary if ended.finished else None
