"""List the resources of every CUDA kernel on three GPU models: python benchmarks/gpu/registers.py [--quick].

NVRTC compiles the kernels; no GPU is needed. The table has the registers and spilled bytes of a thread, the shared
memory of a block, and the number of threads that a multiprocessor can then hold, of at most 2048. It is written to
benchmarks/results/registers-DATE.json and .md; --quick only prints it.
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


def measure_kernels() -> list[dict]:
    """Return a row for each function and GPU model."""
    rows = []
    for source in SOURCES:
        code = inline_includes(source)
        for card in CARDS:
            for function, resources in usage(*compile_for(card, source.name, code)).items():
                names = {"kernel": source.parent.name, "function": function, "card": card}
                rows.append({**names, **asdict(resources), "resident": resources.resident(card)})
    return rows


def table(rows: list[dict]) -> list[str]:
    """Return Markdown with a line for each function, and the values of all GPU models in each cell."""
    columns = {
        "registers": "registers",
        "shared": "shared bytes",
        "spilled": "spilled bytes",
        "resident": "threads per multiprocessor",
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
    rows = measure_kernels()
    head = f"`python benchmarks/gpu/registers.py`, {now:%Y-%m-%d %H:%M} UTC, NVRTC {version}: on {', '.join(CARDS)}."
    text = "\n".join([head, "", *table(rows)]) + "\n"
    print(text)
    if "--quick" not in sys.argv[1:]:
        path = BENCHMARKS / "results" / f"registers-{now:%Y-%m-%d}"
        path.with_suffix(".md").write_text(text)
        path.with_suffix(".json").write_text(json.dumps({"nvrtc": version, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
