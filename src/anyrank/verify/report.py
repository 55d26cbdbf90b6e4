"""The report of verify: a line for each case, a paragraph for each finding, and JUnit XML for CI."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from xml.etree import ElementTree

from anyrank.verify.case import CAUSES
from anyrank.verify.explain import Finding, first_difference
from anyrank.verify.locate import Location
from anyrank.verify.runner import FAILED, IMPOSSIBLE, SAME, Outcome

#: The formats that name the two sides of a cause; for a cause that is not listed, its name suffices.
_CONTRASTS = {
    "parts": "{0.regions}",
    "body": "{0.body}",
    "restart": "{0.what} on {0.count}",
    "extended": "{0.what} on {0.count}",
    "split": "{0.split}",
    "ranks": "{0.count}",
}
#: Causes for which the message of a failure suffices: it does not mention regions or a hash seed, for example.
_CLEAR = ("weights", "body", "restart", "extended", "split", "ranks")
_ROW = "{:>4}  {:<7} {:<8} {:<10} {:<26} {:>6}  {:<16} {:>7}  {}"


def header() -> str:
    """Return the first line of the table."""
    return _ROW.format("case", "ranks", "split", "body", "what", "steps", "digest", "seconds", "verdict").rstrip()


def row(number: int, outcome: Outcome, reference: Outcome) -> str:
    """Return the line of a case in the table."""
    case, summary = outcome.case, outcome.summary
    what = "reference" if outcome is reference else case.what
    steps, digest = (summary.get("steps", "-"), summary.get("digest", "-")) if outcome.trace else ("-", "-")
    cells = (number, case.count, case.split, case.body, what, steps, digest, f"{outcome.seconds:.1f}")
    return _ROW.format(*cells, verdict(outcome, reference))


def verdict(outcome: Outcome, reference: Outcome) -> str:
    """Return the verdict on a case as a short text."""
    if outcome.verdict == IMPOSSIBLE:
        return f"{IMPOSSIBLE}: {outcome.message.splitlines()[0]}"
    if outcome.verdict == FAILED or outcome.equals(reference):
        return outcome.verdict
    first = first_difference(reference.trace, outcome.trace)
    files = _differing_outputs(reference, outcome)
    result = "in its result" if outcome.result != reference.result else f"in {', '.join(files)}"
    where = f"at step {first[0]}" if first else result
    return f"DIFFERS {where}{', then FAILED' if outcome.message else ''}"


def paragraph(finding: Finding, location: Location | None, numbers: Mapping[Outcome, int]) -> str:
    """Return the text of a finding; `numbers` are the numbers of the cases in the table."""
    nearest, other = finding.nearest, finding.other
    sides = [f"case {numbers[it]}: {it.case}" for it in (nearest, other)]
    lines = [f"FOUND: {_contrast(finding)}"]
    if finding.failed:
        which = int(other.verdict == FAILED)
        lines += [
            f"{sides[which]} fails; this case does not:",
            f"{sides[1 - which]}:",
            *(nearest, other)[which].message.splitlines(),
        ]
    else:
        words, values = location or _results(nearest, other)
        lines.append(f"{words}:")
        for side, value in zip(sides, values or ("", ""), strict=True):
            lines += [f"  {side}", f"    {value}"] if value else [f"  {side}"]
    if not finding.failed or finding.cause not in _CLEAR:
        lines += wrap(finding.hint or CAUSES[finding.cause], 110)
    if not finding.failed:
        later = {numbers[it]: it.message.splitlines()[-1] for it in (nearest, other) if it.message}
        lines += [f"Later, case {number} fails: {message}" for number, message in later.items()]
    if finding.seen:
        lines.append(f"Also seen in case {', '.join(str(n) for n in sorted(numbers[it] for it in finding.seen))}.")
    return "\n  ".join(lines)


def _results(outcome: Outcome, other: Outcome) -> Location:
    keys = [key for key in {**outcome.result, **other.result} if outcome.result.get(key) != other.result.get(key)]
    if not keys:
        return _outputs(outcome, other)
    values = tuple(", ".join(f"{key} = {it.result.get(key)}" for key in keys) for it in (outcome, other))
    return f"The state is the same at every step, but the result differs in {', '.join(keys)}", values


def _differing_outputs(outcome: Outcome, other: Outcome) -> list[str]:
    """Return the names of the outputs that differ, or that only one case has."""
    names = sorted({**outcome.outputs, **other.outputs})
    return [name for name in names if outcome.outputs.get(name) != other.outputs.get(name)]


def _outputs(outcome: Outcome, other: Outcome) -> Location:
    """Return the outputs that differ, and the first line of each case that differs in a text file."""
    names = _differing_outputs(outcome, other)
    paths = [it.run.path / names[0] for it in (outcome, other)]
    words = f"The state and the result are the same, but {', '.join(names)} " + ("differ" if names[1:] else "differs")
    if paths[0].suffix != ".csv" or not all(path.exists() for path in paths):
        return words, tuple("exists" if path.exists() else "missing" for path in paths)
    lines = [path.read_text(encoding="utf-8").splitlines() for path in paths]
    pairs = enumerate(zip_longest(*lines, fillvalue="(no line)"), 1)
    number, differing = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
    return f"{words}; first in line {number} of {names[0]}, {lines[0][0]}", tuple(differing)


def _contrast(finding: Finding) -> str:
    """Return the difference between the two cases of a finding; other differences had no effect."""
    pattern, nearest, other = _CONTRASTS.get(finding.cause), finding.nearest.case, finding.other.case
    return (
        f"{finding.cause}: {pattern.format(other)} instead of {pattern.format(nearest)}" if pattern else finding.cause
    )


def write_junit(path: Path, name: str, outcomes: Sequence[Outcome], explanations: Mapping[Outcome, str]) -> None:
    """Write one testcase for each case; `explanations` has the paragraphs of those that differ or failed."""
    suite = ElementTree.Element("testsuite", name=f"anyrank verify {name}", tests=str(len(outcomes)))
    for number, outcome in enumerate(outcomes, 1):
        attributes = {"classname": name, "name": f"{number}: {outcome.case}", "time": f"{outcome.seconds:.3f}"}
        case = ElementTree.SubElement(suite, "testcase", attributes)
        words = _printable(verdict(outcome, outcomes[0]))
        if outcome.verdict == IMPOSSIBLE:
            ElementTree.SubElement(case, "skipped", message=words)
        elif words != SAME:
            ElementTree.SubElement(case, "failure", message=words).text = _printable(
                explanations.get(outcome, outcome.message)
            )
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    suite.set("time", f"{sum(outcome.seconds for outcome in outcomes):.3f}")
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def _printable(text: str) -> str:
    """Replace the characters that XML does not allow, such as terminal colours."""
    return re.sub(r"[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
