"""Explaining: from outcomes that differ to pairs of them that differ in one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from anyrank.verify.case import CAUSES, causes
from anyrank.verify.runner import FAILED, IMPOSSIBLE, Outcome, Trace

_ORDER = list(CAUSES)


@dataclass
class Finding:
    """Two outcomes that differ, what differs between their cases, and all other outcomes that it explains."""

    cause: str
    one: Outcome
    other: Outcome
    seen: list[Outcome] = field(default_factory=list)


def explain(outcomes: Sequence[Outcome]) -> list[Finding]:
    """One finding for each cause, most telling first; none where all outcomes are like the first.

    Each compares with the case that is nearest: that differs in the fewest things, best in one, and is right.
    """
    ran = [outcome for outcome in outcomes if outcome.verdict != IMPOSSIBLE]
    wrong = [outcome for outcome in ran if not outcome.like(ran[0])]
    for one in ran:
        for other in ran:
            if causes(one.case, other.case) == ["again"] and other.case.changed and not one.like(other):
                return [Finding("again", one, other, [it for it in wrong if it is not other])]
    pairs = [(_nearest(outcome, ran, wrong), outcome) for outcome in wrong]
    found: dict[tuple[str, bool], Finding] = {}
    # What differs in several things has none of its own, where one of them explains others.
    for one, other in sorted(pairs, key=lambda pair: len(causes(pair[0].case, pair[1].case))):
        between = causes(one.case, other.case)
        known = [finding for finding in found.values() if finding.cause in between and len(between) > 1]
        key = between[0], other.verdict == FAILED
        if known or key in found:
            (known[0] if known else found[key]).seen.append(other)
        else:
            found[key] = Finding(between[0], one, other)
    return sorted(found.values(), key=lambda finding: _ORDER.index(finding.cause))


def _nearest(outcome: Outcome, ran: Sequence[Outcome], wrong: Sequence[Outcome]) -> Outcome:
    def distance(other: Outcome) -> tuple[int, bool, bool, int]:
        between = causes(other.case, outcome.case)
        return len(between), other in wrong, bool(other.case.changed), _ORDER.index(between[0])

    return min((other for other in ran if not other.like(outcome)), key=distance)


def first_difference(one: Trace, other: Trace) -> tuple[int, list[str]] | None:
    """The first step at which two traces differ, with the members that do, in the order of their declaration.

    No members where one trace ends before that step. None where nothing differs.
    """
    for step in sorted({*one, *other}):
        if step not in one or step not in other:
            return step, []
        names = dict.fromkeys([*one[step], *other[step]])
        members = [name for name in names if one[step].get(name) != other[step].get(name)]
        if members:
            return step, members
    return None
