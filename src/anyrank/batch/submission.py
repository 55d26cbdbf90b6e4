"""From runs and a request to jobs: folders made, scripts written, submitted, and written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os.path import relpath
from pathlib import Path
from typing import Any

from anyrank.batch.job import CANCELLED, alive, is_finished, job_folder, seen, submission, write_ids, write_submission
from anyrank.batch.known import find
from anyrank.batch.request import Request
from anyrank.batch.scheduler import WAITING, Job, Node, Scheduler, Seen
from anyrank.batch.script import context, render
from anyrank.batch.site import Site
from anyrank.batch.study import Member
from anyrank.errors import UsageError
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.options import Options
from anyrank.runtime.programs import load
from anyrank.storage.durable import write_atomically


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
    only: frozenset[str] | None = None

    @cached_property
    def scheduler(self) -> Scheduler:
        """Who takes them."""
        return find(next(iter(self.requests.values())).on)

    def check(self) -> None:
        """Raise UsageError for what does not go together, and where a folder holds anything else; call it first."""
        first = next(iter(self.requests.values()))
        if len({asked.on for asked in self.requests.values()}) > 1:
            raise UsageError(f"the runs of {self.folder} must all be on one scheduler. Use --on.")
        for flag, given, kind in (("chain", first.chain > 1, "run"), ("at-a-time", first.at_a_time, "sweep")):
            if given and self.kind != kind:
                raise UsageError(f"--{flag} is for a {kind} alone. Leave it out.")
        ours = {"job", "lock", *(member.name for member in self.members)}
        strange = sorted({path.name for path in self.folder.glob("*")} - ours) if self.kind != "run" else []
        if strange:
            raise UsageError(f"{self.folder} holds {strange[0]}, which is none of the study's. Use another `out`.")
        for member in self.members:
            if member.source is not None:
                RunFolder(member.folder).check(load(member.source).name, member.parameters)

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
        todo: list[Member] = []
        for member in unfinished:  # those first that others need
            jobs = alive(member.folder, told)
            lost = {one.name for one in todo}.intersection(member.needs)
            if not jobs or (lost and all(told[job].state == WAITING for job in jobs)):
                todo.append(member)
        if self.kind == "run" and unfinished and not todo:
            job = alive(unfinished[0].folder, told)[0]
            raise UsageError(
                f"{self.folder} is queued already as job {job.id} ({told[job].reason or told[job].state}). "
                f"Wait for it, or use anyrank cancel {self.folder}."
            )
        live = {member.name for member in unfinished} - {member.name for member in todo}
        for member in todo:
            for need in live.intersection(member.needs):
                raise UsageError(f"{member.name} needs {need}, which is queued or runs. Submit it when that has ended.")
        return todo

    def _told(self, folders: Sequence[Path]) -> dict[Job, Seen]:
        try:
            before = submission(self.folder)["scheduler"]
        except UsageError:
            return {}
        told = seen(folders, before)
        if before != self.scheduler.name and any(alive(folder, told) for folder in folders):
            raise UsageError(
                f"{self.folder} is with {before}. Use --on {before}, or anyrank cancel {self.folder} first."
            )
        return told

    def _make(self, member: Member) -> None:
        """Make the run's folder, with its parameters in it, and take what tells of former jobs away."""
        folder = RunFolder(member.folder)
        if member.source is not None:
            asked = self.requests[member.name]
            options = Options(**{**member.options, "ranks": asked.size, "threads": asked.threads})
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.create(load(member.source).name, member.source, member.parameters, options.kept())
        job_folder(member.folder).mkdir(parents=True, exist_ok=True)
        for name in ("attempts", "id", CANCELLED, "condor.log"):
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
        write_submission(
            self.folder,
            scheduler=self.scheduler.name,
            cwd=str(self.cwd),
            site=self.site.model_dump(mode="json"),
            requests={name: one.model_dump(mode="json") for name, one in self.requests.items()},
            members={m.name: {"folder": relpath(m.folder, self.folder), "needs": list(m.needs)} for m in self.members},
        )
        return {name: " ".join(jobs) for name, jobs in by_run.items()}

    def _nodes(self, todo: Sequence[Member]) -> list[Node]:
        """What is submitted, those first that others need."""
        names = {member.name for member in todo}
        if self.kind == "sweep":
            points = [int(member.name) for member in todo]
            told = self._context(todo[0], self.folder, points) if todo else {}
            return [Node("array", "array", job_folder(self.folder), told)] if todo else []
        nodes = []
        for member in todo:
            needs = tuple(name for name in member.needs if name in names)
            told = self._context(member, member.folder, (), needs)
            node = Node(member.name, member.name, job_folder(member.folder), told, needs)
            nodes.append(node)
            for link in range(1, self.requests[member.name].chain):
                nodes.append(replace(node, name=f"{member.name}#{link}", needs=(member.name,), after="any"))
        return nodes

    def _context(
        self, member: Member, folder: Path, points: Sequence[int] = (), needs: Sequence[str] = ()
    ) -> dict[str, Any]:
        script = list(self.scheduler.paths(job_folder(folder), bool(points)))[-1]
        folders = [one.folder for one in self.members if one.name in needs]
        told = context(member, self.requests[member.name], folder, self.cwd, script, points, folders)
        self.scheduler.check(told)
        return told

    def _texts(self, nodes: Sequence[Node]) -> dict[Path, str]:
        """The files to write for these nodes, and for all of them where they are several."""
        texts = {
            path: render(template, self.site, node.context)
            for node in nodes
            for path, template in self.scheduler.paths(node.folder, bool(node.context["points"])).items()
        }
        folder, links = job_folder(self.folder), Counter(node.run for node in nodes)
        if len(nodes) > 1:  # the links of a chain are retries of its first
            told = [
                {"name": n.name, "folder": relpath(n.folder, folder), "needs": n.needs, "retries": links[n.name] - 1}
                for n in nodes
                if n.name == n.run
            ]
            joined = self.scheduler.joined.items()
            texts |= {folder / name: render(template, self.site, {"nodes": told}) for name, template in joined}
        return texts
