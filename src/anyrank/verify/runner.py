"""Run a case, each of its runs in separate processes, and read the outcome."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from anyrank.errors import UsageError
from anyrank.provenance import file_hash
from anyrank.runtime.child_run import ChildRun, read_json, run_child
from anyrank.runtime.folder import RunFolder
from anyrank.storage.checkpoint_folder import path_of
from anyrank.toml import read_toml
from anyrank.verify.case import Case, environment

#: The digests of the members by name, by step.
Trace = dict[int, dict[str, str]]
#: An execution of a case: its ranks, the step at which it stops, and its parameter `steps`; None for the usual ones.
Leg = tuple[int, int | None, int | None]
SAME, FAILED, IMPOSSIBLE = "same", "FAILED", "not possible"
#: The number of lines that are shown of the messages of a failed run.
SHOWN = 24
#: The files of a run that must have the same bytes in all cases.
OUTPUTS = ("series.csv", "series.h5", "frames.nc")
COMMON = ("--digests", "--quiet", "--no-picture", "--checkpoint-every", "off", "--keep", "1")


@dataclass(eq=False)
class Outcome:
    """The outcome of a case: its trace and its verdict, with a message unless the run succeeded.

    A case that failed after its values had differed from the reference is not FAILED, but has a message.
    """

    case: Case
    run: RunFolder
    verdict: str = SAME
    message: str = ""
    trace: Trace = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    #: The SHA-256 of each output by the name of its file.
    outputs: dict[str, str] = field(default_factory=dict)
    #: Whether a UsageError ended the run.
    refused: bool = False
    seconds: float = 0.0

    def equals(self, other: Outcome) -> bool:
        """Return whether both failed, or both have the same bits at every step, the same result and outputs."""
        if FAILED in (self.verdict, other.verdict):
            return self.verdict == other.verdict
        if self.message or other.message:  # one of them failed later, perhaps before its last digests were written
            return not self.differs(other)
        return (self.trace, self.result, self.outputs) == (other.trace, other.result, other.outputs)

    def differs(self, other: Outcome) -> bool:
        """Return whether the bits differ at a step that both reached."""
        return any(self.trace[step] != other.trace[step] for step in self.trace.keys() & other.trace.keys())

    def checkpoint(self, step: int) -> Path:
        """Return the file of the state at the step at which the case was stopped."""
        return path_of(self.run.checkpoints, step)


@dataclass
class Runner:
    """Runs cases of one program, whose parameters are in a TOML file, each in a new folder below `folder`.

    A run that takes longer than `timeout` seconds is killed.
    """

    source: str
    parameters: Path
    folder: Path
    timeout: float
    #: Options of all runs, as words.
    outputs: Sequence[str] = ()
    started: int = 0

    def run(self, case: Case, until: int | None = None) -> Outcome:
        """Run the case, if `until` is given only up to that step, and return its outcome."""
        self.started += 1
        folder = self.folder / f"{self.started:03d}"
        folder.mkdir()
        outcome = Outcome(case, RunFolder(folder / "run"))
        words = ["run", self.source, "--parameters", str(self.parameters), "--out", str(outcome.run.path)]
        words += ["--body", case.body, "--split", case.split, *self.outputs]
        start = time.monotonic()
        legs = self._extended(case, until) if case.extended else _stopped(case, until)
        for number, (ranks, stop, steps) in enumerate(legs, 1):
            more = [] if stop is None else ["--stop-at", str(stop)]
            more += [] if steps is None else ["--set", f"steps={steps}"]
            ended = self._start(ranks, [*words, *more], case.changed, outcome.run)
            outcome.summary = ended.summary
            if not (ended.finished or (ended.stopped and stop is not None)):
                _judge_failure(outcome, ended, self.timeout, _begun(outcome.run) == number)
                break
            words = ["resume", str(outcome.run.path)]
        else:
            _judge(outcome)
        outcome.seconds = time.monotonic() - start
        return outcome

    def _extended(self, case: Case, until: int | None) -> list[Leg]:
        """Return the executions of an extended case: with fewer steps, and with those of the parameters."""
        if until is not None and until <= case.extended:
            return [(case.ranks[0], until, case.extended)]
        steps = read_toml(self.parameters)["steps"]
        return [(case.ranks[0], None, case.extended), (case.ranks[1], until, steps)]

    def _start(self, ranks: int, words: Sequence[str], changed: str, run: RunFolder) -> ChildRun:
        common = ["--hang-timeout", f"{self.timeout / 2:g}s", "-n", str(ranks)]
        common += [] if changed == "timing" else ["--check"]  # --check makes ranks wait for each other
        if changed == "weights":
            common += ["--weights", ",".join(str(1 + 2 * rank % 3) for rank in range(ranks))]
        common += ["--halo-steps", "2"] if changed == "halo steps" else []
        log, variables = run.path.with_name("stderr.txt"), environment(changed)
        module = f"anyrank.verify.{'seeded' if changed == 'hash seed' else 'rank'}"
        return run_child(
            [*words, *COMMON, *common], ranks, run.path, log, self.timeout, module=module, environment=variables
        )


def _stopped(case: Case, until: int | None) -> list[Leg]:
    """Return the executions of a case that stops and resumes, if `until` is given only up to that step."""
    stops = [*takewhile(lambda stop: until is None or stop < until, case.stops), until]
    return [(ranks, stop, None) for ranks, stop in zip(case.ranks, stops, strict=False)]


def _judge(outcome: Outcome) -> None:
    """Read the trace, the result and the outputs of a case that succeeded."""
    outcome.trace = _read_trace(outcome.run)
    outcome.result = read_json(outcome.run.result)
    files = [outcome.run.path / name for name in OUTPUTS]
    outcome.outputs = {file.name: file_hash(file) for file in files if file.exists()}
    bodies = outcome.summary["bodies"]
    used = [bodies[name] for name in bodies if _is_of_program(name)]
    requested = set(outcome.case.body.split(",")) - {"auto", "reference"}
    if requested and not any(all(body in names for body in requested) for names in used):
        outcome.verdict, outcome.message = IMPOSSIBLE, "no kernel of the program has this body"


def _read_trace(run: RunFolder) -> Trace:
    text = run.digests.read_text(encoding="utf-8") if run.digests.exists() else ""
    return {line["step"]: line["digests"] for line in map(json.loads, text.splitlines())}


def _is_of_program(kernel: str) -> bool:
    """Return whether the program calls the kernel; every run calls those of digests and exact sums."""
    return not kernel.startswith(("digest", "exact_sum"))


def _begun(run: RunFolder) -> int:
    """Return how many runs in this folder began to compute, that is, passed the checks and declared their state."""
    lines = run.events.read_text(encoding="utf-8").splitlines() if run.events.exists() else []
    return sum(json.loads(line)["event"] == "start" for line in lines)


def _judge_failure(outcome: Outcome, ended: ChildRun, timeout: float, begun: bool) -> None:
    """Set the verdict: a usage error before the run has begun means an impossible case, unless the ranks differ."""
    lines, outcome.trace = ended.messages(SHOWN), _read_trace(outcome.run)
    outcome.refused = ended.status == UsageError.status and not any("the ranks d" in line for line in lines)
    outcome.verdict = IMPOSSIBLE if outcome.refused and not begun else FAILED
    if ended.status is None:
        lines.append(f"killed, because it did not end within {timeout:g} s (--timeout)")
    elif not lines:
        lines.append(f"ended with status {ended.status} and without a message")
    outcome.message = "\n".join(lines).removeprefix("anyrank: ")
