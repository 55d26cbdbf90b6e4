"""Uncaught errors: status 1, one traceback for each distinct error, the ranks named, never a hang."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from ranks import anyrank_command, mpiexec, run_anyrank

from anyrank.runtime.failure import report

CRASH = Path(__file__).with_name("crash.py")


def failed_events(out: Path) -> list[tuple[int, str, str]]:
    """The errors in the run's events: step, ranks, last line."""
    events = [json.loads(line) for line in (out / "events.jsonl").open()]
    return [(e["step"], e["ranks"], e["error"]) for e in events if e["event"] == "failed"]


@pytest.mark.parametrize("own_mpiexec", [False, True])
def test_failure_on_one_rank_ends_all_with_one_traceback(tmp_path, own_mpiexec):
    run = ("run", CRASH, "--who", 2, "--out", tmp_path / "run")
    before = time.monotonic()
    done = mpiexec(3, *anyrank_command(*run)) if own_mpiexec else run_anyrank(*run, ranks=3)
    assert done.returncode == 1
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert "anyrank: rank 2 of 3 failed:" in done.stderr
    assert "ValueError: bad luck at step 5" in done.stderr
    assert time.monotonic() - before < 60, "it must end by itself, not by the test's limit"
    assert failed_events(tmp_path / "run") == [(5, "2", "ValueError: bad luck at step 5")]


def test_failure_that_is_the_same_on_all_ranks_is_shown_once(tmp_path):
    done = run_anyrank("run", CRASH, "--who", -1, "--out", tmp_path / "run", ranks=3)
    assert done.returncode == 1
    assert done.stderr.count("ValueError: bad luck") == 1
    assert "anyrank: ranks 0-2 of 3 failed:" in done.stderr
    assert failed_events(tmp_path / "run") == [(5, "0-2", "ValueError: bad luck at step 5")]


def test_report_errors_that_differ_only_in_shapes_are_one(tmp_path):
    """Ranks have blocks of several shapes; an index is no shape, and makes errors distinct."""
    texts = ["shapes (5,) (6, 2) at (1, 2)", "shapes (6,) (5, 2) at (1, 2)", "shapes (6,) (5, 2) at (3, 2)", "shape 6"]
    for rank, text in enumerate(texts):
        (tmp_path / f"rank-{rank:06d}").write_text(text)
    assert report(tmp_path, 4) == "\n".join(
        f"anyrank: {ranks} of 4 failed:\n{text}"
        for ranks, text in zip(("ranks 0-1", "rank 2", "rank 3"), (texts[0], *texts[2:]), strict=True)
    )


def test_failure_in_a_run_of_one_rank_gives_one_traceback(tmp_path):
    done = run_anyrank("run", CRASH, "--who", 0, "--out", tmp_path / "run")
    assert done.returncode == 1 and done.stderr.count("ValueError: bad luck") == 1
    assert failed_events(tmp_path / "run") == [(5, "0", "ValueError: bad luck at step 5")]


def test_failure_of_a_rank_does_not_wait_for_threads(tmp_path):
    program = tmp_path / "writing.py"
    program.write_text(
        "import threading\nimport h5py\n" + CRASH.read_text() + "\n\ndef write():\n    with h5py._hl.base.phil:\n"
        "        threading.Event().wait()\n\n\n"
        "def happen(self, state, before=Crash.happen):\n    threading.Thread(target=write, daemon=True).start()\n"
        "    before(self, state)\n\n\nCrash.happen = happen\n"
    )
    done = run_anyrank("run", program, "--who", 0, "--steps", 9, "--out", tmp_path / "run", timeout=30)
    assert done.returncode == 1 and "ValueError: bad luck" in done.stderr


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_failure_by_exit_or_kill_ends_the_other_ranks(tmp_path, how):
    done = run_anyrank("run", CRASH, "--how", how, "--out", tmp_path / "run", ranks=3)
    assert done.returncode == 1
    assert not (tmp_path / "run" / "summary.json").exists()


def test_failure_by_kill_is_resumed_from_the_checkpoint(tmp_path):
    out = tmp_path / "run"
    run = ("run", CRASH, "--how", "kill", "--at", 50, "--steps", 80, "--checkpoint-every", 10, "--out", out)
    assert run_anyrank(*run, ranks=2).returncode == 1
    done = run_anyrank("resume", out, "--json", ranks=1)  # without rank 1 nothing crashes
    final = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0 and final["resumed_from"] in (40, 50) and final["steps"] == 80


def test_failure_of_the_last_checkpoint_fails_the_run(tmp_path):
    """A run whose last checkpoint fails has not finished, even if an earlier checkpoint was saved."""
    out = tmp_path / "run"
    run = ("run", CRASH, "--how", "no", "--steps", 30, "--checkpoint-every", 10, "--out", out)
    done = run_anyrank(*run, "--chaos", "disk-full step=20", ranks=2)
    assert done.returncode == 1 and not (out / "summary.json").exists()
    assert done.stderr.count("No space left on device") == 3, "steps 20 and 30 as they happen, and in the end"
    assert failed_events(out)[0][0] == 30
    done = run_anyrank("resume", out, "--json")
    final = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0 and final["resumed_from"] == 10 and final["steps"] == 30


