"""Branches: runs that begin with the State of a checkpoint of another run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anyrank.errors import UsageError, of_all_ranks
from anyrank.program import Program
from anyrank.runtime.folder import Description, RunFolder
from anyrank.runtime.options import Options
from anyrank.state import State
from anyrank.storage import branch
from anyrank.storage.branch import Origin, Start
from anyrank.storage.format import Identity
from anyrank.storage.read import origin_text


def origin_of(options: Options) -> Origin | None:
    """Return the checkpoint that the options name, None if the run is no branch; UsageError if they do not fit."""
    if options.origin is None:
        for name in ("regrid", "allow_missing"):
            if getattr(options, name):
                flag = Options.flags(name)[0]
                raise UsageError(f"{flag} {getattr(options, name)} is only for a branch. Add --from RUN, or omit it.")
        return None
    run, step = options.origin
    return Origin(run, step, options.regrid, options.missing_names)


def inherited(program: type[Program[Any]], branch_from: str) -> dict[str, Any]:
    """Return the parameters that a branch takes from RUN of --from, as files have them, where none are given.

    They are those of the run, without names that the program no longer has; none if RUN is of another program. Raises
    UsageError if there is no such run. Not collective.
    """
    origin = origin_of(Options(branch_from=branch_from))
    description = RunFolder(origin.run).describe() if origin is not None else None
    if origin is None or description is None:
        raise UsageError(
            f"--from {branch_from}: there is no run. Give the folder of a run, or RUN@STEP, where STEP is a number."
        )
    declared = program.declared() if description.program == program.name else {}
    return {name: value for name, value in description.parameters.items() if name in declared}


def of_run(program: Program[Any], branch_from: str) -> Program[Any]:
    """Return the program with the parameters that it was not given explicitly taken from the origin."""
    return type(program)(**{**inherited(type(program), branch_from), **program.given_parameters})


class Branch:
    """Where a run begins: with `setup`, or with the State of a checkpoint of another run.

    Creation is collective, before the run folder is touched: a new branch is found and loaded then. A branch that has
    begun keeps the checkpoint that its run.toml names. Raises UsageError on all ranks if the options do not fit the run
    in the folder, or the checkpoint does not fit the program.
    """

    def __init__(self, program: Program, options: Options, folder: RunFolder, state: State):
        self._program, self._state = program, state
        self._start: Start | None = None
        #: The entries of the branches from which the run descends: see `descent`.
        self.lineage: Sequence[Mapping[str, Any]] = []
        with state.world.raise_on_all_ranks():
            self._origin = origin_of(options)
        description = state.world.on_root(folder.describe)
        if description is not None:
            with state.world.raise_on_all_ranks():
                self._compare(folder, description)
        if description is not None and description.lineage:
            self.lineage = description.lineage
        elif self._origin is not None:
            self._find(self._origin)

    @property
    def first_step(self) -> int:
        """The step at which the run begins: 0, or that of the checkpoint from which it branches."""
        return int(self.lineage[-1]["step"]) if self.lineage else 0

    def _compare(self, folder: RunFolder, description: Description) -> None:
        """Raise UsageError if the folder holds a run with another begin."""
        lineage, asked = description.lineage, self._origin
        kept = origin_of(Options.read(description.options, str(folder.description)))
        lost = kept is None and lineage  # run.toml was lost, and written again from a checkpoint
        if asked == kept or (lost and (asked is None or _names(asked, lineage))):
            return
        if asked is not None and kept is not None and _same(asked, kept) and _names(asked, lineage):
            return
        begin = origin_text(lineage) if lineage or kept is None else f"a branch of {kept}"
        what = f"--from {asked} asks for another run" if asked is not None else "--from is not given"
        raise UsageError(
            f"--out {folder.path} holds {begin}, and {what}. Continue it with anyrank resume {folder.path}, or use "
            "another --out."
        )

    def _find(self, origin: Origin) -> None:
        if not self._program.branchable:
            name = self._program.name
            raise of_all_ranks(
                UsageError(
                    f"--from {origin}: {name} cannot begin with the State of another run, because its steps write "
                    "files, or are positions in its input. Omit --from."
                )
            )
        start = branch.begin(origin, self._state)
        program, step = self._program, start.header.step
        if type(program).done is Program.done and isinstance(program.steps, int) and step >= program.steps:
            raise of_all_ranks(
                UsageError(
                    f"steps = {program.steps} must be more than {step}, the step of {start.path}: a branch keeps the "
                    f"step of its checkpoint. Use --steps {2 * step or 1} to double it, or an earlier step: --from "
                    f"{origin.run}@STEP."
                )
            )
        self._start = start
        identity = Identity.of(program.name, program.parameters, self._state.seed)
        self.lineage = branch.descent(start, identity)

    def begin(self) -> list[str]:
        """Set the State of a run that has no checkpoint of its own; return lines that tell how. Collective.

        Call it after the constants are set.
        """
        state, program = self._state, self._program
        if not self.lineage:
            program.setup(state)
            return []
        start = self._start or self._find_again()
        if start.missing:
            program.setup(state)
            branch.load(start, state)
        return [*self._lines(start)]

    def _find_again(self) -> Start:
        """Load the checkpoint of run.toml for a branch that has begun and has no checkpoint yet."""
        entry = self.lineage[-1]
        allowed = tuple(entry["missing"])
        start = branch.begin(Origin(Path(entry["run"]), entry["step"], entry["regrid"], allowed), self._state)
        if start.header.digest != entry["digest"]:
            raise of_all_ranks(
                UsageError(
                    f"{start.path} has the digest {start.header.digest}, and had {entry['digest']} when this branch "
                    "began: it belongs to another run. Use another --out."
                )
            )
        return start

    def _lines(self, start: Start) -> list[str]:
        entry = self.lineage[-1]
        lines = [f"checkpoint refused: {message}" for message in start.refused]
        lines.append(f"branch of {entry['run']} at step {entry['step']}, digest {entry['digest']}")
        if changed := entry["changed"]:
            ends = {
                name: f"{pair.get('from', '(none)')} → {pair.get('to', '(none)')}" for name, pair in changed.items()
            }
            lines.append("changed: " + ", ".join(f"{name} {text}" for name, text in ends.items()))
        same = {name: value for name, value in self._program.parameters.items() if name not in changed}
        if same and entry["program"] == self._program.name:
            lines.append("as in that run: " + ", ".join(f"{name} = {value}" for name, value in same.items()))
        for names, what in (
            (start.regridded, f"interpolated ({entry['regrid']})"),
            (start.missing, "set by setup"),
            (start.unused, "in the checkpoint, and not used"),
        ):
            if names:
                lines.append(f"{what}: {', '.join(names)}")
        return lines


def _names(asked: Origin, lineage: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a lineage ends with the checkpoint that was asked for, or whether nothing has begun yet."""
    return not lineage or (str(asked.run) == lineage[-1]["run"] and asked.step in (None, lineage[-1]["step"]))


def _same(asked: Origin, kept: Origin) -> bool:
    """Return whether two origins are equal except for the step."""
    return (asked.run, asked.regrid, asked.allow_missing) == (kept.run, kept.regrid, kept.allow_missing)
