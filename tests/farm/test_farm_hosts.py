"""Farms over three hosts: one is cut off, one is busy; shared inputs and an executor over hosts."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path

import farm.work as work
import numpy as np
import pytest
from farm.runs import WORK, digest, rows_of, table
from hosts import Hosts, missing, start_hosts
from ranks import anyrank_command, run_anyrank, start_process

from anyrank import farm as api

WHY_NOT = missing()
pytestmark = pytest.mark.skipif(bool(WHY_NOT) and not os.environ.get("CI"), reason=WHY_NOT or "there are hosts")
TASKS = 300
#: Seconds of the task that keeps one rank busy.
BUSY = 8


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    assert not WHY_NOT, WHY_NOT
    with start_hosts(3, tmp_path_factory.mktemp("hosts")) as result:
        yield result


def recorded(run: Path) -> int:
    return sum(file.stat().st_size for file in run.glob("records/*"))


def wait_for(condition, process, log: Path) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < give_up, f"the farm does not get on: {log.read_text()}"
        time.sleep(0.02)


def cut_off(hosts: Hosts, lost: int, folder: Path, *words: object) -> tuple[int, str]:
    """Run a farm on three hosts and cut one off amid the tasks; returns the status and what the farm has printed."""
    where = ("--hosts", ",".join(hosts.addresses), "--hang-timeout", 12)
    command = anyrank_command(
        "farm", f"{WORK}:draw", "--table", table(folder, TASKS), "--out", folder / "run", *where, *words, ranks=3
    )
    with (
        (folder / "log").open("w") as log,
        start_process(*command, env=hosts.environment, stdout=log, stderr=log) as process,
    ):
        wait_for(lambda: recorded(folder / "run") > 3000, process, folder / "log")
        hosts.cut(lost)
        try:
            process.wait(100)
        finally:
            hosts.mend(lost)
    return process.returncode, (folder / "log").read_text()


def check_complete(run: Path, drawn: Path) -> None:
    """The results are those of a farm on one rank; tasks that had ended before were not done again."""
    assert (run / "results.csv").read_bytes() == (drawn / "results.csv").read_bytes() and digest(run) == digest(drawn)
    tasks = rows_of(run / "tasks.csv")
    assert [row["task"] for row in tasks] == [*map(str, range(TASKS))]
    assert {row["execution"] for row in tasks} == {"1", "2"}


def test_farm_host_cut_off_is_left_by_a_restart(tmp_path, hosts, drawn):
    """The host is that of rank 0, which has the counters and the lock."""
    status, printed = cut_off(hosts, 0, tmp_path, "--max-restarts", 2, "--min-ranks", 2)
    assert status == 0, printed
    assert hosts.names[0] in printed and "restart 1 of 2 in 1 s, on 2 ranks" in printed
    check_complete(tmp_path / "run", drawn)


def test_farm_host_cut_off_is_left_by_a_resume(tmp_path, hosts, drawn):
    status, printed = cut_off(hosts, 2, tmp_path)
    assert status == 1 and f"host {hosts.names[2]} (rank 2) does not respond" in printed, printed
    where = ("--hosts", ",".join(hosts.addresses[:2]))
    done = run_anyrank("resume", tmp_path / "run", *where, ranks=2, env=hosts.environment)
    assert done.returncode == 0, done.stderr
    check_complete(tmp_path / "run", drawn)


@pytest.mark.parametrize("busy", [0, 2])
def test_farm_busy_rank_stalls_no_other_host(tmp_path, hosts, busy):
    """The host of rank 0 has the counters from which all ranks take their tasks."""
    file = tmp_path / "t.csv"
    file.write_text("x,host,seconds\n" + "".join(f"{x},{hosts.names[busy]},{BUSY}\n" for x in range(200)))
    words = ("farm", f"{WORK}:keep_one_host_busy", "--table", file, "--out", tmp_path / "run")
    where = ("--hosts", ",".join(hosts.addresses))
    done = run_anyrank(*words, *where, ranks=3, env=hosts.environment)
    assert done.returncode == 0, done.stderr
    tasks = rows_of(tmp_path / "run" / "tasks.csv")
    of_busy = [row for row in tasks if row["rank"] == str(busy)]
    [long] = [row for row in tasks if float(row["seconds"]) >= BUSY]
    assert long in of_busy and {row["rank"] for row in tasks} == {"0", "1", "2"}
    begin = datetime.fromisoformat(long["started"]).timestamp()
    ends = [datetime.fromisoformat(row["started"]).timestamp() + float(row["seconds"]) for row in tasks]
    others = [end - begin for row, end in zip(tasks, ends, strict=True) if row is not long]
    assert len(others) == 199 and max(others) < BUSY, "100 tasks of 0.02 s on each of the other ranks"


def test_farm_shared_inputs_are_once_on_each_host(tmp_path, hosts):
    np.save(tmp_path / "grid.npy", np.arange(40) / 8)
    words = ("farm", f"{WORK}:look", "--table", table(tmp_path, 40), "--shared", f"grid={tmp_path}/grid.npy")
    where = ("--hosts", ",".join(f"{address}:2" for address in hosts.addresses[:2]))
    done = run_anyrank(*words, *where, "--out", tmp_path / "run", ranks=4, env=hosts.environment)
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "run" / "results.csv")
    assert [float(row["value"]) for row in rows] == [x / 8 for x in range(40)]
    ranks = [int(row["rank"]) for row in rows_of(tmp_path / "run" / "tasks.csv")]
    inodes = [{row["inode"] for row, rank in zip(rows, ranks, strict=True) if rank // 2 == host} for host in (0, 1)]
    assert len({*ranks}) == 4 and len(inodes[0]) == len(inodes[1]) == 1 and inodes[0] != inodes[1]


def test_rank_executor_uses_the_remaining_hosts(tmp_path, hosts, monkeypatch):
    """A host is cut off: each future gets its value once, also those of tasks that had ended before."""
    for name, value in hosts.environment.items():
        monkeypatch.setenv(name, value)
    options = {"hang_timeout": "12s", "max_restarts": 2, "folder": tmp_path}
    with api.RankExecutor(3, hosts=",".join(hosts.addresses), **options) as executor:
        futures = [executor.submit(work.host_slowly, x) for x in range(150)]
        early = [futures[x].result(60) for x in range(30)]
        hosts.cut(1)
        try:
            values = [future.result(100) for future in futures]
        finally:
            hosts.mend(1)
    assert values[:30] == early and [x for x, _ in values] == [*range(150)]
    assert {host for _, host in early} == {*hosts.names} and {host for _, host in values[-30:]} <= {*hosts.names[::2]}
