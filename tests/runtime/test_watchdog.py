"""The watchdog: a hung rank is named wherever it hangs, and the run ends with status 1."""

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
from ranks import anyrank_command, check_collective, mpiexec_path, processes_of, run_anyrank, start_process

from anyrank.runtime.watchdog import STEP_FILE, Watchdog, hosts, make_step_file, position

EARLY = Path(__file__).with_name("early.py")
HANGING, CRASH = Path(__file__).with_name("hanging.py"), Path(__file__).with_name("crash.py")
LINES = {
    "loop": "loop: ",  # either of its two lines
    "kernel": "kernel: deque(repeat(0), maxlen=0)",
    "receive": "receive: state.world.comm.recv(",
}


def run_hanging(out: Path, *arguments: object, ranks: int, own_mpiexec: bool = False) -> tuple[int, str]:
    """Status and standard error of a run that hangs; no process of it is left."""
    run = ("run", HANGING, "--hang-timeout", 3, "--out", out, *arguments)
    command = anyrank_command(*run, ranks=None if own_mpiexec else ranks)
    before = [mpiexec_path(), "-n", str(ranks)] if own_mpiexec else []
    with TemporaryFile("w+") as file, start_process(*before, *command, stderr=file, stdout=file) as process:
        status = process.wait(90)
        deadline = time.monotonic() + 10
        while (left := processes_of(process)) and time.monotonic() < deadline:
            time.sleep(0.05)
        file.seek(0)
        text = file.read()
    assert not left, text
    return status, text


@pytest.mark.parametrize(("how", "own_mpiexec"), [("loop", False), ("kernel", False), ("receive", True)])
def test_hang_of_one_rank_of_four_names_it_first(tmp_path, how, own_mpiexec):
    # Five steps take longer than the timeout: a slow rank is not hung.
    pause = ("--pause", 0.55) if how == "loop" else ()
    status, text = run_hanging(tmp_path / "run", "--how", how, *pause, ranks=4, own_mpiexec=own_mpiexec)
    # MPICH's own mpiexec reports a rank that it has killed itself, not the rank that ended.
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
def test_hang_of_all_ranks_in_a_kernel_with_the_gil_is_ended(tmp_path, ranks):
    status, text = run_hanging(tmp_path / "run", "--how", "kernel", "--who", -1, ranks=ranks)
    assert status == 1
    (group,) = json.loads((tmp_path / "run" / "hang.json").read_text())["groups"]
    assert (
        group["ranks"] == ("0" if ranks == 1 else "0-1") and group["steps"] == "5" and LINES["kernel"] in group["where"]
    )
    assert f"{'rank 0 of 1' if ranks == 1 else 'ranks 0-1 of 2'} (host " in text


def test_position_of_a_killed_run_is_exact_without_a_watchdog(tmp_path):
    run = ("run", CRASH, "--how", "kill", "--who", 0, "--at", 50, "--hang-timeout", 0)
    make_step_file(tmp_path / "step")
    assert position(tmp_path / "step") is None, "there was no step yet"
    assert run_anyrank(*run, "--out", tmp_path / "run", env={STEP_FILE: str(tmp_path / "step")}).returncode != 0
    assert position(tmp_path / "step") == 50
    assert position(tmp_path / "none") is None


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, which the watchdog may end."""
    command = [sys.executable, "-c", f"from anyrank.runtime.watchdog import Watchdog\n{code}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_hang_without_a_run_folder_is_printed():
    done = python("watchdog = Watchdog(0.3)\nwatchdog.beat(7)\nwhile True: pass")
    assert done.returncode == 1
    assert "anyrank: rank 0 hung: no step for 0.3 s; last step (-1: none) 7\n" in done.stderr
    assert 'File "<string>", line 4 in <module>' in done.stderr


def test_watchdog_without_its_c_part_uses_faulthandler():
    code = """
import sys, time
sys.modules["anyrank.runtime.watchdog.watch"] = None
watchdog = Watchdog(0.8)
for step in range(12):
    time.sleep(0.1)
    watchdog.beat(step)
print(watchdog.limitation, flush=True)
while True: pass
"""
    done = python(code)
    assert done.returncode == 1 and "watch" in done.stdout
    assert "Timeout" in done.stderr and "line 10 in <module>" in done.stderr


def test_watchdog_without_a_free_signal_uses_faulthandler():
    code = """
import signal
for number in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
    signal.signal(number, lambda number, frame: None)
