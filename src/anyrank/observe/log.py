"""The log of one rank: `log/rank-0003.log`."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(message)s"


class LogFile(logging.FileHandler):
    """A log file that ignores errors: a line that cannot be written to a full disk is lost."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Do nothing: a lost line must not disturb the run or its terminal."""


def open_log(folder: Path, rank: int) -> logging.Logger:
    """Open the logger of this rank, which appends to its file in the folder. Not collective."""
    folder.mkdir(parents=True, exist_ok=True)  # another node may not see it yet
    logger = logging.getLogger(f"anyrank.rank{rank}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        with suppress(OSError):  # an earlier run of this process may have a full disk
            handler.close()
    handler = LogFile(folder / f"rank-{rank:04d}.log", delay=False, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
    logger.addHandler(handler)
    return logger
