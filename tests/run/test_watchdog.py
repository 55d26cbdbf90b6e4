"""The watchdog: a rank that gets stuck is named, wherever it sits, and the run ends with status 1."""

from __future__ import annotations

import faulthandler
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from ranks import anyrank_command, check_collective, mpiexec_path, processes_of, run_anyrank, started

from anyrank.run.watchdog import STEP_FILE, Watchdog, hosts, make_step_file, position
from anyrank.run.watchdog.hosts import hosts_of, look_around
from anyrank.run.watchdog.report import compose, describe
from anyrank.run.watchdog.stacks import Dump, Frame, parse

HANGING, CRASH = Path(__file__).with_name("hanging.py"), Path(__file__).with_name("crash.py")
LINES = {
    "loop": "loop: while True:",
    "kernel": "kernel: deque(repeat(0), maxlen=0)",
    "receive": "receive: state.world.comm.recv(",
}


def hung(out: Path, *arguments: object, ranks: int, own_mpiexec: bool = False) -> tuple[int, str]:
    """Status and standard error of a run that gets stuck; no process of it is left."""
    run = ("run", HANGING, "--hang-timeout", 3, "--out", out, *arguments)
    command = anyrank_command(*run, ranks=None if own_mpiexec else ranks)
    before = [mpiexec_path(), "-n", str(ranks)] if own_mpiexec else []
    with TemporaryFile("w+") as file, started(*before, *command, stderr=file, stdout=file) as process:
        status = process.wait(90)
        deadline = time.monotonic() + 10
        while (left := processes_of(process)) and time.monotonic() < deadline:
            time.sleep(0.05)
        file.seek(0)
        text = file.read()
    assert not left, text
    return status, text


@pytest.mark.parametrize(("how", "own_mpiexec"), [("loop", False), ("kernel", False), ("receive", True)])
def test_one_rank_of_four_that_gets_stuck_is_named_first(tmp_path, how, own_mpiexec):
    # Five steps take longer than the timeout: slow is not hung.
    pause = ("--pause", 0.55) if how == "loop" else ()
    status, text = hung(tmp_path / "run", "--how", how, *pause, ranks=4, own_mpiexec=own_mpiexec)
    # MPICH's own mpiexec tells of a rank that it has killed itself, not of the one that left.
    assert status == 1 or (own_mpiexec and status != 0)
    assert "anyrank: hung: no step for 3 s; rank 2 of 4 (host " in text
    report = json.loads((tmp_path / "run" / "hang.json").read_text())
    odd, *others = report["groups"]
    assert (odd["ranks"], odd["steps"], odd["waiting"], odd["hosts"]) == ("2", "5", False, [socket.gethostname()])
    assert odd["where"].startswith("hanging.py:") and LINES[how] in odd["where"]
    assert odd["stack"][-1].startswith(str(HANGING)) and "loop.py" in odd["stack"][-3]
    assert sorted(",".join(group["ranks"] for group in others).split(",")) == ["0", "1", "3"]
    assert all(group["waiting"] and "/anyrank/" in group["stack"][-1] for group in others)
    assert (report["seconds"], report["ranks"], report["step"]) == (3, 4, 5)
    assert report["silent"] == "" and report["unreachable"] == {}
    assert (tmp_path / "run" / "hang.txt").read_text() in text
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").open()]
    assert [(e["step"], e["ranks"], e["where"]) for e in events if e["event"] == "hang"] == [(5, "2", odd["where"])]


@pytest.mark.parametrize("ranks", [1, 2])
def test_all_ranks_stuck_in_a_kernel_that_keeps_the_gil(tmp_path, ranks):
    status, text = hung(tmp_path / "run", "--how", "kernel", "--who", -1, ranks=ranks)
    assert status == 1
    (group,) = json.loads((tmp_path / "run" / "hang.json").read_text())["groups"]
    assert (
        group["ranks"] == ("0" if ranks == 1 else "0-1") and group["steps"] == "5" and LINES["kernel"] in group["where"]
    )
    assert f"{'rank 0 of 1' if ranks == 1 else 'ranks 0-1 of 2'} (host " in text


