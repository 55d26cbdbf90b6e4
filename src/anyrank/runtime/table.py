"""One row for each run: parameters, results and lineage, for tables of many runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from anyrank.errors import UsageError
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.python import Run

#: The columns of every run, before and after its parameters and results.
FIRST = ("name", "program")
LAST = ("finished", "step", "ranks", "seconds", "rate", "rate_unit", "digest", "lineage")


def runs_in(path: Path) -> list[Path]:
    """Return the run folders that a path names: itself, or the runs of a study folder in the order of their names.

    Raises UsageError if there are none.
    """
    if _holds_run(path):
        return [path]
    runs = sorted(folder for folder in path.iterdir() if _holds_run(folder)) if path.is_dir() else []
    if not runs:
        raise UsageError(f"{path} holds no run. Give run folders, or the folder of a study.")
    return runs


def _holds_run(path: Path) -> bool:
    folder = RunFolder(path)
    return any(part.exists() for part in (folder.description, folder.summary, folder.checkpoints))


def row(path: Path) -> dict[str, Any]:
    """Return the row of a run by column; UsageError if it cannot be read.

    Parameters have their own names, but `parameter.NAME` if another column has the name; results are `result.NAME`, and
    the parts of nested results `result.NAME.PART`. `step` is that of the last checkpoint. A lineage is `RUN@STEP`, and
    those of the branches before are in front of it.
    """
    run = Run(path)
    summary = run.summary
    rate = summary.get("rate", {})
    taken = {*FIRST, *LAST}
    parameters = {f"parameter.{k}" if k in taken else k: value for k, value in run.parameters.items()}
    return {
        "name": str(path),
        "program": summary["program"],
        **parameters,
        **dict(_flat("result", run.result)),
        "finished": run.finished,
        "step": summary["steps"],
        "ranks": summary.get("ranks"),
        "seconds": summary.get("seconds"),
        "rate": rate.get("value"),
        "rate_unit": rate.get("unit"),
        "digest": run.digest,
        "lineage": " ".join(f"{entry['run']}@{entry['step']}" for entry in run.lineage),
    }


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings, with joined names."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(f"{name}.{key}", part)
    else:
        yield name, value


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the union of the columns: the parameters and the results between those of every run."""
    names = dict.fromkeys(name for row in rows for name in row)
    between = [name for name in names if name not in (*FIRST, *LAST)]
    results = [name for name in between if name.startswith("result.")]
    return [*FIRST, *(name for name in between if name not in results), *results, *LAST]


def write_csv(rows: Sequence[Mapping[str, Any]], file: IO[str]) -> None:
    """Write the rows as CSV with a header; a value that a run does not have is empty, and a list is JSON."""
    writer = csv.writer(file, lineterminator="\n")
    columns = columns_of(rows)
    writer.writerow(columns)
    writer.writerows([_text(row.get(name)) for name in columns] for row in rows)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
