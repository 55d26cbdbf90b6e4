"""The expected length of tasks: from a column of the table, or from the times of an earlier farm."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anyrank.errors import UsageError
from anyrank.farm.tasks import EXPIRED, SKIPPED, STATUSES
from anyrank.storage.durable import write_atomically

#: The file that keeps the times of an earlier farm, whose run folder may be gone when this one is resumed.
KEPT = "costs"


def read_column(name: str, values: Iterable[Any]) -> np.ndarray:
    """Return the numbers of the column of --cost. Raises UsageError for anything else."""
    cost = [*values]
    for row, value in enumerate(cost):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UsageError(f"--cost {name}: {value!r} in row {row} (from 0) is not a number. Correct it.")
    return np.array(cost, np.float64)


def read_times(run: str, ids: Sequence[str], tasks: int, folder: Path) -> np.ndarray:
    """Return the seconds that tasks took in an earlier farm, and their mean for others. Not collective.

    Parameters
    ----------
    run : str
        The run folder of the earlier farm.
    ids : list of str
        The identifiers by which tasks are compared; empty: their indices.
    tasks : int
        The number of tasks.
    folder : Path
        The folder for a file with the result, which is returned at a resume.

    Raises
    ------
    UsageError
        If the folder has no tasks.csv, or one without these columns.
    """
    kept = folder / KEPT
    if kept.exists():
        return np.fromfile(kept)
    rows = {name: row for row, name in enumerate(ids or map(str, range(tasks)))}
    cost = np.full(tasks, np.nan)
    for name, seconds in _times(Path(run, "tasks.csv"), "id" if ids else "task"):
        if name in rows:
            cost[rows[name]] = seconds
    known = ~np.isnan(cost)
    cost[~known] = cost[known].mean() if known.any() else 0.0
    write_atomically(kept, cost.tobytes())
    return cost


def _times(path: Path, key: str) -> Iterator[tuple[str, float]]:
    """Yield the name and the seconds of each task that has started."""
    columns = key, "status", "seconds"
    csv.field_size_limit(sys.maxsize)  # a task may have printed much
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(line.replace("\0", "") for line in file)  # Python 3.10 refuses this character
            header = next(rows, [])
            name, status, seconds = map(header.index, columns)
            for row in rows:
                if row[status] not in (STATUSES[SKIPPED], STATUSES[EXPIRED]):
                    yield row[name], float(row[seconds])
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise UsageError(
            f"--cost-from {path.parent}: {path.name} cannot be read ({error}). Give the run folder of a farm that has "
            f"ended; its {path.name} needs the columns {', '.join(columns)}."
        ) from None