def test_the_step_of_a_killed_run_is_known_exactly_also_where_nothing_is_watched(tmp_path):
    run = ("run", CRASH, "--how", "kill", "--who", 0, "--at", 50, "--hang-timeout", 0)
    make_step_file(tmp_path / "step")
    assert position(tmp_path / "step") is None, "there was no step yet"
    assert run_anyrank(*run, "--out", tmp_path / "run", env={STEP_FILE: str(tmp_path / "step")}).returncode != 0
    assert position(tmp_path / "step") == 50
    assert position(tmp_path / "none") is None


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A process of its own, which the watchdog may end."""
    command = [sys.executable, "-c", f"from anyrank.run.watchdog import Watchdog\n{code}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_hang_before_there_is_a_run_folder_is_told_on_the_terminal():
    done = python("watchdog = Watchdog(0.3)\nwatchdog.beat(7)\nwhile True: pass")
    assert done.returncode == 1
    assert "anyrank: rank 0 hung: no step for 0.3 s; last step (-1: none) 7\n" in done.stderr
    assert 'File "<string>", line 4 in <module>' in done.stderr


def test_without_the_compiled_part_faulthandler_ends_a_hang():
    code = """
import sys, time
sys.modules["anyrank.run.watchdog.watch"] = None
watchdog = Watchdog(0.8)
for step in range(12):
    time.sleep(0.1)
    watchdog.beat(step)
print(watchdog.lacks, flush=True)
while True: pass
"""
    done = python(code)
    assert done.returncode == 1 and "watch" in done.stdout
    assert "Timeout" in done.stderr and "line 10 in <module>" in done.stderr


def test_where_no_signal_is_left_faulthandler_watches():
    code = """
import signal
for number in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
    signal.signal(number, lambda number, frame: None)
print(Watchdog(60).lacks)
"""
    assert "no real-time signal or no thread is left" in python(code).stdout


@pytest.mark.parametrize("stuck", [False, True])
def test_a_rank_ends_also_where_no_report_can_be_made_or_no_stack_be_written(stuck, tmp_path):
    # A grace of less than nothing shortens what a rank waits for: 20 s more than that, or twice that and 30 s.
    code = """
import os, sys
from anyrank.run.watchdog import watch
target = os.pipe()[1]
if sys.argv[1] == "True":
    os.set_blocking(target, False)
    with open(target, "wb", 0, closefd=False) as pipe:
        while pipe.write(bytes(4096)):
            pass
    os.set_blocking(target, True)
watch.aim(target, 0, b"head", b"tail", b"/no/such/python", b"", os.fsencode(sys.argv[2]))
watch.start(0.1, -14.5 if sys.argv[1] == "True" else -19.5)
while True:
    pass
"""
    done = python(code, stuck, tmp_path / "claim")
    assert done.returncode == (-signal.SIGKILL if stuck else 1)
    assert ("there is no report" in done.stderr) is not stuck


@pytest.mark.ranks(2)
@pytest.mark.parametrize("compiled", [True, False])
def test_the_step_is_in_its_file_while_a_run_goes_on(world, compiled, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "run"
    (folder / "log").mkdir(parents=True, exist_ok=True)
    (folder / ".hang-of-a-run-before").touch()
    make_step_file(tmp_path / "step")
    monkeypatch.setenv(STEP_FILE, str(tmp_path / "step"))
    if not compiled:
        monkeypatch.setitem(sys.modules, "anyrank.run.watchdog.watch", None)
    watchdog = Watchdog(60)
    world.barrier()
    watchdog.report_to(world, folder)
    check_collective(world, position(tmp_path / "step") is None, "there was no step yet")
    check_collective(world, not list(folder.glob(".hang*")))
    check_collective(world, bool(watchdog.lacks) is not compiled)
    check_collective(world, ("without a report" in caplog.text) is not compiled)
    world.barrier()
    watchdog.beat(12 if world.rank == 0 else 13)
    world.barrier()
    check_collective(world, position(tmp_path / "step") == 12, "it is rank 0's")
    watchdog.close()


@pytest.mark.ranks(1)
def test_a_file_system_that_cannot_share_memory_is_no_error(world, tmp_path, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise OSError("no such device")

    monkeypatch.setattr("mmap.mmap", refuse)
    make_step_file(tmp_path / "step")
    monkeypatch.setenv(STEP_FILE, str(tmp_path / "step"))
    watchdog = Watchdog(0)
    watchdog.report_to(world, tmp_path)
    watchdog.beat(3)
    assert position(tmp_path / "step") is None
    watchdog.close()


@pytest.mark.ranks(2)
def test_what_is_refused_to_the_watchdog_costs_a_run_the_report_and_no_more(world, tmp_path, monkeypatch, caplog):
    def refuse(*arguments: object) -> None:
        raise OSError("not allowed here")

    monkeypatch.setattr("socket.if_nameindex", refuse)
    assert hosts.this_host() == (socket.gethostname(), [])
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    watchdog = Watchdog(60)
    watchdog.report_to(world, tmp_path)
    watchdog.beat(3)
    watchdog.close()
    check_collective(world, "without a report: not allowed here" in caplog.text)


def test_no_thread_keeps_a_process_that_leaves():
    assert python("import sys\nwatchdog = Watchdog(100)\nsys.exit(7)").returncode == 7


def test_a_suspended_process_is_not_hung():
    code = """
