"""Explain different outcomes by pairs of cases that differ in one property."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from anyrank.verify.case import CAUSES, causes
from anyrank.verify.runner import FAILED, IMPOSSIBLE, Outcome, Trace

_ORDER = list(CAUSES)


@dataclass
class Finding:
    """Two outcomes that differ, the cause of the difference, and the other outcomes that it explains.

    `nearest` is the outcome of the case that is nearest to that of `other`; it is correct, if possible.
    """

    cause: str
    nearest: Outcome
    other: Outcome
    seen: list[Outcome] = field(default_factory=list)
    #: What the places of the elements that differ suggest: see `pattern`.
    hint: str = ""
    #: Whether both cases gave the same bits when they ran again.
    reproducible: bool = True

    @property
    def failed(self) -> bool:
        """Whether one of the two cases failed."""
        return FAILED in (self.nearest.verdict, self.other.verdict)


def explain(outcomes: Sequence[Outcome]) -> list[Finding]:
    """Return one finding for each cause, the most specific first; none if all outcomes equal the first.

    Each finding compares an outcome with the nearest case, which differs in as few properties as possible, and which is
    preferably correct.
    """
    ran = [outcome for outcome in outcomes if outcome.verdict != IMPOSSIBLE]
    wrong = [outcome for outcome in ran if not outcome.equals(ran[0])]
    for outcome in ran:
        for other in ran:
            if causes(outcome.case, other.case) == ["again"] and other.case.changed and not outcome.equals(other):
                return [Finding("again", outcome, other, [it for it in wrong if it is not other])]
    pairs = [(_nearest(outcome, ran, wrong), outcome) for outcome in wrong]
    findings: dict[tuple[str, bool], Finding] = {}
    # An outcome that differs in several properties belongs to an existing finding for one of them.
    for nearest, other in sorted(pairs, key=lambda pair: len(causes(pair[0].case, pair[1].case))):
        differences = causes(nearest.case, other.case)
        explained = [finding for finding in findings.values() if finding.cause in differences and len(differences) > 1]
        key = differences[0], other.verdict == FAILED
        if explained or key in findings:
            (explained[0] if explained else findings[key]).seen.append(other)
        else:
            findings[key] = Finding(differences[0], nearest, other)
    _merge_blocks(findings)
    return sorted(findings.values(), key=_place)


def _place(finding: Finding) -> tuple[bool, int]:
    """Return a sort key: a body that fails is last, because it explains no difference (NumPy arrays on a GPU)."""
    return finding.cause == "body" and finding.failed, _ORDER.index(finding.cause)


def _merge_blocks(findings: dict[tuple[str, bool], Finding]) -> None:
    """Count other sizes and shapes of blocks to the finding about the number of ranks, which changes both."""
    for cause, failed in product(("weights", "split"), (False, True)):
        if (cause, failed) in findings and ("ranks", failed) in findings:
            blocks = findings.pop((cause, failed))
            findings["ranks", failed].seen += [blocks.other, *blocks.seen]


def _nearest(outcome: Outcome, ran: Sequence[Outcome], wrong: Sequence[Outcome]) -> Outcome:
    def distance(other: Outcome) -> tuple[int, bool, bool, int]:
        differences = causes(other.case, outcome.case)
        return len(differences), other in wrong, bool(other.case.changed), _ORDER.index(differences[0])

    return min((other for other in ran if not other.equals(outcome)), key=distance)


def by_chance(finding: Finding, findings: Sequence[Finding]) -> Finding:
    """Return the only finding if one of them is not reproducible: its pair of cases shows that, and no other cause."""
    others = [outcome for it in findings for outcome in (it.other, *it.seen) if outcome is not finding.other]
    return replace(finding, cause="again", seen=others, hint="")


def first_difference(trace: Trace, other: Trace) -> tuple[int, list[str]] | None:
    """Return the first step at which two traces differ, and the members that differ, in the order of declaration.

    There are no members if one trace ends before that step. None if the traces are equal.
    """
    for step in sorted({*trace, *other}):
        if step not in trace or step not in other:
            return step, []
        names = dict.fromkeys([*trace[step], *other[step]])
        members = [name for name in names if trace[step].get(name) != other[step].get(name)]
        if members:
            return step, members
    return None
