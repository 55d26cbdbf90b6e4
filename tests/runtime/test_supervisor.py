"""Restarts: after a crash or a hang, on the remaining hosts, a limited number of times."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pytest
from ranks import anyrank_command, mpiexec, mpiexec_path, run_anyrank, run_command, start_process

from anyrank.errors import UsageError
from anyrank.launcher import words_of
from anyrank.runtime import launch
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.launch import Launch
from anyrank.runtime.options import Options
from anyrank.runtime.supervisor import Death, Supervisor, _cause_of_status, parse_hosts

CRASH = Path(__file__).with_name("crash.py")
COUNT = ("run", CRASH, "--how", "no", "--pause", 0.005, "--steps", 60, "--checkpoint-every", 10)


def events(out: Path, name: str) -> list[dict]:
    path = out / "events.jsonl"
    result = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    return [event for event in result if event["event"] == name]


def messages(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith(("anyrank: died", "anyrank: finished after"))]


@pytest.mark.parametrize(
    ("hosts", "ranks", "expected"),
    [
        ("a:4,b:2", 5, [("a", 4), ("b", 2)]),
        ("a,b", 5, [("a", 2), ("b", 3)]),
        ("a,b,c", 2, [("b", 1), ("c", 1)]),
        ("10.77.0.1:1", 1, [("10.77.0.1", 1)]),
        ("", 3, []),
    ],
)
def test_parse_hosts_gives_names_and_slots(hosts, ranks, expected):
    assert parse_hosts(hosts, ranks) == expected


@pytest.mark.parametrize("hosts", ["a:4,b", "a:", "a:0x", "a,,b", "a b", ",", "a:-1", "a:1:2"])
def test_parse_hosts_bad_text_is_refused(hosts):
    with pytest.raises(UsageError, match=r"cannot be read. Write node1:8,node2:8, or node1,node2"):
        parse_hosts(hosts, 2)


@pytest.mark.parametrize("number", ["0", "65537", "99999999999999999999"])
def test_parse_hosts_slots_out_of_range_are_refused(number):
    with pytest.raises(UsageError, match=f"b has {number} slots, but must have 1 to 65536"):
        parse_hosts(f"a:2,b:{number}", 2)


def test_supervisor_more_ranks_than_slots_is_refused(tmp_path):
    """Also --min-ranks above -n, before any work."""
    done = run_anyrank(*COUNT, "--out", tmp_path / "run", "--hosts", "a:2,b:2", ranks=5)
    expected = "-n 5 is more than the 4 slots of --hosts a:2,b:2. Use -n 4, or more hosts."
    assert done.returncode == 2 and expected in done.stderr and not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match=r"--min-ranks 3 is more than -n 2. Use at most 2"):
        Supervisor(Options(ranks=2, max_restarts=1, min_ranks=3), tmp_path, [])


def test_death_repeats_compares_step_status_and_cause():
    death = Death(1, 100, "rank 2 failed: OSError: process 4711 at 0x7f3a")
    assert death.repeats(Death(1, 101, "rank 2 failed: OSError: process 81 at 0xdeadbeef"))
    assert not death.repeats(None)
    assert not death.repeats(Death(1, 103, death.cause)) and not death.repeats(Death(9, 100, death.cause))
    assert not death.repeats(Death(1, None, death.cause)) and Death(1, None, "x").repeats(Death(1, None, "x"))
    assert not death.repeats(Death(1, 100, "rank 2 failed: ValueError: process 4711 at 0x7f3a"))


def test_cause_of_status_names_signals():
    expected = {
        9: "a rank was killed by SIGKILL",
        139: "a rank was killed by SIGSEGV",
        -9: "mpiexec was killed by SIGKILL",
    }
    expected |= {
        1: "mpiexec ended with status 1",
        255: "mpiexec ended with status 255",
        0: "the ranks ended before the run was finished",
    }
    assert {status: _cause_of_status(status) for status in expected} == expected


def test_restart_of_a_twice_killed_run_gives_the_same_result(tmp_path):
    out = tmp_path / "run"
    chaos = ("--chaos", "kill rank=1 step=25; kill mpiexec step=45; slow rank=2 factor=1.5")
    done = run_anyrank(*COUNT, "--out", out, "--max-restarts", 3, *chaos, "--json", ranks=3)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "result.json").read_text()) == {"count": 60}
    first, second = events(out, "died")
    assert [first[key] for key in ("attempt", "status", "cause")] == [1, 9, "a rank was killed by SIGKILL"]
    assert 25 <= first["step"] <= 27, "rank 0 may be two steps ahead of rank 1"
    assert [second[key] for key in ("attempt", "cause")] == [2, "mpiexec was killed by SIGKILL"]
    assert messages(done.stderr) == [
        f"anyrank: died at step {first['step']} (a rank was killed by SIGKILL): restart 1 of 3 in 1 s, on 3 ranks",
        f"anyrank: died at step {second['step']} (mpiexec was killed by SIGKILL): restart 2 of 3 in 2 s, on 3 ranks",
        "anyrank: finished after 2 restarts",
    ]
    assert json.loads(done.stdout.splitlines()[-1])["resumed_from"] in (30, 40)


def test_restart_is_refused_after_two_crashes_at_one_step(tmp_path):
    out = tmp_path / "run"
    run = ("run", CRASH, "--at", 25, "--who", 0, "--steps", 60, "--checkpoint-every", 10, "--out", out)
    done = run_anyrank(*run, "--max-restarts", 5, ranks=1)
    assert done.returncode == 1 and done.stderr.count("Traceback") == 2
    first, second = messages(done.stderr)
    died = "anyrank: died at step 25 (rank 0 failed: ValueError: bad luck at step 25)"
    assert first == f"{died}: restart 1 of 5 in 1 s, on 1 ranks"
    assert second == f"{died}: the same failure as before, which would repeat: not restarted"
    assert [death["then"] for death in events(out, "died")] == [first[len(died) + 2 :], second[len(died) + 2 :]]


def test_restart_is_refused_without_restarts_or_time_left(tmp_path):
    supervisor = Supervisor(Options(max_restarts=2, walltime="100s"), tmp_path, [])
    death = Death(9, 5, "a rank was killed by SIGKILL")
    assert supervisor._refusal(death, 1) == ""
    assert supervisor._refusal(death, 100) == "the wall-time limit is reached"
    supervisor._restarts = 2
    assert supervisor._refusal(death, 1) == "--max-restarts 2 is used up"


def wait_for(condition) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up, "what the test waits for did not come"
        time.sleep(0.01)


def test_restart_signal_during_the_wait_or_the_run_ends_it(tmp_path):
    out, log = tmp_path / "run", tmp_path / "log"
    run = ("resume", out, "--max-restarts", 3, "--chaos", "kill rank=0 step=15; kill rank=0 step=25", "--i-mean-it")
    assert run_anyrank(*COUNT, "--steps", 400, "--stop-at", 5, "--out", out, ranks=1).returncode == 75
    with log.open("w") as file, start_process(*anyrank_command(*run), stderr=file) as process:
        wait_for(lambda: len(events(out, "died")) == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1
    assert len(events(out, "start")) == 3, "no third restart"
    with log.open("w") as file, start_process(*anyrank_command(*run), stderr=file) as process:
        wait_for(lambda: len(events(out, "checkpoint")) > 5)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 75
    assert len(events(out, "died")) == 2 and messages(log.read_text()) == []


@pytest.fixture
def two_hosts(tmp_path, monkeypatch):
    """An mpiexec for 127.0.0.2 and 127.0.0.3; the second is gone once the file `gone` exists."""
    script = tmp_path / "ssh"
    script.write_text(
        '#!/bin/sh\nwhile case "$1" in -*) true;; *) false;; esac; do shift; done\nhost=$1; shift\n'
        f'[ "$host" = 127.0.0.3 ] && [ -e "{tmp_path}/gone" ] && exit 255\nexec sh -c "$*"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("ANYRANK_MPIEXEC", f"{mpiexec_path()} -launcher ssh -launcher-exec '{script}'")
    return "127.0.0.2:2,127.0.0.3:1"


def test_restart_uses_the_remaining_hosts(tmp_path, two_hosts):
    out = tmp_path / "run"
    run = (*COUNT, "--steps", 200, "--hosts", two_hosts, "--max-restarts", 2, "--out", out)
    # The steps from 40 to 190 take seconds, so that the host is gone before the crash, on a busy machine too.
    chaos = ("--chaos", "kill rank=2 step=190; slow rank=2 factor=3 from=40")
    with start_process(*anyrank_command(*run, *chaos, ranks=3)) as process:
        wait_for(lambda: len(events(out, "checkpoint")) > 3)
        (tmp_path / "gone").touch()
        expected = process.communicate(timeout=60)[1]
        assert process.returncode == 0, expected
    assert "; 127.0.0.3 does not respond: restart 1 of 2 in 1 s, on 2 ranks" in expected
    (death,) = events(out, "died")
    assert death["gone"] == ["127.0.0.3"] and death["hosts"] == ["127.0.0.2", "127.0.0.3"] and death["ranks"] == 3
    assert json.loads((out / "summary.json").read_text())["ranks"] == 2


def test_restart_is_refused_with_too_few_ranks_left(tmp_path, two_hosts):
    (tmp_path / "gone").touch()
    run = (*COUNT, "--hosts", two_hosts, "--out", tmp_path / "run")
    done = run_anyrank(*run, "--max-restarts", 2, "--min-ranks", 3, ranks=3)
    assert done.returncode == 1
    assert "remaining hosts: 127.0.0.2, too few for --min-ranks 3" in messages(done.stderr)[-1]


def test_restart_of_a_hung_run_finishes(tmp_path):
    out = tmp_path / "run"
    hang = ("--hang-timeout", "2s", "--chaos", "hang rank=1 step=25")
    done = run_anyrank(*COUNT, "--out", out, "--max-restarts", 1, *hang, ranks=2)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "result.json").read_text()) == {"count": 60}
    (death,) = events(out, "died")
    assert death["cause"].startswith("hung: rank 1 at chaos.py:") and "in _hang: " in death["cause"]


@pytest.mark.parametrize(("mpi", "flag"), [("HYDRA build details:", "-hosts"), ("mpiexec (Open MPI) 5.0.8", "--host")])
def test_launch_gives_hosts_to_mpiexec_in_its_syntax(tmp_path, monkeypatch, mpi, flag):
    script = tmp_path / "mpi exec"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{mpi}" || echo "$@" >"{tmp_path}/words"\n')
    script.chmod(0o755)
    monkeypatch.setenv("ANYRANK_MPIEXEC", f"'{script}' -launcher ssh")
    with Launch(tmp_path / "hang.json") as begun:
        assert begun.run(3, ["true"], [("a", 1), ("b", 2)]) == 0
    assert (tmp_path / "words").read_text() == f"-launcher ssh {flag} a:1,b:2 -n 3 true\n"


def test_launch_kills_an_mpiexec_that_outlives_a_hang(tmp_path, monkeypatch):
    script, report = tmp_path / "mpiexec", tmp_path / "hang.json"
    script.write_text(f'#!/bin/sh\necho {{}} >"{report}"\nsleep 1000 &\nwait\n')
    script.chmod(0o755)
    monkeypatch.setenv("ANYRANK_MPIEXEC", str(script))
    monkeypatch.setattr(launch, "ENDING", 0.5)
    with Launch(report) as begun:
        assert begun.run(2, ["true"]) == -signal.SIGKILL and begun.hung


def test_launch_report_that_is_removed_counts_as_none(tmp_path, monkeypatch):
    script, report = tmp_path / "mpiexec", tmp_path / "hang.json"
    script.write_text(f'#!/bin/sh\nrm "{report}"\nsleep 2\n')
    script.chmod(0o755)
    report.write_text("{}")
    monkeypatch.setenv("ANYRANK_MPIEXEC", str(script))
    monkeypatch.setattr(launch, "ENDING", 0.1)
    with Launch(report) as begun:
        assert begun.run(2, ["true"]) == 0 and not begun.hung


def test_launch_forwards_a_signal_that_another_thread_takes(tmp_path, monkeypatch):
    """Threads of MPI libraries do not block signals. A signal that the kernel gives to one interrupts no other."""
    script = tmp_path / "mpiexec"
    script.write_text(
        f"#!{sys.executable} -S\nimport signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])\ntime.sleep(20)\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("ANYRANK_MPIEXEC", str(script))
    program = f"""
