"""The report of a hang: stacks read from logs, groups of equal stacks, and hosts that do not respond."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anyrank.runtime.watchdog import hosts
from anyrank.runtime.watchdog.hosts import hosts_of, probe_hosts
from anyrank.runtime.watchdog.report import compose, describe
from anyrank.runtime.watchdog.stacks import Dump, Frame, parse

HEAD, TAIL = "anyrank-hang ab12: last step ", "anyrank-hang ab12: that is all\n"
LOG = """2026-01-01 INFO start
anyrank-hang 9999: last step 3
anyrank-hang 9999: that is all
anyrank-hang ab12: last step 50
Thread 0x00007f0000000001 (most recent call first):
  File "/usr/lib/threading.py", line 300 in wait

Current thread 0x00007f0000000002 [anyrank] (most recent call first):
  File "/home/j\\xfcrgen/my \\u03c0.py", line 31 in step
2026-01-01 INFO a line of another thread
  File "/opt/anyrank/runtime/loop.py", line 117 in _steps
  File "/opt/anyrank/runtime/session.py", line 185 in _execute
  File "/opt/anyrank/runtime/session.py", line 79 in execute
  File "<frozen runpy>", line 88 in _run_code

Thread 0x00007f0000000003 (most recent call first):
  File "/usr/lib/queue.py", line 1 in get
