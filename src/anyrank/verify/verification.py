"""A verification: run all cases of the matrix one after the other, and explain their differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import h5py

from anyrank.errors import AnyrankError, UsageError
from anyrank.verify.case import REFERENCE, Case
from anyrank.verify.explain import Finding, by_chance, explain
from anyrank.verify.locate import Location, locate
from anyrank.verify.matrix import CaseMatrix
from anyrank.verify.report import header, paragraph, row
from anyrank.verify.runner import FAILED, IMPOSSIBLE, SAME, Outcome, Runner


class Verification:
    """Runs the cases of a plan and reports each of them in one line."""

    def __init__(self, runner: Runner, plan: CaseMatrix, say: Callable[[str], None]):
        self.runner, self.plan, self._print = runner, plan, say
        self.outcomes: list[Outcome] = []
        #: The paragraph that explains each outcome that differs.
        self.explanations: dict[Outcome, str] = {}

    def execute(self) -> int:
        """Run; return 0 if all cases equal the reference, else 1. Raises AnyrankError if the reference fails."""
        self._print(header())
        reference = self._run(REFERENCE)
        if reference.verdict != SAME:
            kind = UsageError if reference.refused else AnyrankError
            reference.verdict = FAILED
            raise kind(f"the reference case fails, so no case can be compared with it:\n{reference.message}")
        for case in [*self.plan.first()[1:], *self.plan.rest(max(reference.trace), _axes(reference))]:
            if not self._would_hang(case):
                self._run(case)
        self._print("")
        self._explain()
        return 1 if self.explanations else 0

    def _would_hang(self, case: Case) -> bool:
        """Return whether ranks may wait for each other until the time limit: the case with --check fails."""
        failed = [outcome.case for outcome in self.outcomes if outcome.verdict != IMPOSSIBLE and outcome.message]
        return case.changed == "timing" and replace(case, changed="") in failed

    def _run(self, case: Case) -> Outcome:
        outcome = self.runner.run(case)
        if outcome.verdict == FAILED and self.outcomes and outcome.differs(self.outcomes[0]):
            outcome.verdict = SAME  # the difference came first
        self.outcomes.append(outcome)
        self._print(row(len(self.outcomes), outcome, self.outcomes[0]))
        return outcome

    def _locate(self, findings: list[Finding]) -> list[tuple[Finding, Location | None]]:
        """Return the findings and their locations: a single one if the runs are not reproducible."""
        located = []
        for finding in findings:
            located.append((finding, locate(self.runner, finding)))
            if not finding.reproducible and finding.cause != "timing":  # a delay shows a race, which is its cause
                return [(by_chance(finding, findings), located[-1][1])]
        return located

    def _explain(self) -> None:
        numbers = {outcome: number for number, outcome in enumerate(self.outcomes, 1)}
        findings = explain(self.outcomes)
        for finding, location in self._locate(findings):
            text = paragraph(finding, location, numbers)
            self._print(text + "\n")
            self.explanations |= dict.fromkeys((finding.other, *finding.seen), text)
        if len(reference := self.outcomes[0].trace) > 1 and all(it == reference[0] for it in reference.values()):
            self._print("Note: the State has the same bits at every step, so that the cases could not show much.\n")
        skipped = sum(outcome.verdict == IMPOSSIBLE for outcome in self.outcomes)
        differ = f"{len(self.explanations)} differ from the reference; fix the first finding and verify again"
        end = differ if findings else "the same bits at every step"
        self._print(f"{len(self.outcomes) - skipped} cases, {skipped} more not possible: {end}.")


def _axes(outcome: Outcome) -> int:
    """Return the largest number of axes of a field."""
    with h5py.File(outcome.checkpoint(max(outcome.trace)), "r") as file:
        return max((dataset.ndim for dataset in file.get("fields", {}).values()), default=0)