EARLY = """
import sys
from anyrank import Program, State, launcher

{at_import}


class Early(Program):
    def check(self) -> None:
        {in_check}

    def declare(self, state: State) -> None:
        state.field("x", (9,))

    def step(self, state: State) -> None:
        state.x[...] += 1
"""


@pytest.mark.parametrize(
    ("at_import", "in_check", "status", "message"),
    [
        ("", "launcher.task() != {who} or open('/no/forcing.nc')", 1, "No such file or directory: '/no/forcing.nc'"),
        ("", "launcher.task() != {who} or sys.exit(0)", 1, "sys.exit(0) ends a run before it begins"),
        ("launcher.task() != {who} or sys.exit(0)", "pass", 2, "SystemExit: 0"),
        ("launcher.task() != {who} or sys.exit('no licence')", "pass", 2, "SystemExit: no licence"),
    ],
)
@pytest.mark.parametrize("ranks", [1, 3])
def test_failure_of_a_rank_before_the_run_ends_all_once(tmp_path, ranks, at_import, in_check, status, message):
    words = {"at_import": at_import.format(who=ranks - 1), "in_check": in_check.format(who=ranks - 1)}
    (tmp_path / "early.py").write_text(EARLY.format(**words))
    done = run_anyrank("run", "early.py", "--out", "r", cwd=tmp_path, ranks=ranks, timeout=60)
    assert (done.returncode, done.stderr.count(message)) == (status, 1), done.stderr
    assert not (tmp_path / "r").exists()


DONE = """
from anyrank import Program, State, exact


class Done(Program):
    alike = {alike}

    def declare(self, state: State) -> None:
        state.field("x", (9,))

    def step(self, state: State) -> None:
        state.x[...] += state.x.indices[0]

    def done(self, state: State) -> bool:
        return (exact.max(state.x) if self.alike else state.x.local.max()) > 30
"""


@pytest.mark.parametrize("alike", [True, False])
def test_done_that_differs_between_ranks_ends_all_once(tmp_path, alike):
    (tmp_path / "done.py").write_text(DONE.format(alike=alike))
    done = run_anyrank("run", "done.py", "--out", "r", "--quiet", cwd=tmp_path, ranks=3, timeout=60)
    message = done.stderr.count("done: done is true on some ranks and false on others after step 4")
    assert (done.returncode, message) == ((0, 0) if alike else (1, 1)), done.stderr


PICTURE = """
from anyrank import Program, State, exact
from anyrank.runtime import picture

picture.PATIENCE = 1.0


class Picture(Program):
    def declare(self, state: State) -> None:
        state.field("x", (9,))

    def step(self, state: State) -> None:
        state.x[...] += 1

    def result(self, state: State) -> dict:
        return {{"sum": exact.sum(state.x)}}

    def picture(self, state, folder):
        {before}
        state.x.gather()
        state.world.barrier()
        {after}
"""
FAIL = "assert state.world.rank not in {}, 'no canvas'"


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [("", "(0,)", 0), ("", "(1,)", 0), ("", "(0, 1, 2)", 0), ("(0, 1, 2)", "", 0), ("(1,)", "", 1)],
)
def test_picture_failure_is_a_warning_unless_others_wait(tmp_path, before, after, status):
    lines = [FAIL.format(who) if who else "pass" for who in (before, after)]
    (tmp_path / "picture.py").write_text(PICTURE.format(before=lines[0], after=lines[1]))
    done = run_anyrank("run", "picture.py", "--out", "r", "--hang-timeout", "30s", cwd=tmp_path, ranks=3, timeout=60)
    assert (done.returncode, done.stderr.count("AssertionError: no canvas")) == (status, 1), done.stderr
    assert ("no picture: " in done.stderr) == (tmp_path / "r" / "result.json").exists() == (status == 0)


def test_failure_scalar_that_differs_is_named(tmp_path):
    done = run_anyrank("run", CRASH, "--how", "differ", "--steps", 20, "--out", tmp_path / "run", ranks=3)
    assert done.returncode == 1
    message = "the Scalar count must be the same on all ranks but is [20, 27, 20], by rank. Reduce values of one rank"
    assert message in done.stderr
    [(step, ranks, error)] = failed_events(tmp_path / "run")
    assert (step, ranks) == (20, "0-2") and error.startswith(message)


def test_logs_name_the_body_and_the_reason(tmp_path):
    out = tmp_path / "run"
    assert run_anyrank("run", "pi", "--points", 1000, "--out", out, ranks=2).returncode == 0
    for rank in range(2):
        log = (out / "log" / f"rank-{rank:04d}.log").read_text()
        assert "kernel quarter_circle: body cython (" in log and f"rank {rank} of 2" in log


def test_failure_leaves_no_temporary_files(tmp_path):
    out = tmp_path / "run"
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    run_anyrank("run", CRASH, "--out", out, ranks=2, env={**os.environ, "TMPDIR": str(temporary)})
    assert not [path.name for path in temporary.iterdir() if "failure" in path.name]
    assert not list(out.glob(".failure*"))