import os, signal, threading, time
from pathlib import Path
from anyrank.runtime.launch import Launch
threading.Thread(target=lambda: (time.sleep(1), os.kill(os.getpid(), 15), time.sleep(60)), daemon=True).start()
time.sleep(0.2)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # in this thread, so that the other one gets it
with Launch(Path({str(tmp_path / "hang.json")!r})) as begun:
    print(begun.run(2, ["true"]), begun.stop_signal == signal.SIGTERM)
"""
    done = run_command(sys.executable, "-c", program, timeout=15)
    assert done.stdout == "75 True\n", done.stderr


def test_restart_waits_for_the_lock_of_the_crashed_run(tmp_path):
    out, folder = tmp_path / "run", RunFolder(tmp_path / "run")
    command = anyrank_command(*COUNT, "--out", out, "--max-restarts", 1, "--chaos", "kill rank=1 step=25", ranks=2)
    with start_process(*command) as process:
        wait_for(lambda: events(out, "died"))
        folder.lock()
        time.sleep(5)  # longer than an ordinary run waits, and than the pause before a restart
        folder.unlock()
        assert process.wait(60) == 0


def test_cause_of_status_unnamed_signal_and_lost_host():
    assert _cause_of_status(-40) == "mpiexec was killed by signal 40"
    lost = Death(9, 5, "hung: rank 2 on n3 unreachable")
    assert not lost.repeats(lost), "another host may be lost at the same step"


def test_restart_has_the_remaining_walltime_and_faults(tmp_path):
    options = Options(ranks=4, max_restarts=1, walltime="100s", chaos="kill rank=3 step=5; hang rank=0 step=9")
    supervisor = Supervisor(options, tmp_path, ["run", "pi"])
    assert words_of(supervisor._command()[3:]) == ["run", "pi", "--max-restarts", "0"]
    supervisor._restarts, supervisor._ranks = 1, 2
    *words, walltime = words_of(supervisor._command()[3:])[4:]
    assert words == ["-n", "2", "--chaos", "hang rank=0 step=9", "--i-mean-it", "--walltime"]
    assert 50 < float(walltime.rstrip("s")) <= 100


def test_max_restarts_under_mpiexec_is_refused_once(tmp_path):
    done = mpiexec(2, *anyrank_command(*COUNT, "--out", tmp_path / "run", "--max-restarts", 3))
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert done.stderr.count("--max-restarts 3 is for the process that starts mpiexec, but mpiexec") == 1


@pytest.mark.parametrize(
    ("begun", "by", "expected"),
    [(True, "exit 15", 75), (True, "trap - TERM; kill $$", 75), (False, "exit 15", 1), (True, "exit 9", 1)],
)
def test_stop_signal_before_the_first_step_has_status_75(tmp_path, monkeypatch, begun, by, expected):
    """If there is a run to resume; here the ranks are still importing Python when the signal comes."""
    out, script, started = tmp_path / "run", tmp_path / "mpiexec", tmp_path / "started"
    out.mkdir()
    script.write_text(f"#!/bin/sh\ntrap '{by}' TERM\ntouch '{started}'\nwhile :; do sleep 0.05; done\n")
    script.chmod(0o755)
    monkeypatch.setenv("ANYRANK_MPIEXEC", str(script))
    run = anyrank_command("resume", out, ranks=2) if begun else anyrank_command(*COUNT, "--out", out, ranks=2)
    if begun:
        (out / "run.toml").write_text(f'format = 1\nprogram = "crash"\nsource = "{CRASH}"\n[parameters]\n[options]\n')
    with start_process(*run) as process:
        wait_for(started.exists)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == expected, errors
    assert ("stopped by SIGTERM before the first step" in errors) == (expected == 75)
