"""What the workers of farms have left behind."""

from __future__ import annotations

from pathlib import Path


def workers() -> list[str]:
    """The environments of processes that workers have started, and that are still there."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += [text for text in file.read_text(errors="replace").split("\0") if "ANYRANK_FARM_WORKER" in text]
        except OSError:
            continue
    return found
