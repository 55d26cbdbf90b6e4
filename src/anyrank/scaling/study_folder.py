"""A scaling study in a folder: runs in rounds, one after the other, and their samples."""

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
from anyrank.scaling.measured import Sample, ScalingStudy
from anyrank.storage.durable import write_atomically
from anyrank.toml import read_toml

KINDS = ("strong", "weak")
#: The keys of a run's provenance that describe the machine.
MACHINE = ("host", "processor", "mpi", "anyrank", "commit", "utc")
#: The number of lines that are shown of the messages of a failed run.
SHOWN = 12
_TOO_FEW = "{}: {} step(s) cannot be measured, because the first only warms up. Choose parameters for 2 or more steps."


@dataclass(frozen=True)
class Plan:
    """The plan of a study: a program with its parameters for one rank, on each of `ranks`, `repeat` times.

    `hosts` are the hosts that were last given for its ranks; empty for this host or for jobs.
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

    def program_for(self, ranks: int) -> Program:
        """Return the program for `ranks` ranks; raise UsageError if it cannot grow that far, or is too short."""
        cls = load(self.source)
        ready = cls(**(grown(cls, self.parameters, self.grow, ranks) if self.kind == "weak" else self.parameters))
        if cls.done is Program.done and ready.steps < 2:
            raise UsageError(_TOO_FEW.format(self.program, ready.steps))
        if not ready.work()[0] > 0:
            raise UsageError(f"{self.program}: its work() is {ready.work()[0]!r} per step. It must be more than 0.")
        return ready

    def metadata(self) -> dict[str, Any]:
        """Return the properties that must be the same for the whole study, by name or flag."""
        words = {"program": self.program, "kind": self.kind, "source": self.source, "--grow": ",".join(self.grow)}
        return words | {flag_of(name): value for name, value in {**self.parameters, **self.options}.items()}

    def order(self, number: int) -> list[int]:
        """Return the order of the ranks in a round: ascending and descending by turns, so that drift favours none."""
        return sorted(self.ranks, reverse=number % 2 == 0)


def grown(program: type[Program], parameters: Mapping[str, Any], grow: Sequence[str], ranks: int) -> dict[str, Any]:
    """Return the parameters for `ranks` times the work: all parameters in `grow` are multiplied by the same factor.

    Whole numbers are rounded, so the work is only approximately that; the rates of a study use the work that was done.
    Raises UsageError if the program refuses the parameters.
    """
    whole = {name: isinstance(parameters[name], int) for name in grow}

    def at(factor: float) -> dict[str, Any]:
        larger = {name: parameters[name] * factor for name in grow}
        return {**parameters, **{name: round(value) if whole[name] else value for name, value in larger.items()}}

    def work(factor: float) -> float:
        try:
            ready = program(**at(factor))
        except UsageError:
            return inf
        return float(ready.work()[0] * ready.steps)

    low, high, goal = 1.0, float(ranks), ranks * work(1.0)
    if work(high) < (1 - 1e-9) * goal:
        names = ", ".join(map(flag_of, grow))
        raise UsageError(
            f"{program.name}: {ranks} times {names} does not give {ranks} times its work(). Use other names in --grow."
        )
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if work(middle) < goal else (low, middle)
    program(**at(high))
    return at(min(high, low, key=lambda factor: abs(work(factor) - goal)))


class StudyFolder:
    """The folder of a study: `study.toml`, `samples/`, the current runs, and the report."""

    def __init__(self, path: Path):
        self.path = path
        self.description, self.samples, self.network = path / "study.toml", path / "samples", path / "network.json"

    def plan(self) -> Plan:
        """Read the plan of the study; UsageError if there is none."""
        try:
            content = read_toml(self.description)
            return Plan(**{**content, "grow": tuple(content["grow"]), "ranks": tuple(content["ranks"])})
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UsageError(f"{self.path} holds no scaling study ({error}). Give the folder of a study.") from None

    def create(self, plan: Plan) -> Plan:
        """Make the folder, or add ranks and rounds to its study; return the plan of the whole study.

        A study without samples and jobs is replaced. Raises UsageError if the folder holds another study.
        """
        try:
            if self.description.exists():
                begun = any(self.samples.glob("p*")) or (self.path / "jobs").exists()
                plan = self._merge_with_existing(plan) if begun else plan
            elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise UsageError(f"--out {self.path} holds files, but no study. Use another --out.")
            self.samples.mkdir(parents=True, exist_ok=True)
            write_atomically(self.description, tomli_w.dumps(asdict(plan)))
        except OSError as error:
            raise UsageError(f"--out {self.path} cannot be written ({error.strerror}). Use another --out.") from None
        return plan

    def _merge_with_existing(self, plan: Plan) -> Plan:
        existing = self.plan()
        before, after = existing.metadata(), plan.metadata()
        for name in (*after, *before):
            old, new = before.get(name), after.get(name)
            if old != new:
                raise UsageError(
                    f"--out {self.path} holds a study with another {name} ({old}, not {new}). Use another --out."
                )
        ranks = tuple(sorted({*existing.ranks, *plan.ranks}))
        return replace(plan, ranks=ranks, repeat=max(existing.repeat, plan.repeat))

    def _sample(self, ranks: int, number: int) -> Path:
        return self.samples / f"p{ranks:06}-r{number:03}.json"

    def missing(self, plan: Plan, number: int) -> list[int]:
        """Return the numbers of ranks that are missing in a round, in the order of the round."""
        return [ranks for ranks in plan.order(number) if not self._sample(ranks, number).exists()]

    def read(self) -> ScalingStudy:
        """Read the samples measured so far; UsageError if there are none."""
        plan = self.plan()
        contents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.samples.glob("p*-r*.json"))]
        if not contents:
            raise UsageError(f"{self.path} holds no sample yet. Measure first: anyrank scale resume {self.path}")
        names = [field.name for field in fields(Sample)]
        contents = [{"oversubscribed": content.get("crowded"), **content} for content in contents]  # the former name
        samples = tuple(Sample(**{name: content[name] for name in names}) for content in contents)
        unit = plan.program_for(plan.ranks[0]).work()[1]
        description = (plan.kind, plan.program, plan.source, plan.parameters, plan.options, plan.grow, unit)
        return ScalingStudy(*description, samples, contents[0]["machine"])

    def measure(self, plan: Plan, rounds: Sequence[int], timeout: float, hosts: str, say: Callable[[str], None]) -> int:
        """Do the missing runs of these rounds; return 0, or 75 if a run was stopped.

        A short warm-up run on all ranks comes first. Raises AnyrankError if a run fails or has another digest than the
        others, and UsageError if another process measures.
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
                say(f"round {number} continues: changes of the machine since its first runs affect its ratios")
            for ranks in missing:
                summary = runner.run(ranks, f"p{ranks:06}-r{number:03}")
                if summary is None:
                    say(f"stopped before the end: continue with anyrank scale resume {self.path}")
                    return STOPPED
                sample = self._keep(plan, ranks, number, summary)
                say(f"round {number} of {plan.repeat}: {ranks} rank(s), {sample.seconds:.3f} s")
        return 0

    def _keep(self, plan: Plan, ranks: int, number: int, summary: Mapping[str, Any]) -> Sample:
        timing = summary["timing"]
        machine = {name: value for name, value in summary["provenance"].items() if name in MACHINE}
        if not timing["warm_up"]:
            raise AnyrankError(_TOO_FEW.format(plan.program, timing["steps"]))
        for path in self.samples.glob("p*-r*.json"):
            other = json.loads(path.read_text(encoding="utf-8"))
            first, current = _processor(other["machine"]), _processor(machine)
            if other["round"] == number and first != current:
                raise AnyrankError(
                    f"round {number} was begun on {first}, but this is {current}: their times cannot be compared. "
                    f"Continue on the first machine, or use another --out."
                )
            if other["digest"] != summary["digest"] and (plan.kind == "strong" or other["ranks"] == ranks):
                raise AnyrankError(
                    f"{plan.program}: on {ranks} ranks the digest is {summary['digest']}, but {other['digest']} in "
                    f"{path.name}: the results differ, so their times cannot be compared. Find the cause with: anyrank "
                    f"verify {plan.source}"
                )
        sample = Sample(
            ranks=ranks,
            round=number,
            work=plan.program_for(ranks).work()[0] * timing["steps"],
            **{name: summary[name] for name in ("nodes", "oversubscribed")},
            **{name: timing[name] for name in ("seconds", "steps", "phases", "traffic", "noise")},
        )
        content = {**asdict(sample), "digest": summary["digest"], "machine": {**machine, "cores": summary["cores"]}}
        write_atomically(self._sample(ranks, number), json.dumps(content, indent=2) + "\n")
        return sample


