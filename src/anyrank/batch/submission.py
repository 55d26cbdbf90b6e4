"""Submit runs as jobs: make their folders, write the scripts, submit them, and record the submission."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os.path import relpath
from pathlib import Path
from typing import Any

from anyrank.batch.job import (
    CANCELLED,
    is_finished,
    job_folder,
    job_states,
    live_jobs,
    submission,
    write_ids,
    write_submission,
)
from anyrank.batch.known import find_scheduler
from anyrank.batch.request import Request
from anyrank.batch.scheduler import WAITING, Job, JobState, Node, Scheduler
from anyrank.batch.script import context, render
from anyrank.batch.site import Site
from anyrank.batch.study import StudyRun
from anyrank.errors import UsageError
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.options import Options
from anyrank.runtime.programs import load
from anyrank.storage.durable import write_atomically


@dataclass(frozen=True)
class Submission:
    """Runs to submit: one run, the points of a sweep as an array, or a DAG; `folder` is that of the run or study.

    `requests` has the request of each run, which is the same for all runs of an array. `cwd` is their working folder.
    If `only` is given, only the runs that it names are submitted.
    """

    kind: str
    folder: Path
    members: Sequence[StudyRun]
    requests: Mapping[str, Request]
    site: Site
    cwd: Path
    only: frozenset[str] | None = None

    @cached_property
    def scheduler(self) -> Scheduler:
        """The scheduler of all runs."""
        return find_scheduler(next(iter(self.requests.values())).on)

    def check(self) -> None:
        """Raise UsageError for requests that are not valid together, or foreign files in a folder; call it first."""
        first = next(iter(self.requests.values()))
        if len({request.on for request in self.requests.values()}) > 1:
            raise UsageError(f"the runs of {self.folder} must all be on one scheduler. Use --on.")
        for flag, given, kind in (("chain", first.chain > 1, "run"), ("at-a-time", first.at_a_time, "sweep")):
            if given and self.kind != kind:
                raise UsageError(f"--{flag} is only for a {kind}. Omit the option.")
        ours = {"job", "lock", *(member.name for member in self.members)}
        foreign = sorted({path.name for path in self.folder.glob("*")} - ours) if self.kind != "run" else []
        if foreign:
            raise UsageError(f"{self.folder} holds {foreign[0]}, which is not of this study. Use another `out`.")
        for member in self.members:
            if member.source is not None:
                program = load(member.source)
                RunFolder(member.folder).check(program.name, member.parameters, program.extendable_parameters())

    def scripts(self) -> dict[str, str]:
        """Return the texts of all scripts that would be submitted, by file name."""
        texts = self._texts(self._nodes(self._unfinished()))
        return {str(path): text for path, text in texts.items()}

    def submit(self) -> dict[str, str]:
        """Submit the runs that are neither finished nor queued; return the job ids by the names of the runs.

        Raises UsageError before any work if the scheduler is missing or refuses, or if a single run is already queued.
        """
        missing = self.scheduler.missing()
        if missing:
            raise UsageError(
                f"--on {self.scheduler.name}: {missing} is not on this machine. Submit on a machine that has it, or "
                "use --dry-run."
            )
        for name in ("pack", "image"):
            for path in {getattr(request, name) for request in self.requests.values()} - {""}:
                if not Path(path).is_file():
                    raise UsageError(f"--{name} {path} does not exist. Give a file that all nodes can read.")
        if not self._todo():
            return {}
        folder = RunFolder(self.folder)
        folder.lock()
        try:  # check again under the lock: another process may have submitted it
            todo = self._todo()
            for member in todo:
                self._make(member)
            return self._submit(todo) if todo else {}
        finally:
            folder.unlock()

    def _unfinished(self) -> list[StudyRun]:
        selected = [member for member in self.members if self.only is None or member.name in self.only]
        return [member for member in selected if not is_finished(member.folder)]

    def _todo(self) -> list[StudyRun]:
        unfinished = self._unfinished()
        states = self._states([member.folder for member in unfinished])
        todo: list[StudyRun] = []
        for member in unfinished:  # in the order of dependencies
            jobs = live_jobs(member.folder, states)
            lost = {earlier.name for earlier in todo}.intersection(member.needs)
            if not jobs or (lost and all(states[job].state == WAITING for job in jobs)):
                todo.append(member)
        if self.kind == "run" and unfinished and not todo:
            job = live_jobs(unfinished[0].folder, states)[0]
            raise UsageError(
                f"{self.folder} is already queued as job {job.id} ({states[job].reason or states[job].state}). "
                f"Wait for it, or use anyrank cancel {self.folder}."
            )
        live = {member.name for member in unfinished} - {member.name for member in todo}
        for member in todo:
            for need in live.intersection(member.needs):
                fix = f"Submit {member.name} when {need} has ended"
                raise UsageError(f"{member.name} needs {need}, which is queued or running. {fix}.")
        return todo

    def _states(self, folders: Sequence[Path]) -> dict[Job, JobState]:
        try:
            before = submission(self.folder)["scheduler"]
        except UsageError:
            return {}
        states = job_states(folders, before)
        if before != self.scheduler.name and any(live_jobs(folder, states) for folder in folders):
            raise UsageError(
                f"{self.folder} was submitted to {before}. Use --on {before}, or anyrank cancel {self.folder} first."
            )
        return states

    def _make(self, member: StudyRun) -> None:
        """Make the run's folder with its parameters, and remove the files of former jobs."""
        folder = RunFolder(member.folder)
        if member.source is not None:
            request = self.requests[member.name]
            options = Options(**{**member.options, "ranks": request.size, "threads": request.threads})
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.create(load(member.source).name, member.source, member.parameters, options.kept())
        job_folder(member.folder).mkdir(parents=True, exist_ok=True)
        for name in ("attempts", "id", CANCELLED, "condor.log"):
            (job_folder(member.folder) / name).unlink(missing_ok=True)

    def _submit(self, todo: Sequence[StudyRun]) -> dict[str, str]:
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
            requests={name: request.model_dump(mode="json") for name, request in self.requests.items()},
            members={m.name: {"folder": relpath(m.folder, self.folder), "needs": list(m.needs)} for m in self.members},
        )
        return {name: " ".join(jobs) for name, jobs in by_run.items()}

    def _nodes(self, todo: Sequence[StudyRun]) -> list[Node]:
        """Return the scripts to submit, in the order of dependencies."""
        names = {member.name for member in todo}
        if self.kind == "sweep":
            points = [int(member.name) for member in todo]
            variables = self._context(todo[0], self.folder, points) if todo else {}
            return [Node("array", "array", job_folder(self.folder), variables)] if todo else []
        nodes = []
        for member in todo:
            needs = tuple(name for name in member.needs if name in names)
            variables = self._context(member, member.folder, (), needs)
            node = Node(member.name, member.name, job_folder(member.folder), variables, needs)
            nodes.append(node)
            for link in range(1, self.requests[member.name].chain):
                nodes.append(replace(node, name=f"{member.name}#{link}", needs=(member.name,), after="any"))
        return nodes

    def _context(
        self, member: StudyRun, folder: Path, points: Sequence[int] = (), needs: Sequence[str] = ()
    ) -> dict[str, Any]:
        script = list(self.scheduler.paths(job_folder(folder), bool(points)))[-1]
        folders = [member.folder for member in self.members if member.name in needs]
        variables = context(member, self.requests[member.name], folder, self.cwd, script, points, folders)
        self.scheduler.check(variables)
        return variables

    def _texts(self, nodes: Sequence[Node]) -> dict[Path, str]:
        """Return the files to write for these nodes, and the shared files if there are several."""
        texts = {
            path: render(template, self.site, node.context)
            for node in nodes
            for path, template in self.scheduler.paths(node.folder, bool(node.context["points"])).items()
        }
        folder, links = job_folder(self.folder), Counter(node.run for node in nodes)
        if len(nodes) > 1:  # for DAGMan the links of a chain are retries of the first
            entries = [
                {"name": n.name, "folder": relpath(n.folder, folder), "needs": n.needs, "retries": links[n.name] - 1}
                for n in nodes
                if n.name == n.run
            ]
            shared_files = self.scheduler.shared_files.items()
            texts |= {folder / name: render(template, self.site, {"nodes": entries}) for name, template in shared_files}
        return texts
