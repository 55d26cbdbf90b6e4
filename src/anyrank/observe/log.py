"""The log of one rank: `log/rank-0003.log`."""

from __future__ import annotations

import logging
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(message)s"


class LogFile(logging.FileHandler):
    """The file of a log; a line that a full disk refuses is lost, and no more is said of it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Nothing: the run has better to do, and the terminal belongs to its user."""


def open_log(folder: Path, rank: int) -> logging.Logger:
    """The logger of this rank, which appends to its file in the folder."""
    folder.mkdir(parents=True, exist_ok=True)  # on another node it may not be seen yet
    logger = logging.getLogger(f"anyrank.rank{rank}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    handler = LogFile(folder / f"rank-{rank:04d}.log", delay=False, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
    logger.addHandler(handler)
    return logger
