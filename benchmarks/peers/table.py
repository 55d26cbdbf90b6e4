"""Make the table of a comparison from its results, and write it into benchmarks/README.md."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from tasks import JOBS

RESULTS = Path(__file__).parents[1] / "results"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- peers: made by `make peers` -->", "<!-- end of peers -->"
PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
HEAD = [
    "| job | cores | other tool | its speed | anyrank | ratio | goal | met | answers |",
    "|---|---|---|---|---|---|---|---|---|",
]


def newest_results(folder: Path = RESULTS) -> Path | None:
    """Return the file of the newest results."""
    return max(folder.glob("peers-*.json"), default=None)


def ratios(row: dict[str, Any]) -> list[float]:
    """Return the speed of anyrank relative to the peer for each round, from the mean seconds of a turn."""
    return [
        statistics.fmean(theirs) / row["share"] / statistics.fmean(ours)
        for ours, theirs in zip(row["ours"], row["theirs"], strict=True)
    ]


def meets_goal(row: dict[str, Any]) -> bool:
    """Return whether the answers agree and the median ratio meets the goal."""
    median = statistics.median(ratios(row))
    return row["agree"] and (median >= row["goal"] if row["goal"] > 1 else median > 1)


def table(result: dict[str, Any]) -> list[str]:
    """Return a row for each comparison, notes on missed goals, and the peers that were not measured."""
    lines, notes = list(HEAD), []
    for row in result["rows"]:
        note = ""
        if not meets_goal(row) and row["behind"]:
            if row["behind"] not in notes:
                notes.append(row["behind"])
            note = f" ({notes.index(row['behind']) + 1})"
        lines.append(_line(row, note))
    lines += [""] * bool(notes) + [f"({number}) {text}." for number, text in enumerate(notes, 1)]
    missing = [f"Not measured: {one['peer']} ({one['reason']})." for one in result["skipped"]]
    return lines + [""] * bool(missing) + missing


def _line(row: dict[str, Any], note: str) -> str:
    values, job = ratios(row), JOBS[row["job"]]
    title = job.title.format(**row["size"]) + (f", {row['measure']}" if row["measure"] else "")
    span = f"{_digits(statistics.median(values))} ({_digits(min(values))} to {_digits(max(values))})"
    goal = f"≥ {row['goal']:g}" if row["goal"] > 1 else "ahead"
    met = "yes" if meets_goal(row) else f"NO{note}"
    work = job.work(row["size"])
    speeds = (_speed(work * row["share"], row["theirs"], job.unit), _speed(work, row["ours"], job.unit))
    cells = [title, row["cores"], row["peer"], *speeds, span, goal, met, row["answers"]]
    return "| " + " | ".join(map(str, cells)) + " |"


def _speed(work: float, seconds: list[list[float]], unit: str) -> str:
    """Return the median rate over rounds as text with a prefix."""
    rate = work / statistics.median(statistics.fmean(turn) for turn in seconds)
    factor, prefix = next((pair for pair in PREFIXES if rate >= pair[0]), PREFIXES[-1])
    return f"{_digits(rate / factor)} {prefix}{'' if unit == 'B' else ' '}{unit}/s"


def _digits(value: float) -> str:
    """Format with three digits, or with all digits before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def report(result: dict[str, Any]) -> str:
    """Return the results as a page: command, machine, table, versions, details."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result["versions"].items()))
    details = [f"{name}: {text}." for name, text in sorted(result["details"].items())]
    busiest = max(((share, name) for name, share in result["idle"].items()), default=(0.0, "none"))
    idle = f"While others were measured, no process took more than {busiest[0]:.1%} of a core ({busiest[1]})."
    head = f"`{result['command']}`, {result['began']}, {result['seconds']:.0f} s, {result['rounds']} rounds, on "
    head += f"{result['machine']}; load at the start {result['load']:.1f}."
    return "\n".join([head, "", *table(result), "", f"Versions: {versions}.", *details, idle]) + "\n"


def write_readme(readme: Path = README, results: Path = RESULTS) -> None:
    """Write the table of the newest results between the marks in the README."""
    path = newest_results(results)
    lines = ["No results are kept yet."]
    if path:
        result = json.loads(path.read_text())
        lines = [f"{result['began']}, {result['machine']}: [all values](results/{path.name}).", "", *table(result)]
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text("\n".join([before + BEGIN, *lines, END + after]))
