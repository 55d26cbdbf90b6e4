"""A verification: all cases of the matrix, one after the other, and what their differences mean."""

from __future__ import annotations

from collections.abc import Callable

import h5py

from anyrank.errors import AnyrankError, UsageError
from anyrank.verify.case import REFERENCE, Case
from anyrank.verify.explain import explain
from anyrank.verify.locate import locate
from anyrank.verify.matrix import Plan
from anyrank.verify.report import header, paragraph, row
from anyrank.verify.runner import FAILED, IMPOSSIBLE, SAME, Outcome, Runner


class Verification:
    """Runs the plan's cases and says what comes of them, a line at a time."""

    def __init__(self, runner: Runner, plan: Plan, say: Callable[[str], None]):
        self.runner, self.plan, self._say = runner, plan, say
        self.outcomes: list[Outcome] = []
        #: The paragraphs that tell what is wrong, by the outcomes that they explain.
        self.found: dict[Outcome, str] = {}

    def carry_out(self) -> int:
        """The exit code: 0 where all cases are like the reference, else 1. Raises AnyrankError where that fails."""
        self._say(header())
        reference = self._run(REFERENCE)
        if reference.verdict != SAME:
            kind = UsageError if reference.verdict == IMPOSSIBLE else AnyrankError
            reference.verdict = FAILED
            raise kind(f"there is nothing to compare with, because the reference fails:\n{reference.message}")
        for case in [*self.plan.first()[1:], *self.plan.rest(max(reference.trace), _axes(reference))]:
            self._run(case)
        self._say("")
        self._explain()
        return 1 if self.found else 0

    def _run(self, case: Case) -> Outcome:
        outcome = self.runner.run(case)
        self.outcomes.append(outcome)
        self._say(row(len(self.outcomes), outcome, self.outcomes[0]))
        return outcome

    def _explain(self) -> None:
        numbers = {outcome: number for number, outcome in enumerate(self.outcomes, 1)}
        findings = explain(self.outcomes)
        for finding in findings:
            failed = FAILED in (finding.one.verdict, finding.other.verdict)
            text = paragraph(finding, None if failed else locate(self.runner, finding), numbers)
            self._say(text + "\n")
            self.found |= dict.fromkeys((finding.other, *finding.seen), text)
        skipped = sum(outcome.verdict == IMPOSSIBLE for outcome in self.outcomes)
        end = f"{len(self.found)} not like the reference; mend the first" if findings else "the same bits at every step"
        self._say(f"{len(self.outcomes) - skipped} cases, {skipped} more not possible: {end}.")


def _axes(outcome: Outcome) -> int:
    """The axes of the field that has most of them."""
    with h5py.File(outcome.checkpoint(max(outcome.trace)), "r") as file:
        return max((dataset.ndim for dataset in file.get("fields", {}).values()), default=0)
