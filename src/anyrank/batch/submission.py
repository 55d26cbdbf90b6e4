"""From runs and a request to jobs: folders made, scripts written, submitted, and written down."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os.path import relpath
from pathlib import Path
from typing import Any

from anyrank.batch.job import alive, is_finished, job_folder, seen, submission, write_ids, write_submission
from anyrank.batch.request import Request
from anyrank.batch.scheduler import Node, Scheduler, Seen, find
from anyrank.batch.script import job_name, render
from anyrank.batch.site import Site
from anyrank.batch.study import Member
from anyrank.errors import UsageError
from anyrank.programs import load
from anyrank.run.folder import RunFolder, write_atomically
from anyrank.run.options import Options


@dataclass(frozen=True)
class Submission:
    """Runs to submit: one, the points of a sweep as an array, or a DAG's; `folder` is the run's or the study's.

    `requests` has what each run asks for; an array asks for the same for all. `cwd` is where they are to run. Where
    `only` names some, the others are left alone.
    """

    kind: str
    folder: Path
    members: Sequence[Member]
    requests: Mapping[str, Request]
    site: Site
    cwd: Path
    command: str
    only: frozenset[str] | None = None

    @cached_property
    def scheduler(self) -> Scheduler:
        """Who takes them."""
        return find(next(iter(self.requests.values())).on)

    def scripts(self) -> dict[str, str]:
        """The texts of all scripts by file name, as they would be submitted."""
        texts = self._texts(self._nodes(self._unfinished()))
        return {str(path): text for path, text in texts.items()}

    def submit(self) -> dict[str, str]:
        """Submit what is not finished and not queued; the ids of the jobs by the runs' names.

        Raises UsageError before anything is done where the scheduler is not here or refuses, or a single run is
        queued already.
        """
        missing = self.scheduler.missing()
        if missing:
            raise UsageError(
                f"--on {self.scheduler.name}: {missing} is not on this machine. Submit where it is, or use --dry-run."
            )
        for name in ("pack", "image"):
            for path in {getattr(asked, name) for asked in self.requests.values()} - {""}:
                if not Path(path).is_file():
                    raise UsageError(f"--{name} {path} does not exist. Give a file that all nodes can read.")
        if not self._todo():
            return {}
        folder = RunFolder(self.folder)
        folder.lock()
        try:  # once more, for another may have submitted it meanwhile
            todo = self._todo()
            for member in todo:
                self._make(member)
            return self._submit(todo) if todo else {}
        finally:
            folder.unlock()

    def _unfinished(self) -> list[Member]:
        chosen = [member for member in self.members if self.only is None or member.name in self.only]
        return [member for member in chosen if not is_finished(member.folder)]

    def _todo(self) -> list[Member]:
        unfinished = self._unfinished()
        told = self._told([member.folder for member in unfinished])
        todo = [member for member in unfinished if not alive(member.folder, told)]
        if self.kind == "run" and unfinished and not todo:
            job = alive(unfinished[0].folder, told)[0]
            raise UsageError(
                f"{self.folder} is queued already as job {job.id} ({told[job].reason}). "
                f"Wait for it, or use anyrank cancel {self.folder}."
            )
        live = {member.name for member in unfinished} - {member.name for member in todo}
        for member in todo:
            for need in live.intersection(member.needs):
                raise UsageError(
                    f"{member.name} needs {need}, which is queued or runs. Submit {self.folder} when that has ended, "
                    f"or use anyrank cancel {self.folder / need}."
                )
        return todo

    def _told(self, folders: Sequence[Path]) -> dict[Any, Seen]:
        try:
            before = submission(self.folder)
        except UsageError:
            return {}
        return seen(folders, before["scheduler"])

    def _make(self, member: Member) -> None:
        """Make the run's folder, with its parameters in it, or see that it is this very run's."""
        folder = RunFolder(member.folder)
        if member.source is not None:
            program = load(member.source)(**member.parameters)
            asked = self.requests[member.name]
            options = replace(Options(**member.options), ranks=asked.size, threads=asked.threads)
            if not folder.check(program.name, program.parameters):
                folder.path.mkdir(parents=True, exist_ok=True)
                folder.create(program.name, member.source, program.parameters, options.kept())
        job_folder(member.folder).mkdir(parents=True, exist_ok=True)
        for name in ("attempts", "id"):
            (job_folder(member.folder) / name).unlink(missing_ok=True)

    def _submit(self, todo: Sequence[Member]) -> dict[str, str]:
        nodes = self._nodes(todo)
        for path, text in self._texts(nodes).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
            path.chmod(0o755)
        ids = self.scheduler.submit(nodes, job_folder(self.folder))
        if self.kind == "sweep":
            array = next(iter(ids.values()))
            task = self.scheduler.task
            ids = {m.name: task(array, i, int(m.name)) for i, m in enumerate(todo)}
        by_run: dict[str, list[str]] = {}
        runs = {node.name: node.run for node in nodes}
        for name, job in ids.items():
            by_run.setdefault(runs.get(name, name), []).append(job)
        for member in todo:
            write_ids(member.folder, by_run[member.name])
        self._write_down()
        return {name: " ".join(jobs) for name, jobs in by_run.items()}

    def _write_down(self) -> None:
        told = {
            m.name: {"folder": str(m.folder.relative_to(self.folder)), "needs": list(m.needs)} for m in self.members
        }
        write_submission(
            self.folder,
            scheduler=self.scheduler.name,
            kind=self.kind,
            command=self.command,
            cwd=str(self.cwd),
            requests={name: json.loads(one.model_dump_json()) for name, one in self.requests.items()},
            members=told,
        )

    def _nodes(self, todo: Sequence[Member]) -> list[Node]:
        """What is submitted, those first that others need."""
        names = {member.name for member in todo}
        if self.kind == "sweep":
            points = [int(member.name) for member in todo]
            return [Node("array", "array", job_folder(self.folder), self._context(todo[0], (), points))] if todo else []
        nodes = []
        for member in todo:
            chain = self.requests[member.name].chain
            needs = tuple(name for name in member.needs if name in names)
            node = Node(member.name, member.name, job_folder(member.folder), self._context(member, needs), needs)
            nodes.append(node)
            for link in range(1, chain):
                nodes.append(replace(node, name=f"{member.name}#{link}", needs=(member.name,), after="any"))
        return nodes

    def _context(self, member: Member, needs: Sequence[str], points: Sequence[int] = ()) -> dict[str, Any]:
        """What a template may use; see jobs/README.md."""
        asked = self.requests[member.name]
        source = (member.source or "").partition(":")[0]
        name = asked.name or job_name(self.folder.name if points or self.kind == "run" else member.name)
        folder = self.folder if points else member.folder
        context = {
            "title": f"{'The runs of ' if points else ''}{job_name(folder.name)}",
            "job": asked.model_copy(update={"name": name}),
            "cwd": self.cwd,
            "folder": folder,
            "points": list(points),
            "digits": len(member.name),
            "needs": [one.folder for one in self.members if one.name in needs],
            "script": list(self.scheduler.paths(job_folder(folder), bool(points)))[-1],
            "plain": re.fullmatch(r"[\w./+-]+", str(folder)) is not None,
            "python": Path(sys.executable),
            "program_file": Path(source).name if source.endswith(".py") else "",
            "launcher": _launcher(asked),
            "options": _words(member.options),
            "command": list(member.command),
            "chained": asked.chain > 1,
        }
        self.scheduler.check(context)
        return context

    def _texts(self, nodes: Sequence[Node]) -> dict[Path, str]:
        """The files to write for these nodes, and for all of them where they are several."""
        texts = {
            path: render(template, self.site, node.context)
            for node in nodes
            for path, template in self.scheduler.paths(node.folder, bool(node.context["points"])).items()
        }
        folder = job_folder(self.folder)
        if len(nodes) > 1:
            told = {"nodes": self._joined(nodes, folder)}
            joined = self.scheduler.joined.items()
            texts |= {folder / name: render(template, self.site, told) for name, template in joined}
        return texts

    @staticmethod
    def _joined(nodes: Sequence[Node], folder: Path) -> list[dict[str, Any]]:
        """The nodes as what joins them tells of them: the links of a chain are retries of its first."""
        links = Counter(node.run for node in nodes)
        return [
            {"name": n.name, "folder": relpath(n.folder, folder), "needs": n.needs, "retries": links[n.name] - 1}
            for n in nodes
            if n.name == n.run
        ]


def _words(options: Mapping[str, Any]) -> list[str]:
    """Options of a run as words of a command line."""
    words = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [flag, str(value)]
    return words


def _launcher(asked: Request) -> list[str]:
    """The words of what starts the ranks, with the numbers that it asks for."""
    numbers = {"{ranks}": asked.size, "{ranks_per_node}": asked.slots, "{nodes}": asked.nodes}
    words = shlex.split(asked.launcher)
    for name, number in numbers.items():
        words = [word.replace(name, str(number)) for word in words]
    return words