print(Watchdog(60).limitation)
"""
    assert "no real-time signal or no thread is available" in python(code).stdout


@pytest.mark.parametrize("stuck", [False, True])
def test_watchdog_ends_the_rank_without_report_or_stack(stuck, tmp_path):
    # A negative grace shortens what a rank waits for: 20 s more than the grace, or twice the grace and 30 s.
    code = """
import os, sys
from anyrank.runtime.watchdog import watch
target = os.pipe()[1]
if sys.argv[1] == "True":
    os.set_blocking(target, False)
    with open(target, "wb", 0, closefd=False) as pipe:
        while pipe.write(bytes(4096)):
            pass
    os.set_blocking(target, True)
watch.set_output(target, 0, b"head", b"tail", b"/no/such/python", b"", os.fsencode(sys.argv[2]))
watch.start(0.1, -14.5 if sys.argv[1] == "True" else -19.5)
while True:
    pass
"""
    done = python(code, stuck, tmp_path / "claim")
    assert done.returncode == (-signal.SIGKILL if stuck else 1)
    assert ("there is no report" in done.stderr) is not stuck


@pytest.mark.ranks(2)
@pytest.mark.parametrize("compiled", [True, False])
def test_watchdog_writes_the_step_into_the_step_file(world, compiled, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "run"
    (folder / "log").mkdir(parents=True, exist_ok=True)
    (folder / ".hang-of-a-run-before").touch()
    make_step_file(tmp_path / "step")
    monkeypatch.setenv(STEP_FILE, str(tmp_path / "step"))
    if not compiled:
        monkeypatch.setitem(sys.modules, "anyrank.runtime.watchdog.watch", None)
    watchdog = Watchdog(60)
    world.barrier()
    watchdog.report_to(world, folder)
    check_collective(world, position(tmp_path / "step") is None, "there was no step yet")
    check_collective(world, not list(folder.glob(".hang*")))
    check_collective(world, bool(watchdog.limitation) is not compiled)
    check_collective(world, ("without a common report" in caplog.text) is not compiled)
    world.barrier()
    watchdog.beat(12 if world.rank == 0 else 13)
    world.barrier()
    check_collective(world, position(tmp_path / "step") == 12, "it is rank 0's")
    watchdog.close()


@pytest.mark.ranks(1)
def test_watchdog_without_shared_memory_files_is_no_error(world, tmp_path, monkeypatch):
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
def test_watchdog_os_errors_only_cost_the_common_report(world, tmp_path, monkeypatch, caplog):
    def refuse(*arguments: object) -> None:
        raise OSError("not allowed here")

    monkeypatch.setattr("socket.if_nameindex", refuse)
    assert hosts.this_host() == (socket.gethostname(), [])
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    watchdog = Watchdog(60)
    watchdog.report_to(world, tmp_path)
    watchdog.beat(3)
    watchdog.close()
    check_collective(world, "without a common report: not allowed here" in caplog.text)


def test_watchdog_thread_does_not_delay_the_exit():
    assert python("import sys\nwatchdog = Watchdog(100)\nsys.exit(7)").returncode == 7


def test_watchdog_suspended_process_is_not_hung():
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


def test_watchdog_0_or_closed_has_no_thread_and_keeps_signals():
    before, used = threads(), signal.SIGRTMAX - 1
    signal.signal(used, handler := lambda number, frame: None)
    try:
        idle = Watchdog(0)
        assert threads() == before
        idle.close()
        for _ in range(2):
            watchdog = Watchdog(60)
            assert not watchdog.limitation and threads() > before
            watchdog.beat(3)
            watchdog.close()
        deadline = time.monotonic() + 10
        while threads() > before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert threads() == before
        assert signal.getsignal(used) is handler
        assert not faulthandler.unregister(used - 1), "close leaves it registered"
    finally:
        signal.signal(used, signal.SIG_DFL)


@pytest.mark.parametrize("where", ["import", "check", "declare"])
def test_hang_before_the_first_step_is_reported_and_ends_all(where, tmp_path):
    run = ("run", EARLY, "--out", tmp_path / "run", "--hang-timeout", "2s")
    done = run_anyrank(*run, ranks=2, timeout=60, env={"ANYRANK_TEST_STAY": where})
    assert done.returncode == 1 and "anyrank: rank 1 hung: no step for 2 s" in done.stderr, done.stderr
    assert 'early.py", line' in done.stderr and "in stay" in done.stderr
