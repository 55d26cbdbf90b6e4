"""A study: many runs in one TOML file, either the points of a sweep, or runs that depend on each other (DAG)."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal

import pydantic

from anyrank.declaration import Settings
from anyrank.errors import UsageError, at
from anyrank.runtime.branch import inherited
from anyrank.runtime.options import Options
from anyrank.runtime.programs import load
from anyrank.runtime.user_files import absolute
from anyrank.toml import read_toml


@dataclass(frozen=True)
class StudyRun:
    """A run of a study, in its folder: a program with all its checked parameters, or a command."""

    name: str
    folder: Path
    source: str | None
    parameters: dict[str, Any]
    options: dict[str, Any]
    job: dict[str, Any]
    needs: tuple[str, ...]
    command: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """The content of a study file; `out` and the folders of the runs are absolute."""

    file: Path
    out: Path
    kind: Literal["sweep", "dag"]
    members: tuple[StudyRun, ...]
    job: dict[str, Any]
    at_a_time: int | None

    def ordered(self) -> tuple[StudyRun, ...]:
        """Return the runs in an order in which each comes after those that it needs."""
        by_name = {member.name: member for member in self.members}
        order = TopologicalSorter({member.name: member.needs for member in self.members}).static_order()
        return tuple(by_name[name] for name in order)

    def select(self, points: str) -> list[StudyRun]:
        """Select points of a sweep by number, such as `3,7-9`; UsageError for points that do not exist."""
        if self.kind != "sweep" or not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", points):
            raise UsageError(f"--points {points!r} must be numbers of points of a sweep, such as 3,7-9.")
        spans = [[int(number) for number in part.split("-")] for part in points.split(",")]
        last = len(self.members) - 1
        if any(not span[0] <= span[-1] <= last for span in spans):
            raise UsageError(f"--points {points}: the points of {self.file} are 0-{last}. Use some of these.")
        return [self.members[i] for i in sorted({i for span in spans for i in range(span[0], span[-1] + 1)})]


class _Shape(Settings):
    job: dict[str, Any] = pydantic.Field(default_factory=dict)


class _Run(_Shape):
    program: str = ""
    parameters: dict[str, Any] = pydantic.Field(default_factory=dict)
    options: dict[str, Any] = pydantic.Field(default_factory=dict)


class _Node(_Run):
    needs: list[str] = pydantic.Field(default_factory=list)
    command: list[str] = pydantic.Field(default_factory=list)


class _Sweep(_Run):
    out: str = ""
    at_a_time: pydantic.PositiveInt | None = None
    grid: dict[str, list[Any]] = pydantic.Field(default_factory=dict)
    table: str | list[dict[str, Any]] = pydantic.Field(default_factory=list)


class _Dag(_Shape):
    out: str = ""
    runs: dict[str, dict[str, Any]] = pydantic.Field(min_length=1)


def read_study(path: Path) -> Study:
    """Read and check a study file; UsageError, before any work, if anything in it is not valid."""
    try:
        content = read_toml(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"study {path} cannot be read: {error}. Give a TOML file.") from None
    with at(f"study {path}"):
        kinds = [name for name in ("grid", "table", "runs") if name in content]
        if len(kinds) != 1:
            raise UsageError(
                f"it has {' and '.join(kinds) or 'none'} of grid, table and runs. Use exactly one of them."
            )
        dag = "runs" in content
        shape: Any = (_Dag if dag else _Sweep).read(content)
        out = Path(shape.out or Path("runs") / path.stem).absolute()
        members = (_runs if dag else _points)(shape, path.parent, out)
    return Study(path, out, "dag" if dag else "sweep", members, shape.job, getattr(shape, "at_a_time", None))


def _points(sweep: _Sweep, home: Path, out: Path) -> tuple[StudyRun, ...]:
    """Return the points of a sweep in the order of the file; UsageError for duplicates."""
    table = _table(sweep, home)
    digits = max(4, len(str(len(table) - 1)))
    members: dict[str, StudyRun] = {}
    for number, point in enumerate(table):
        name = f"{number:0{digits}}"
        with at(f"point {name} ({', '.join(f'{key} = {value!r}' for key, value in point.items())})"):
            values = {**sweep.parameters, **point}
            member = _member(name, out, home, _Node(program=sweep.program, options=sweep.options, parameters=values))
            same = members.setdefault(repr(member.parameters), member)
            if same is not member:
                raise UsageError(f"it is the same as point {same.name}. Remove one of them.")
    return tuple(members.values())


def _table(sweep: _Sweep, home: Path) -> Sequence[Mapping[str, Any]]:
    """Return the parameters of the points: at least one point, and all with the same names."""
    table: Sequence[Mapping[str, Any]]
    if sweep.grid:
        table = [dict(zip(sweep.grid, values, strict=True)) for values in itertools.product(*sweep.grid.values())]
    else:
        table = _rows(home / sweep.table) if isinstance(sweep.table, str) else sweep.table
    names = [name for name in table[0] if name is not None] if table else []
    if not names:
        raise UsageError("it has no points. Give each name in [grid] a value, or the table a row.")
    for number, point in enumerate(table):
        if set(point) != set(names) or None in point.values():
            raise UsageError(f"point {number} must have one value for each of {', '.join(names)}, and no others.")
    return table


def _rows(file: Path) -> list[dict[str, Any]]:
    """Read the rows of a CSV file with a header; a surplus value has the name None, a missing one is None."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened, skipinitialspace=True)
            rows, header = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"table {file} cannot be read: {error}. Give a CSV file with a header.") from None
    if len(set(header)) < len(header):
        raise UsageError(f"table {file} has a duplicate name in {', '.join(header)}. Rename one of them.")
    return rows


