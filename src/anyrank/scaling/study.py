"""A scaling study in a folder: runs in rounds, one after the other, and what is kept of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import tomli_w

from anyrank.batch.script import option_words
from anyrank.errors import AnyrankError, UsageError
from anyrank.program import Program, flag_of
from anyrank.programs import load
from anyrank.run.folder import RunFolder, write_atomically
from anyrank.run.launch import popen, starting
from anyrank.run.supervisor import slots
from anyrank.scaling.measured import Sample, Study
from anyrank.toml import tomllib

KINDS = ("strong", "weak")
#: What of a run's provenance tells the machine.
MACHINE = ("host", "processor", "mpi", "anyrank", "commit", "utc")
#: Lines of a failed run's words that are shown.
SHOWN = 12
STOPPED = 75


@dataclass(frozen=True)
class Plan:
    """What a study measures: a program with its parameters at one rank, on each of `ranks`, `repeat` times."""

    kind: str
    source: str
    program: str
    parameters: dict[str, Any]
    options: dict[str, Any]
    grow: tuple[str, ...]
    ranks: tuple[int, ...]
    repeat: int

    def made(self, ranks: int) -> Program:
        """The program as it is measured on so many ranks; UsageError where it cannot grow so far."""
        cls = load(self.source)
        return cls(**(grown(cls, self.parameters, self.grow, ranks) if self.kind == "weak" else self.parameters))

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
        made = program(**at(factor))
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
    return at(min(high, low, key=lambda factor: abs(work(factor) - goal)))


class StudyFolder:
    """The folder of a study: `study.toml`, `samples/`, runs while they run, and the report."""

    def __init__(self, path: Path):
        self.path = path
        self.description, self.samples, self.network = path / "study.toml", path / "samples", path / "network.json"

    def plan(self) -> Plan:
        """The plan of the study that is there; UsageError where there is none."""
        try:
            told = tomllib.loads(self.description.read_text())
            return Plan(**{**told, "grow": tuple(told["grow"]), "ranks": tuple(told["ranks"])})
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UsageError(f"{self.path} holds no scaling study ({error}). Give the folder of one.") from None

    def create(self, plan: Plan) -> None:
        """Make the folder, or add ranks and rounds to its study; UsageError where it holds anything else."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            self._check(plan, self.plan() if self.description.exists() else None)
        try:
            self.samples.mkdir(parents=True, exist_ok=True)
            write_atomically(self.description, tomli_w.dumps(asdict(plan)))
        except OSError as error:
            raise UsageError(f"--out {self.path} cannot be written ({error.strerror}). Use another --out.") from None

    def _check(self, plan: Plan, there: Plan | None) -> None:
        if there is None:
            raise UsageError(f"--out {self.path} holds something, and no study. Use another --out.")
        for name in ("program", "kind", "source", "parameters", "options", "grow"):
            old, new = getattr(there, name), getattr(plan, name)
            if old != new:
                raise UsageError(
                    f"--out {self.path} holds a study of another {name} ({old} is not {new}). Use another --out."
                )

    def _sample(self, ranks: int, number: int) -> Path:
        return self.samples / f"p{ranks:06}-r{number:03}.json"

    def missing(self, plan: Plan, number: int) -> list[int]:
        """The numbers of ranks that a round still lacks, in their order."""
        return [ranks for ranks in plan.order(number) if not self._sample(ranks, number).exists()]

    def read(self) -> Study:
        """What has been measured so far; UsageError where that is nothing."""
        plan = self.plan()
        found = [json.loads(path.read_text()) for path in sorted(self.samples.glob("p*-r*.json"))]
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
        is not that of the others.
        """
        if not any(self.missing(plan, number) for number in rounds):
            return 0
        runner = _Runner(plan, self.path / "runs", timeout, hosts)
        runner.run(max(plan.ranks), "warm-up", stop_at=2)
        for number in rounds:
            for ranks in self.missing(plan, number):
                summary = runner.run(ranks, f"p{ranks:06}-r{number:03}")
                if summary is None:
                    say(f"stopped before its end: go on with anyrank scale resume {self.path}")
                    return STOPPED
                sample = self._keep(plan, ranks, number, summary)
                say(f"round {number} of {plan.repeat}: {ranks} rank(s), {sample.seconds:.3f} s")
        shutil.rmtree(runner.folder, ignore_errors=True)
        return 0

    def _keep(self, plan: Plan, ranks: int, number: int, summary: Mapping[str, Any]) -> Sample:
        timing, program = summary["timing"], plan.made(ranks)
        for path in self.samples.glob("p*-r*.json" if plan.kind == "strong" else f"p{ranks:06}-r*.json"):
            other = json.loads(path.read_text())["digest"]
            if other != summary["digest"]:
                raise AnyrankError(
                    f"{plan.program}: on {ranks} ranks the digest is {summary['digest']}, and {other} in {path.name}: "
                    f"these results differ, so their times mean nothing. Find out why: anyrank verify {plan.source}"
                )
        sample = Sample(
            ranks=ranks,
            round=number,
            seconds=timing["seconds"],
            steps=timing["steps"],
            work=program.work()[0] * timing["steps"],
            nodes=summary["nodes"],
            crowded=summary["crowded"],
            phases=timing["phases"],
            traffic=timing["traffic"],
            noise=timing["noise"],
        )
        facts = {name: value for name, value in summary["provenance"].items() if name in MACHINE}
        told = {**asdict(sample), "digest": summary["digest"], "machine": {**facts, "cores": summary["cores"]}}
        write_atomically(self._sample(ranks, number), json.dumps(told, indent=2) + "\n")
        return sample


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
        self.folder.mkdir(parents=True, exist_ok=True)
        parameters, words = self.folder / f"{name}.toml", self.folder / f"{name}.txt"
        parameters.write_text(tomli_w.dumps(self.plan.made(ranks).parameters))
        options = {"checkpoint_every": "off", **self.plan.options, "ranks": ranks, "picture": False, "quiet": True}
        options |= {} if stop_at is None else {"stop_at": stop_at}
        launcher = [*starting(slots(self.hosts, ranks)), "-n", str(ranks)] if ranks > 1 or self.hosts else []
        command = [*launcher, sys.executable, "-m", "anyrank", "run", self.plan.source, "--parameters", str(parameters)]
        with words.open("wb") as file:
            process = popen([*command, "--out", str(out.path), *option_words(options)], {}, stdout=file, stderr=file)
        try:
            status = process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            raise AnyrankError(f"on {ranks} ranks, it was not over after {self.timeout:g} s (--timeout).") from None
        finally:
            process.kill()  # mpiexec takes its ranks along
            process.wait()
        if status not in (0, STOPPED):
            last = "\n".join(words.read_text(errors="replace").splitlines()[-SHOWN:])
            raise AnyrankError(f"on {ranks} ranks, the run failed with status {status}; all is in {words}:\n{last}")
        summary = out.finished()
        shutil.rmtree(out.path)  # its state may be large
        return summary