anyrank-hang ab12: that is all
"""


def test_hang_parse_finds_the_main_threads_stack_in_a_log():
    stack = (
        Frame("/opt/anyrank/runtime/session.py", 185, "_execute"),
        Frame("/opt/anyrank/runtime/loop.py", 117, "_steps"),
        Frame("/home/jürgen/my π.py", 31, "step"),
    )
    assert parse(LOG, HEAD, TAIL) == Dump(50, stack)
    assert parse(LOG.rpartition("anyrank-hang")[0], HEAD, TAIL) is None, "it is not whole"
    assert parse("", HEAD, TAIL) is None
    assert parse(f"{HEAD}-1\n{TAIL}", HEAD, TAIL) == Dump(-1, ())


WAIT = (Frame("/opt/anyrank/runtime/loop.py", 117, "_steps"), Frame("/opt/anyrank/exchange/halo.py", 106, "finish"))
USER = (Frame("/opt/anyrank/runtime/loop.py", 117, "_steps"), Frame("/home/u/mine.py", 7, "step"))
OTHER = (Frame("/home/u/mine.py", 9, "setup"),)


def report_of(dumps: dict[int, Dump], *, size: int = 8, cut_off: tuple[int, ...] = ()) -> dict:
    places = [{"name": f"n{n}", "addresses": [], "ranks": [2 * n, 2 * n + 1]} for n in range(size // 2)]
    return compose({"seconds": 5.0, "hosts": places}, dumps, [places[n] for n in cut_off])


def order(stacks: dict[int, tuple[int, tuple[Frame, ...]]]) -> list[str]:
    report = report_of({rank: Dump(*dump) for rank, dump in stacks.items()})
    return [group["ranks"] for group in report["groups"]]


def test_hang_groups_are_ordered_by_their_step_and_size():
    assert order({0: (5, WAIT), 1: (5, WAIT), 2: (5, USER), 3: (5, WAIT)}) == ["2", "0-1,3"]
    assert order({0: (6, USER), 1: (5, WAIT), 2: (6, USER), 3: (6, OTHER)}) == ["1", "3", "0,2"], "behind comes first"
    assert order({0: (5, USER), 1: (5, USER), 2: (-1, WAIT)}) == ["2", "0-1"]
    assert order({}) == []


def test_hang_describe_names_silent_hosts_then_groups_of_ranks():
    waiting = {rank: Dump(6 + rank % 2, WAIT) for rank in (0, 1, 2, 3, 6)}
    first, *rest = describe(report_of({**waiting, 7: Dump(6, USER)}, cut_off=(2,)))
    assert first == (
        "anyrank: hung: no step for 5 s; host n2 (ranks 4-5) does not respond; "
        "rank 7 of 8 (host n3) is at step 6 in mine.py:7 in step"
    )
    assert rest[-1] == "ranks 4-5 of 8 wrote no stack"
    assert (
        "ranks 0-3,6 (hosts n0, n1, n3) are at steps 6-7, waiting for other ranks; the innermost call is the last:"
        in rest
    )
    assert "    /opt/anyrank/exchange/halo.py:106 in finish" in rest
    first, *_ = describe(report_of(waiting))
    assert "s; ranks 4-5,7 of 8 wrote no stack; ranks 0-3,6 of 8 (" in first, "who is silent while all wait is odd"
    first, *_ = describe(report_of({}, size=2))
    assert first == "anyrank: hung: no step for 5 s; ranks 0-1 of 2 wrote no stack"
    (_, second, *_) = describe(report_of({0: Dump(-1, OTHER)}))
    assert second.startswith("rank 0 (host n0) is before the first step;")


def test_hosts_of_merges_ranks_and_drops_shared_addresses():
    everywhere = [
        ("a", ["10.0.0.1", "172.17.0.1"]),
        ("b", ["10.0.0.2", "172.17.0.1"]),
        ("a", ["10.0.0.1", "172.17.0.1"]),
    ]
    assert hosts_of(everywhere) == [
        {"name": "a", "addresses": ["10.0.0.1"], "ranks": [0, 2]},
        {"name": "b", "addresses": ["10.0.0.2"], "ranks": [1]},
    ]
    name, addresses = hosts.this_host()
    assert name == socket.gethostname() and not [a for a in addresses if a.startswith("127.")]


@pytest.mark.parametrize(
    ("count", "answering", "sure", "missing_hosts"),
    [
        (1, "", True, ""),
        (3, "12", True, ""),
        (3, "1", True, "2"),
        (4, "1", True, "23"),  # half of them: the claim decides
        (5, "1", False, ""),  # in a part with one other host
        (3, "", False, ""),  # cut off, or a firewall
        (2, "", True, ""),
    ],
)
def test_probe_hosts_majority_decides_which_are_missing(count, answering, sure, missing_hosts):
    places = [{"name": str(n), "addresses": ["10.0.0.9"], "ranks": [n]} for n in range(count)]
    speaks, missing = probe_hosts(places, 0, responds=lambda host: host["name"] in answering)
    assert (speaks, "".join(host["name"] for host in missing)) == (sure, missing_hosts)


def test_probe_hosts_of_many_probes_a_sample(monkeypatch):
    """A host whose probe does not finish in time is not reported as missing."""
    places = [{"name": str(n), "addresses": ["10.0.0.9"], "ranks": [n]} for n in range(100)]
    called = []
    assert probe_hosts(places, 97, 8, responds=lambda host: not called.append(host["name"])) == (True, [])
    assert sorted(called, key=int) == ["0", "1", "2", "3", "4", "5", "98", "99"]
    monkeypatch.setattr(hosts, "PROBE_TIME", 0.2)
    speaks, missing = probe_hosts(places[:3], 0, responds=lambda host: host["name"] == "1" or time.sleep(1))
    assert (speaks, missing) == (True, [])


def test_hang_terminal_gets_the_first_groups_and_the_file_all():
    many = report_of({rank: Dump(5, (Frame("/home/u/mine.py", rank, "step"),)) for rank in range(12)}, size=12)
    short, whole = [*describe(many, 8)], [*describe(many)]
    assert len(whole) == 25 and short[:17] == whole[:17]
    assert short[17:] == ["4 more groups of ranks are in hang.txt."]


def test_responds_to_connect_refusal_counts_and_silence_not(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(hosts, "PORT", server.getsockname()[1])
        assert hosts.responds_to_connect({"addresses": ["127.0.0.1"]})
    assert hosts.responds_to_connect({"addresses": ["127.0.0.1"]}), "nobody listens there now, but the host is there"

    def time_out(*arguments: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", time_out)
    assert not hosts.responds_to_connect({"addresses": ["127.0.0.1", "127.0.0.2"]})


def test_hang_one_process_reports_and_names_ranks_without_stack(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "rank-0000.log").write_text(LOG)
    places = [{"name": "n1", "addresses": [], "ranks": [0, 1]}]
    facts = {
        "folder": str(tmp_path),
        "seconds": 5,
        "grace": 0.3,
        "hosts": places,
        "host": 0,
        "head": HEAD,
        "tail": TAIL,
    }
    file = tmp_path / "facts"

    def report(claim: Path, **changed: object) -> subprocess.Popen[str]:
        file.write_text(json.dumps({**facts, "claim": str(claim), **changed}))
        command = [sys.executable, "-m", "anyrank.runtime.watchdog.report", str(file)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    claim = tmp_path / ".hang-ab12"
    first = report(claim)
    assert "\nrank 1 of 2 wrote no stack\n" in first.communicate(timeout=60)[1] and first.returncode == 0
    assert json.loads((tmp_path / "hang.json").read_text())["silent"] == "1"
    for text in ("", "reported"):
        claim.write_text(text)
        second = report(claim)
        if not text:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(1)  # until hang.json exists
            claim.write_text("reported")
        assert second.communicate(timeout=60)[1] == "" and second.returncode == 0
    nowhere = report(tmp_path / "gone" / ".hang-ab12", folder=str(tmp_path / "gone"))
    assert "ranks 0-1 of 2 wrote no stack" in nowhere.communicate(timeout=60)[1], "the terminal is told all the same"
