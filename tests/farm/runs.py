"""Run farms in tests, and read their results."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from tempfile import TemporaryFile

from ranks import anyrank_command, processes_of, start_process

WORK = Path(__file__).with_name("work.py")


def table(folder: Path, rows: int, name: str = "t.csv") -> Path:
    file = folder / name
    file.write_text("x\n" + "".join(f"{row}\n" for row in range(rows)))
    return file


def farm(*words, ranks=1, status=0, out):
    """Run a farm; returns what it has printed. It must leave no process behind."""
    command = anyrank_command("farm", *words, "--out", out, "--quiet", ranks=ranks)
    with TemporaryFile("w+") as text:
        with start_process(*command, stdout=text, stderr=text) as process:
            process.wait(120)
            left = processes_of(process)
        text.seek(0)
        printed = text.read()
    assert process.returncode == status and not left, f"{left}\n{printed}"
    return printed


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return [*csv.DictReader(text)]


def digest(run: Path) -> str:
    return str(json.loads((run / "summary.json").read_text())["digest"])
