"""events.jsonl: the events of a run with their times, one JSON object per line."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


class Events:
    """Appends to the run's events; a rank without a path (all but rank 0) writes nothing."""

    def __init__(self, path: Path | None):
        self._file = path.open("a", buffering=1, encoding="utf-8") if path is not None else None

    def say(self, event: str, **details: Any) -> None:
        """Write one event with the time in UTC."""
        if self._file is not None:
            line = {"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), "event": event}
            with suppress(OSError):  # a full disk must not end a run because of an event
                self._file.write(json.dumps({**line, **details}) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
