"""One rank of a launch: runs the planned tests of one file under pytest and records their outcomes.

`mpiexec -n N python rank_worker.py FOLDER`, where FOLDER/plan.json names the tests. Each rank writes
FOLDER/rank-R.jsonl, a line at the start of a test and one for each of its phases (setup, call, teardown). A test's
ranks agree after each phase, so that all are in the same test. A rank that failed alone waits shortly for ranks that
may
be waiting for it in MPI, then aborts them. Ranks that a test does not use sleep until it has ended.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import tempfile
import time
import traceback
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anyrank.world import World

from mpi4py import MPI  # isort: skip  (after anyrank.world, which chooses how MPI is initialized)

OUTCOMES = ("passed", "skipped", "failed")
#: How long a rank that failed waits for the others to fail too before it aborts them, in seconds.
GRACE = 2.0


class Rank:
    """The pytest plugin of one rank; the fixture `world` finds it by this name."""

    __name__ = "rank"

    def __init__(self, folder: Path, plan: dict[str, Any]):
        self.folder = folder
        self.world = World()
        self.group = self.world.comm  # the ranks of the current test
        self.timeouts = {nodeid: timeout for nodeid, (_, timeout, _) in plan["tests"].items()}
        self.counts = {nodeid: count for nodeid, (count, _, _) in plan["tests"].items()}
        self.turns = {nodeid: turn for turn, nodeid in enumerate(plan["tests"])}
        self.turn = 0
        self.groups = {count: self._first(count) for count in sorted({*self.counts.values()})}
        self.lines = (folder / f"rank-{self.world.rank}.jsonl").open("a", buffering=1)
        self.stacks = (folder / f"rank-{self.world.rank}.stacks").open("w")

    def _first(self, count: int) -> MPI.Intracomm:
        """A communicator of the first ranks. Collective over the whole launch."""
        return self.world.comm.Split(0 if self.world.rank < count else MPI.UNDEFINED, self.world.rank)

    @pytest.fixture
    def tmp_path(self) -> Path:
        """One folder for all ranks, made by rank 0."""
        folder = tempfile.mkdtemp(prefix="tmp-", dir=self.folder) if self.world.rank == 0 else ""
        return Path(self.group.bcast(folder))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        result = {item.nodeid: item for item in items}
        items[:] = [result[nodeid] for nodeid, count in self.counts.items() if self.world.rank < count]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        self.sleep_until(self.turns[item.nodeid])
        self.group = self.groups[self.counts[item.nodeid]]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(test=nodeid)
        faulthandler.dump_traceback_later(self.timeouts[nodeid], file=self.stacks)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._write(test=report.nodeid, when=report.when, outcome=report.outcome, **_shown(report))
        self._agree(OUTCOMES.index(report.outcome))

    def pytest_runtest_logfinish(self) -> None:
        faulthandler.cancel_dump_traceback_later()

    def _write(self, **line: Any) -> None:
        print(json.dumps(line), file=self.lines)

    def _agree(self, outcome: int) -> None:
        """Return if this phase had the same outcome on all ranks; otherwise end this launch."""
        mine, extremes = array("i", [outcome, -outcome]), array("i", [0, 0])
        request = self.group.Iallreduce(mine, extremes, MPI.MAX)
        patience = time.monotonic() + GRACE
        while not request.Test():
            if outcome and time.monotonic() > patience:
                self.group.Abort(1)
            time.sleep(0.0005)  # no busy wait: ranks still at work may share this core
        if extremes[0] != -extremes[1]:
            self.group.Abort(1)

    def sleep_until(self, turn: int) -> None:
        """Return when all tests before that turn have ended on all ranks. Collective over the whole launch."""
        while self.turn < turn:
            request, began = self.world.comm.Ibarrier(), time.monotonic()
            while not request.Test():
                time.sleep(min(0.0005 + (time.monotonic() - began) / 10, 0.02))
            self.turn += 1


def _shown(report: pytest.TestReport) -> dict[str, Any]:
    """The parts of a report that the launching process shows."""
    if report.skipped:
        message = report.longrepr[2].removeprefix("Skipped: ")
    else:
        message = getattr(getattr(report.longrepr, "reprcrash", None), "message", "")
    shown = {"sections": report.sections, "duration": report.duration}
    return {"message": message, "text": report.longreprtext, **shown}


def _arguments(plan: dict[str, Any], own: Path) -> Iterator[str]:
    yield plan["file"]
    yield from ("-c", plan["config"], "--rootdir", plan["root"], "--basetemp", str(own))
    # The launching process handles marks such as xfail, after it has the outcomes of the ranks.
    yield from ("--runxfail", "-p", "no:cacheprovider", "-q")


def main(folder: Path) -> int:
    """Run the plan. Returns the exit status: 0 also if tests failed, as long as all ranks ended them alike."""
    plan = json.loads((folder / "plan.json").read_text())
    rank = Rank(folder, plan)
    with (folder / f"rank-{rank.world.rank}.log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if rank.world.size != plan["ranks"]:
        print(f"mpiexec started {rank.world.size} ranks, not {plan['ranks']}: mpi4py has another MPI")
        return 1
    status = pytest.main([*_arguments(plan, folder / f"base-{rank.world.rank}")], plugins=[rank])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        sys.stdout.flush()
        rank.world.abort(1)
    rank.sleep_until(len(rank.turns))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(1)
