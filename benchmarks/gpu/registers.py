"""What every CUDA kernel takes of every card, as NVRTC says without one: python benchmarks/gpu/registers.py [--quick].

Registers and spilled bytes of a thread, shared memory of a block, and the threads that a multiprocessor then holds
at once, of 2048. Writes benchmarks/results/registers-DATE.json and .md; --quick only prints the table.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1]
sys.path.insert(0, str(BENCHMARKS.parent / "tests"))

from nvrtc import CARDS, SOURCES, compile_for, usage  # noqa: E402

from anyrank.device.source import inline_includes  # noqa: E402


def measured() -> list[dict]:
    """Return a row for each function and card."""
    rows = []
    for source in SOURCES:
        code = inline_includes(source)
        for card in CARDS:
            for function, used in usage(*compile_for(card, source.name, code)).items():
                names = {"kernel": source.parent.name, "function": function, "card": card}
                rows.append({**names, **asdict(used), "resident": used.resident(card)})
    return rows


def table(rows: list[dict]) -> list[str]:
    """Return Markdown: a line for each function, its values on the cards one after the other."""
    columns = {
        "registers": "registers",
        "shared": "shared bytes",
        "spilled": "spilled bytes",
        "resident": "threads held",
    }
    lines = [f"| kernel | function | {' | '.join(columns.values())} |", "|---|---|" + "---|" * len(columns)]
    for kernel, function in dict.fromkeys((row["kernel"], row["function"]) for row in rows):
        cards = [row for row in rows if (row["kernel"], row["function"]) == (kernel, function)]
        values = [", ".join(str(row[column]) for row in cards) for column in columns]
        lines.append(f"| {kernel} | {function} | {' | '.join(values)} |")
    return lines


def main() -> None:
    from cupy_backends.cuda.libs import nvrtc

    now = datetime.now(timezone.utc)
    version = ".".join(map(str, nvrtc.getVersion()))
    rows = measured()
    head = f"`python benchmarks/gpu/registers.py`, {now:%Y-%m-%d %H:%M} UTC, NVRTC {version}: on {', '.join(CARDS)}."
    text = "\n".join([head, "", *table(rows)]) + "\n"
    print(text)
    if "--quick" not in sys.argv[1:]:
        place = BENCHMARKS / "results" / f"registers-{now:%Y-%m-%d}"
        place.with_suffix(".md").write_text(text)
        place.with_suffix(".json").write_text(json.dumps({"nvrtc": version, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