def _processor(machine: Mapping[str, Any]) -> str:
    """Return the model of the processor, without the number of cores that a process had."""
    return str(machine.get("processor")).rpartition(", ")[0]


@dataclass
class _Runner:
    plan: Plan
    folder: Path
    timeout: float
    hosts: str

    def run(self, ranks: int, name: str, stop_at: int | None = None) -> dict[str, Any] | None:
        """Run on `ranks` ranks; return the summary, None if the run was stopped. AnyrankError if it fails."""
        out = RunFolder(self.folder / name)
        shutil.rmtree(out.path, ignore_errors=True)
        parameters, log = self.folder / f"{name}.toml", self.folder / f"{name}.txt"
        parameters.write_text(tomli_w.dumps(self.plan.program_for(ranks).parameters), encoding="utf-8")
        options = {"checkpoint_every": "off", **self.plan.options, "ranks": ranks, "picture": False, "quiet": True}
        options |= {} if stop_at is None else {"stop_at": stop_at}
        run = ["run", self.plan.source, "--parameters", str(parameters), "--out", str(out.path), *option_words(options)]
        log.unlink(missing_ok=True)
        ended = run_child(run, ranks, out.path, log, self.timeout, hosts=parse_hosts(self.hosts, ranks))
        if ended.status is None:
            raise AnyrankError(f"on {ranks} ranks, the run did not end within {self.timeout:g} s (--timeout).")
        if not ended.finished and not ended.stopped:
            last = "\n".join(ended.messages(SHOWN))
            kind = UsageError if ended.status == UsageError.status else AnyrankError
            raise kind(f"on {ranks} ranks, the run failed with status {ended.status}; the full log is {log}:\n{last}")
        shutil.rmtree(out.path)  # its state may be large
        return ended.summary if ended.finished else None