def _runs(dag: _Dag, home: Path, out: Path) -> tuple[StudyRun, ...]:
    """Return the runs of a DAG in the order of the file; UsageError for cycles."""
    runs = []
    for name, description in dag.runs.items():
        with at(f"runs.{name}"):
            if not re.fullmatch(r"(?!(job|lock|PARENT|CHILD|ALL_NODES)$)[A-Za-z0-9_][A-Za-z0-9_-]*", name):
                raise UsageError(
                    "this name is not valid for a run's folder: use letters, digits, - and _, but not job or lock."
                )
            run = _Node.read(description)
            unknown = next((needed for needed in run.needs if needed not in dag.runs), None)
            if unknown is not None:
                raise UsageError(f"it needs {unknown!r}, which does not exist. Use one of: {', '.join(dag.runs)}.")
            runs.append(_member(name, out, home, run))
    try:
        TopologicalSorter({run.name: run.needs for run in runs}).prepare()
    except CycleError as error:
        cycle = " needs ".join(reversed(error.args[1]))
        raise UsageError(f"these runs depend on each other in a cycle: {cycle}. Remove one of these needs.") from None
    return tuple(runs)


def _member(name: str, out: Path, home: Path, run: _Node) -> StudyRun:
    if bool(run.program) == bool(run.command) or (run.command and (run.parameters or run.options)):
        raise UsageError("it must have either a program, with parameters and options, or a command without them.")
    needs = tuple(dict.fromkeys(run.needs))
    if run.command:
        return StudyRun(name, out / name, None, {}, {}, run.job, needs, tuple(run.command))
    source = absolute(run.program, home)
    program, options = load(source), _options(run.options, home)
    origin = options.get("branch_from", "")
    values = program(**{**(inherited(program, origin) if origin else {}), **run.parameters}).parameters
    return StudyRun(name, out / name, source, values, options, run.job, needs, ())


def _options(values: Mapping[str, Any], home: Path = Path()) -> dict[str, Any]:
    """Check options: runs must accept them, and jobs must allow them. Paths start at `home`."""
    with at("options"):
        if isinstance(origin := values.get("branch_from"), str) and origin:
            values = {**values, "branch_from": str(home.absolute() / origin)}
        given = Options.read(values).given()
        wrong = next((name for name in given if "jobs" in Options.metadata(name).not_in), None)
        if wrong is not None:
            raise UsageError(f"{wrong} = {values[wrong]!r} is not for jobs, or belongs in [job]. Remove it.")
        return given
