"""Pytest plugin: a test marked `ranks(1, 2, 3, 4)` runs under mpiexec, once with each number of ranks.

The first such test of a file starts one mpiexec for all selected tests of the file, with the largest number of ranks
that they need (rank_worker.py runs in the ranks). Ranks that a test does not use sleep until it has ended. Each test is
reported separately: it failed if it failed on any of its ranks. If a test ends the launch, by an error on one rank, a
crash or a hang, the tests that have not started run in another launch. `timeout=` of the mark is the time limit of one
test in seconds; `exact=True` requests a launch of exactly the test's ranks, for tests that look at MPI.COMM_WORLD or at
the launcher.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from ranks import mpiexec_path, name_ranks, start_process, sweep_shared_memory

TIMEOUT = 120.0
#: When a test's time is over, the ranks write their stacks; after this many seconds they are killed.
STACKS_TAKE = 0.5
IN_RANK = "ANYRANK_TEST_IN_RANK"
OUTCOMES = pytest.StashKey[dict[str, "Outcome"]]()
STARTED = pytest.StashKey[float]()


class RankError(AssertionError):
    """A test that failed in its ranks; the message is the text of the report."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STARTED] = time.time()


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The ranks of a test marked `ranks`: a World of its own, which may have fewer ranks than the launch."""
    from anyrank.world import World

    rank = request.config.pluginmanager.get_plugin("rank")
    world = World(rank and rank.group)  # outside of ranks Hypothesis requests the fixture too, and does not use it
    yield world
    world.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    mark = metafunc.definition.get_closest_marker("ranks")
    if (mark is None) == ("world" in metafunc.fixturenames):
        name = metafunc.definition.nodeid
        pytest.fail(f"{name}: the fixture `world` and @pytest.mark.ranks(…) need each other", pytrace=False)
    if mark is not None:
        metafunc.parametrize("world", mark.args, indirect=True, ids=lambda count: f"ranks={count}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if IN_RANK in os.environ:
        return
    config.stash[OUTCOMES] = {}
    for item in items:
        if item.get_closest_marker("ranks"):  # neither the test nor its fixtures run in this process
            item.setup = lambda: None  # type: ignore[method-assign]
            item.runtest = partial(_report, item)  # type: ignore[method-assign]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if IN_RANK not in os.environ:
        sweep_shared_memory(since=session.config.stash[STARTED])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    outcome = item.config.stash.get(OUTCOMES, {}).get(item.nodeid)
    if outcome and call.when == "call":
        report.duration = sum(phase["duration"] for phase in outcome.phases[0])
        if call.excinfo and call.excinfo.errisinstance(RankError):
            report.longrepr = str(call.excinfo.value)
    return report


def _report(item: pytest.Item) -> None:
    outcomes = item.config.stash[OUTCOMES]
    if item.nodeid not in outcomes:
        outcomes.update(_run_with(item))
    outcome = outcomes[item.nodeid]
    for rank, phases in enumerate(outcome.phases):
        for title, text in phases[-1]["sections"] if phases else ():  # "Captured stdout call"
            item.add_report_section("call", f"{title.split()[1]} of rank {rank}", text)
    if failure := outcome.failure():
        raise RankError(failure)
    if skipped := outcome.ranks_with("skipped"):
        raise pytest.skip.Exception(skipped[0]["message"], _use_item_location=True)


class PlannedTest(NamedTuple):
    """A test of a launch: its number of ranks, its limit in seconds, and whether the launch must have exactly these."""

    ranks: int
    timeout: float
    exact: bool


def _run_with(first: pytest.Item) -> dict[str, Outcome]:
    """Run this test and the other selected tests of its file that the same launch can serve."""
    items = [item for item in first.session.items if item.path == first.path and item.get_closest_marker("ranks")]
    planned = {item.nodeid: _plan_of(item) for item in items}
    most = max((test.ranks for test in planned.values() if not test.exact), default=0)
    sizes = {nodeid: test.ranks if test.exact else most for nodeid, test in planned.items()}
    selected = {nodeid: test for nodeid, test in planned.items() if sizes[nodeid] == sizes[first.nodeid]}
    outcomes: dict[str, Outcome] = {}
    while selected:
        with TemporaryDirectory(prefix="anyrank-ranks-", ignore_cleanup_errors=True) as folder:
            outcomes |= Launch(first, Path(folder), selected).run()
        selected = {nodeid: test for nodeid, test in selected.items() if nodeid not in outcomes}
    return outcomes


def _plan_of(item: pytest.Item) -> PlannedTest:
    mark = item.get_closest_marker("ranks").kwargs
    ranks = int(item.callspec.params["world"])
    return PlannedTest(ranks, float(mark.get("timeout", TIMEOUT)), bool(mark.get("exact", False)))


@dataclass
class Outcome:
    """The records of all ranks for one test: the phases of each rank, and notes about the launch."""

    phases: list[list[dict[str, Any]]]
    trouble: list[str] = field(default_factory=list)

    def ranks_with(self, outcome: str) -> dict[int, dict[str, Any]]:
        """The ranks where a phase had this outcome, with the first such phase."""
        result: dict[int, dict[str, Any]] = {}
        for rank, phases in enumerate(self.phases):
            for phase in phases:
                if phase["outcome"] == outcome:
                    result.setdefault(rank, phase)
        return result

    def late(self) -> list[int]:
        """The ranks that others waited for: ranks agree after each phase, so these ranks wrote fewer phases."""
        most = max(map(len, self.phases))
        return [rank for rank, phases in enumerate(self.phases) if len(phases) < most]

    def failure(self) -> str:
        """Why the test failed, by ranks; empty if it passed."""
        count, skipped = len(self.phases), self.ranks_with("skipped")
        failed = {rank: phase["message"] for rank, phase in self.ranks_with("failed").items()}
        parts = []
        for who, message in _alike(failed):
            account = self.ranks_with("failed")[who[0]]["text"]
            parts.append(f"failed on {name_ranks(who)} of {count}: {message}\n{account}")
        if 0 < len(skipped) < count:
            parts.append(f"skipped on {name_ranks([*skipped])} of {count} only")
        return "\n".join([*parts, *self.trouble])


def _alike(texts: dict[int, str]) -> list[tuple[list[int], str]]:
    """The distinct texts, each with its ranks."""
    ranks: dict[str, list[int]] = {}
    for rank, text in texts.items():
        ranks.setdefault(text, []).append(rank)
    return [(who, text) for text, who in ranks.items()]


class Launch:
    """One mpiexec that runs tests of one file; `tests` contains them by node id."""

    def __init__(self, item: pytest.Item, folder: Path, tests: dict[str, PlannedTest]):
        self.folder, self.tests = folder, tests
        self.ranks = max(test.ranks for test in tests.values())
        self.outcomes: dict[str, Outcome] = {}
        self.current = ""
        self.since = time.monotonic()
        self.unread = [""] * self.ranks
        config = {"root": str(item.config.rootpath), "config": str(item.config.inipath or os.devnull)}
        plan = {"file": str(item.path), "ranks": self.ranks, "tests": tests, **config}
        (folder / "plan.json").write_text(json.dumps(plan))

    def run(self) -> dict[str, Outcome]:
        """The outcomes of all tests that started, or of all planned tests if none started."""
        worker = Path(__file__).with_name("rank_worker.py")
        command = (mpiexec_path(), "-n", self.ranks, sys.executable, worker, self.folder)
        with ExitStack() as stack:
            log = stack.enter_context((self.folder / "mpiexec.log").open("w"))
            env = {IN_RANK: "1", "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
            process = stack.enter_context(start_process(*command, env=env, stdout=log, stderr=log))
            paths = [self.folder / f"rank-{rank}.jsonl" for rank in range(self.ranks)]
            written = [stack.enter_context(path.open("a+")) for path in paths]
            while (status := process.poll()) is None and not self._overdue():
                time.sleep(0.02)
                self._read(written)
            self._read(written)
        if status != 0:
            self._blame(status)
        return self.outcomes

    def _limit(self) -> float:
        return self.tests[self.current].timeout if self.current else TIMEOUT

    def _overdue(self) -> bool:
        return time.monotonic() > self.since + self._limit() + STACKS_TAKE

    def _read(self, written: list[Any]) -> None:
        for rank, file in enumerate(written):
            *lines, self.unread[rank] = (self.unread[rank] + file.read()).split("\n")
            for line in lines:
                self._note(rank, json.loads(line))

    def _note(self, rank: int, line: dict[str, Any]) -> None:
        nodeid = line["test"]
        if nodeid not in self.outcomes:
            self.outcomes[nodeid] = self._nothing_yet(nodeid)
            self.current, self.since = nodeid, time.monotonic()
        if "outcome" in line:
            self.outcomes[nodeid].phases[rank].append(line)

    def _nothing_yet(self, nodeid: str) -> Outcome:
        return Outcome([[] for _ in range(self.tests[nodeid].ranks)])

    def _blame(self, status: int | None) -> None:
        """Note how the launch ended, on the last test that started, or on all tests if none did."""
        if not self.outcomes:
            self.outcomes = {nodeid: self._nothing_yet(nodeid) for nodeid in self.tests}
        blamed = [self.outcomes[self.current]] if self.current else [*self.outcomes.values()]
        for outcome in blamed:
            if late := outcome.late():
                outcome.trouble.append(f"no word from {name_ranks(late)} of {len(outcome.phases)}")
            if status is None:
                outcome.trouble.append(f"hung: not finished after {self._limit():g} s{self._stacks()}")
            elif not outcome.ranks_with("failed"):
                outcome.trouble.append(f"mpiexec ended with status {status}\n{self._logs()}")

    def _stacks(self) -> str:
        texts = {rank: _readable(self.folder / f"rank-{rank}.stacks") for rank in range(self.ranks)}
        return "".join(f"\n{name_ranks(who)} at that time:\n{text}" for who, text in _alike(texts))

    def _logs(self) -> str:
        logs = [self.folder / "mpiexec.log", *sorted(self.folder.glob("rank-*.log"))]
        return "\n".join(f"{log.name}:\n{_readable(log)[-4000:]}" for log in logs)


def _readable(path: Path) -> str:
    """The contents of a file with stacks, without pytest's own calls."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    shown = [line for line in lines if not re.search(r"/_pytest/|/pluggy/|^Timeout", line)]
    return "\n".join(re.sub(r"0x[0-9a-f]+ ", "", line) for line in shown)
