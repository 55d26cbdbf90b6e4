"""Three hosts and a network: a link that is down for a while, and a host that is disconnected for good."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hosts import Hosts, missing, start_hosts
from ranks import anyrank_command, run_anyrank, start_process

from anyrank.runtime.watchdog import STEP_FILE, make_step_file, position

WHY_NOT = missing()
pytestmark = pytest.mark.skipif(bool(WHY_NOT) and not os.environ.get("CI"), reason=WHY_NOT or "there are hosts")

SLOWLY = Path(__file__).with_name("slowly.py")
PROGRAM = ("run", SLOWLY, "--rows", 24, "--columns", 20, "--steps", 800, "--no-picture", "--checkpoint-every", 100)


@pytest.fixture(scope="module")
def digest(tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run_anyrank(*PROGRAM, "--pause", 0, "--out", out).returncode == 0
    return summary(out)["digest"]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    assert not WHY_NOT, WHY_NOT
    with start_hosts(3, tmp_path_factory.mktemp("hosts")) as result:
        yield result


def summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())


def newest(out: Path) -> int:
    """The step of the newest checkpoint."""
    return max((int(path.stem[5:]) for path in (out / "checkpoints").glob("step-*.h5")), default=0)


def wait_for_step(out: Path, step: int, process) -> None:
    give_up = time.monotonic() + 60
    while newest(out) < step:
        assert process.poll() is None and time.monotonic() < give_up, "the run does not get on"
        time.sleep(0.02)


def start(hosts: Hosts, out: Path, *more: object):
    where = ("--hosts", ",".join(hosts.addresses))
    command = anyrank_command(*PROGRAM, "--out", out, *where, *more, ranks=3)
    log = (out.parent / f"{out.name}.log").open("w")
    make_step_file(out.parent / "step")
    environment = {**hosts.environment, STEP_FILE: str(out.parent / "step")}
    return start_process(*command, env=environment, stdout=log, stderr=log)


def bytes_on(hosts: Hosts) -> int:
    wire = hosts.wire(hosts.names[0])
    return int(Path(f"/sys/class/net/{wire}/statistics/rx_bytes").read_text())


def test_hosts_ranks_are_numbered_on_their_own_host(tmp_path, hosts):
    a, b, _ = hosts.addresses
    command = (*PROGRAM[:-2], "--pause", 0, "--steps", 2, "--hosts", f"{a}:2,{b}:1", "--out", tmp_path / "run")
    assert run_anyrank(*command, ranks=3, env=hosts.environment).returncode == 0
    logs = [path.read_text() for path in sorted((tmp_path / "run" / "log").iterdir())]
    for rank, place in enumerate([(0, 2, hosts.names[0]), (1, 2, hosts.names[0]), (0, 1, hosts.names[1])]):
        assert f"rank {rank} of 3: number %d of %d on node %s, on core(s) " % place in logs[rank]


def test_hosts_link_down_for_three_seconds_only_delays_a_run(tmp_path, hosts, digest):
    out, before = tmp_path / "run", bytes_on(hosts)
    with start(hosts, out, "--hang-timeout", 30) as process:
        wait_for_step(out, 100, process)
        hosts.cut(2)
        time.sleep(3)
        reached = position(tmp_path / "step")
        hosts.mend(2)
        assert process.wait(60) == 0, (tmp_path / "run.log").read_text()
    assert 100 <= reached < 800, "while the link was down the run stood still"
    assert summary(out)["digest"] == digest and summary(out)["ranks"] == 3
    assert sorted(summary(out)["provenance"]["hosts"]) == sorted(hosts.names)
    assert bytes_on(hosts) - before > 800 * 3 * 20 * 8, "a row of three fields crosses the wire in every step"


def test_hosts_disconnected_one_is_named_and_the_run_continues(tmp_path, hosts, digest):
    """The run ends on the remaining hosts with the same digest."""
    lost, out = 0, tmp_path / "run"  # the host of rank 0, which has the run's lock and writes the report
    with start(hosts, out, "--hang-timeout", 4, "--max-restarts", 2, "--min-ranks", 2) as process:
        wait_for_step(out, 200, process)
        hosts.cut(lost)
        try:
            status = process.wait(100)
        finally:
            hosts.mend(lost)
    output = (tmp_path / "run.log").read_text()
    assert status == 0, output
    assert summary(out)["digest"] == digest and summary(out)["ranks"] == 2
    assert 200 <= summary(out)["resumed_from"] < 800
    hung = json.loads((out / "hang.json").read_text())
    assert hung["unreachable"] == {hosts.names[lost]: str(lost)} and hung["ranks"] == 3
    assert hosts.names[lost] in output and "restart 1 of 2" in output
    deaths = [json.loads(line) for line in (out / "events.jsonl").open() if '"died"' in line]
    assert len(deaths) == 1 and "hung" in deaths[0]["cause"], deaths