import os, signal, subprocess, time
watchdog = Watchdog(4)
wake = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -STOP {os.getpid()}; sleep 5; kill -CONT {os.getpid()}"])
while wake.poll() is None:
    time.sleep(0.1)
    watchdog.beat(1)
"""
    before = time.monotonic()
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - before > 5, "it was not suspended"


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_nothing_watches_with_0_nor_after_close_and_signals_in_use_are_left_alone():
    before, taken = threads(), signal.SIGRTMAX - 1
    signal.signal(taken, handler := lambda number, frame: None)
    try:
        idle = Watchdog(0)
        assert threads() == before
        idle.close()
        for _ in range(2):
            watchdog = Watchdog(60)
            assert not watchdog.lacks and threads() > before
            watchdog.beat(3)
            watchdog.close()
        deadline = time.monotonic() + 10
        while threads() > before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert threads() == before
        assert signal.getsignal(taken) is handler
        assert not faulthandler.unregister(taken - 1), "close leaves it registered"
    finally:
        signal.signal(taken, signal.SIG_DFL)


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
  File "/opt/anyrank/run/loop.py", line 117 in _steps
  File "/opt/anyrank/run/session.py", line 185 in _execute
  File "/opt/anyrank/run/session.py", line 79 in execute
  File "<frozen runpy>", line 88 in _run_code

Thread 0x00007f0000000003 (most recent call first):
  File "/usr/lib/queue.py", line 1 in get
anyrank-hang ab12: that is all
"""


def test_the_stack_of_the_main_thread_is_found_in_a_log():
    stack = (
        Frame("/opt/anyrank/run/session.py", 185, "_execute"),
        Frame("/opt/anyrank/run/loop.py", 117, "_steps"),
        Frame("/home/jürgen/my π.py", 31, "step"),
    )
    assert parse(LOG, HEAD, TAIL) == Dump(50, stack)
    assert parse(LOG.rpartition("anyrank-hang")[0], HEAD, TAIL) is None, "it is not whole"
    assert parse("", HEAD, TAIL) is None
    assert parse(f"{HEAD}-1\n{TAIL}", HEAD, TAIL) == Dump(-1, ())


WAIT = (Frame("/opt/anyrank/run/loop.py", 117, "_steps"), Frame("/opt/anyrank/exchange/halo.py", 106, "finish"))
USER = (Frame("/opt/anyrank/run/loop.py", 117, "_steps"), Frame("/home/u/mine.py", 7, "step"))
OTHER = (Frame("/home/u/mine.py", 9, "setup"),)


