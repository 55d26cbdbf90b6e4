"""The words of all texts of a folder: a task for each file, and one that needs all of them and adds them up.

    python examples/word_frequencies.py FOLDER words.jsonl      # writes the table of the tasks
    anyrank farm examples/word_frequencies.py:count -n 2 --table words.jsonl --id file --after parts --out runs/words

This shows how a task uses the values of others; `anyrank run wordcount` counts the words of texts of any size.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

from anyrank import farm


def count(file: str) -> list[tuple[str, int]]:
    """Return the words of a file, or of the files of the tasks that this one needs: the most frequent first."""
    words: Counter[str] = Counter()
    parts = farm.task().needed.values()
    for part in parts:
        words.update(dict(part))
    if not parts:
        words.update(re.findall(r"\w+", Path(file).read_text(encoding="utf-8").lower()))
    return sorted(words.items(), key=lambda entry: (-entry[1], entry[0]))


def write_table(folder: Path, table: Path) -> None:
    """Write a line for each file of the folder, and one for all of them."""
    files = sorted(str(file.resolve()) for file in folder.glob("*.txt"))
    rows = [*({"file": file} for file in files), {"file": "all", "parts": files}]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    write_table(*map(Path, sys.argv[1:3]))