def report_of(dumps: dict[int, Dump], *, size: int = 8, cut_off: tuple[int, ...] = ()) -> dict:
    places = [{"name": f"n{n}", "addresses": [], "ranks": [2 * n, 2 * n + 1]} for n in range(size // 2)]
    return compose({"seconds": 5.0, "hosts": places}, dumps, [places[n] for n in cut_off])


def order(stacks: dict[int, tuple[int, tuple[Frame, ...]]]) -> list[str]:
    report = report_of({rank: Dump(*dump) for rank, dump in stacks.items()})
    return [group["ranks"] for group in report["groups"]]


def test_groups_come_in_the_order_of_their_oddness():
    assert order({0: (5, WAIT), 1: (5, WAIT), 2: (5, USER), 3: (5, WAIT)}) == ["2", "0-1,3"]
    assert order({0: (6, USER), 1: (5, WAIT), 2: (6, USER), 3: (6, OTHER)}) == ["1", "3", "0,2"], "behind comes first"
    assert order({0: (5, USER), 1: (5, USER), 2: (-1, WAIT)}) == ["2", "0-1"]
    assert order({}) == []


def test_the_report_names_hosts_that_do_not_answer_then_the_odd_then_the_silent():
    waiting = {rank: Dump(6 + rank % 2, WAIT) for rank in (0, 1, 2, 3, 6)}
    first, *rest = describe(report_of({**waiting, 7: Dump(6, USER)}, cut_off=(2,)))
    assert first == (
        "anyrank: hung: no step for 5 s; host n2 (ranks 4-5) does not answer; "
        "rank 7 of 8 (host n3) is at step 6 in mine.py:7 in step"
    )
    assert rest[-1] == "ranks 4-5 of 8 left no stack"
    assert (
        "ranks 0-3,6 (hosts n0, n1, n3) are at steps 6-7, waiting for others; the innermost call is the last:" in rest
    )
    assert "    /opt/anyrank/exchange/halo.py:106 in finish" in rest
    first, *_ = describe(report_of(waiting))
    assert "s; ranks 4-5,7 of 8 left no stack; ranks 0-3,6 of 8 (" in first, "who is silent while all wait is odd"
    first, *_ = describe(report_of({}, size=2))
    assert first == "anyrank: hung: no step for 5 s; ranks 0-1 of 2 left no stack"
    (_, second, *_) = describe(report_of({0: Dump(-1, OTHER)}))
    assert second.startswith("rank 0 (host n0) is before the first step;")


def test_hosts_are_told_apart_and_addresses_that_several_have_lead_nowhere():
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
    ("count", "answering", "sure", "gone"),
    [
        (1, "", True, ""),
        (3, "12", True, ""),
        (3, "1", True, "2"),
        (4, "1", True, "23"),  # half of them: the claim decides
        (5, "1", False, ""),  # cut off with one other
        (3, "", False, ""),  # cut off, or a firewall
        (2, "", True, ""),
    ],
)
def test_who_reaches_the_most_hosts_speaks_for_all(count, answering, sure, gone):
    places = [{"name": str(n), "addresses": ["10.0.0.9"], "ranks": [n]} for n in range(count)]
    speaks, missing = look_around(places, 0, there=lambda host: host["name"] in answering)
    assert (speaks, "".join(host["name"] for host in missing)) == (sure, gone)


def test_a_sample_of_many_hosts_is_called_and_who_does_not_say_in_time_is_not_called_gone(monkeypatch):
    places = [{"name": str(n), "addresses": ["10.0.0.9"], "ranks": [n]} for n in range(100)]
    called = []
    assert look_around(places, 97, 8, there=lambda host: not called.append(host["name"])) == (True, [])
    assert sorted(called, key=int) == ["0", "1", "2", "3", "4", "5", "98", "99"]
    monkeypatch.setattr(hosts, "LOOKING", 0.2)
    speaks, missing = look_around(places[:3], 0, there=lambda host: host["name"] == "1" or time.sleep(1))
    assert (speaks, missing) == (True, [])


def test_the_terminal_gets_the_first_groups_and_the_file_all():
    many = report_of({rank: Dump(5, (Frame("/home/u/mine.py", rank, "step"),)) for rank in range(12)}, size=12)
    short, whole = [*describe(many, 8)], [*describe(many)]
    assert len(whole) == 25 and short[:17] == whole[:17]
    assert short[17:] == ["4 more groups of ranks are in hang.txt."]


def test_a_refusal_is_an_answer_and_silence_is_none(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(hosts, "PORT", server.getsockname()[1])
        assert hosts.answers({"addresses": ["127.0.0.1"]})
    assert hosts.answers({"addresses": ["127.0.0.1"]}), "nobody listens there now, but the host is there"

    def nobody(*arguments: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", nobody)
    assert not hosts.answers({"addresses": ["127.0.0.1", "127.0.0.2"]})


def test_one_process_reports_and_a_rank_without_a_stack_is_named(tmp_path):
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
        command = [sys.executable, "-m", "anyrank.run.watchdog.report", str(file)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    claim = tmp_path / ".hang-ab12"
    first = report(claim)
    assert "\nrank 1 of 2 left no stack\n" in first.communicate(timeout=60)[1] and first.returncode == 0
    assert json.loads((tmp_path / "hang.json").read_text())["silent"] == "1"
    for text in ("", "reported"):
        claim.write_text(text)
        second = report(claim)
        if not text:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(1)  # until it is made
            claim.write_text("reported")
        assert second.communicate(timeout=60)[1] == "" and second.returncode == 0
    nowhere = report(tmp_path / "gone" / ".hang-ab12", folder=str(tmp_path / "gone"))
    assert "ranks 0-1 of 2 left no stack" in nowhere.communicate(timeout=60)[1], "the terminal is told all the same"
