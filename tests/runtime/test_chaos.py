"""Faults on purpose: what is refused, that each does what it says, and that it does so once."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from ranks import check_collective, run_anyrank

from anyrank.errors import UsageError
from anyrank.runtime.chaos import Chaos, agree_on_faults, for_ranks, parse, pending_faults

CRASH = Path(__file__).with_name("crash.py")
COUNT = ("run", CRASH, "--how", "no", "--steps", 40, "--checkpoint-every", 10)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" ; ", "contains no fault"),
        ("kil rank=2 step=1", "'kil' must be one of kill, kill mpiexec, slow"),
        ("rank=2", "'' must be one of"),
        ("signal KILL step=1", "'signal KILL' must be one of"),
        ("signal step=1", "'signal' must be one of"),
        ("kill rank=2 stp=100", "stp is not a key of this fault. Write it as: kill rank=2 step=100"),
        ("kill mpiexec step=1 rank=0", "rank is not a key of this fault"),
        ("kill rank=1", "step must be given"),
        ("slow", "factor and rank must be given"),
        ("kill rank=1 step=2 step=3", "step is given twice"),
        ("kill rank=1 step=", "step= must be a whole number"),
        ("kill rank=1 step=-4", "step=-4 must be a whole number"),
        ("kill rank=1.5 step=4", "rank=1.5 must be a whole number"),
        ("slow rank=1 factor=0.5", "factor=0.5 must be a number of at least 1"),
        ("slow rank=1 factor=nan", "factor=nan must be a number of at least 1"),
        ("disk-full step=3 for=0", "for=0 must be a whole number of at least 1"),
        ("signal TERM after=soon", "after 'soon' is not a duration"),
        ("signal TERM", "either after or step must be given"),
        ("signal TERM after=3s step=4", "either after or step must be given"),
    ],
)
def test_chaos_bad_text_is_refused_with_rule_and_example(text, words):
    with pytest.raises(UsageError) as refusal:
        parse("hang rank=0 step=5; " * bool(text.strip(" ;")) + text)
    message = str(refusal.value)
    assert words in message and f"--chaos {text!r}" in message and "Write it as: " in message


def test_chaos_text_is_parsed_into_faults():
    kill, slow, stop = parse(
        " kill  rank=2 step=100 ;slow factor=2.5 rank=1 from=3 to=4; signal USR1 after=2min repeat;"
    )
    assert (kill.text, kill.kind, kill.rank, kill.step, kill.repeat) == ("kill rank=2 step=100", "kill", 2, 100, False)
    assert [slow.slowness(step) for step in range(2, 6)] == [1, 2.5, 2.5, 1]
    assert stop.repeat and stop.rank == 0 and not stop.due(10**6, 119) and stop.due(0, 120)
    assert for_ranks("kill rank=2 step=1; kill mpiexec step=3; slow rank=1 factor=2", 2) == (
        "kill mpiexec step=3; slow rank=1 factor=2"
    )


def chaos(folder: Path, text: str, rank: int = 0, size: int = 4) -> Chaos:
    return Chaos([*pending_faults(text, folder)], SimpleNamespace(rank=rank, size=size), folder, SimpleNamespace())


def fired_faults(folder: Path) -> list[str]:
    notes = folder / "chaos.jsonl"
    return [json.loads(line)["fault"] for line in notes.open()] if notes.exists() else []


def before(faults: Chaos, step: int) -> None:
    faults.before_step(SimpleNamespace(step=step))


def raises(faults: Chaos, step: int) -> bool:
    try:
        before(faults, step)
    except RuntimeError as error:
        assert step == 3 and "chaos: raise rank=1 step=3" in str(error)
        return True
    return False


def test_chaos_fault_happens_once_per_folder_unless_repeated(tmp_path):
    once, again = "raise rank=1 step=3", "raise rank=1 step=3 repeat"
    for text, times in ((once, [1, 0]), (f"{once}; {once};{once}", [1, 1, 0]), (again, [1, 1])):
        for raised in times:
            faults = chaos(tmp_path, text, rank=1)
            assert [raises(faults, step) for step in (2, 3, 4)] == [False, bool(raised), False]
    assert fired_faults(tmp_path) == [once] * 3 + [again] * 2
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").open()]
    assert [(e["event"], e["rank"], e["step"]) for e in events] == [("chaos", 1, 3)] * 5


@pytest.mark.ranks(2)
def test_agree_on_faults_uses_the_folder_of_rank_0(world, tmp_path):
    """A file system may show another host a later state; a fault of all ranks must be agreed on."""
    text, seen = "disk-full step=3 for=1; slow rank=1 factor=2", tmp_path / str(world.rank)
    seen.mkdir()
    if world.rank == 0:
        (seen / "chaos.jsonl").write_text(json.dumps({"fault": "disk-full step=3 for=1"}) + "\n")
    check_collective(world, [fault.kind for fault in agree_on_faults(world, text, seen)] == ["slow"])


def test_chaos_fault_happens_only_on_its_rank(tmp_path):
    before(chaos(tmp_path, "raise rank=1 step=3; hang rank=1 step=3; kill rank=2 step=3"), 3)
    assert fired_faults(tmp_path) == []


def test_chaos_slow_rank_sleeps_by_its_factor_in_its_steps(tmp_path, monkeypatch):
    now, slept = [0.0], []
    monkeypatch.setattr("anyrank.runtime.chaos.time", SimpleNamespace(monotonic=lambda: now[0], sleep=slept.append))
    faults = chaos(tmp_path, "slow rank=1 factor=4 from=2 to=2; slow rank=0 factor=100", rank=1)
    faults.after_step(SimpleNamespace(step=0))  # at the start, before any step
    for step in (1, 2, 3):
        before(faults, step)
        now[0] += 0.5
        faults.after_step(SimpleNamespace(step=step + 1))
    assert slept == [1.5]


def test_chaos_checkpoint_is_damaged_once_at_a_fixed_offset(tmp_path):
    whole, damaged = bytes(range(256)) * 4, {}
    for text in ("torn-checkpoint step=8", "flip-bit step=8", "flip-bit"):
        folder = tmp_path / text
        folder.mkdir()
        faults = chaos(folder, text)
        for step in (5, 10, 15):
            path = folder / str(step)
            path.write_bytes(whole)
            faults.on_checkpoint(SimpleNamespace(step=step, path=path, error=""))
        hit = [step for step in (5, 10, 15) if (folder / str(step)).read_bytes() != whole]
        assert hit == ([10] if "step" in text else [5])
        damaged[text] = (folder / str(hit[0])).read_bytes()
    torn = damaged.pop("torn-checkpoint step=8")
    assert torn == whole[: len(torn)] and 0 < len(torn) < len(whole)
    flips = [
        [(at, a ^ b) for at, (a, b) in enumerate(zip(bad, whole, strict=True)) if a != b] for bad in damaged.values()
    ]
    assert all(len(flip) == 1 and flip[0][1].bit_count() == 1 for flip in flips) and flips[0] != flips[1]
    before_it = tmp_path / "other"
    before_it.write_bytes(whole)
    chaos(tmp_path, "torn-checkpoint step=8", rank=3).on_checkpoint(SimpleNamespace(step=9, path=before_it, error=""))
    assert before_it.read_bytes() == whole, "rank 0 does it, and nobody else"


def test_chaos_disk_is_full_for_the_given_number_of_checkpoints(tmp_path):
    def refused(text: str) -> list[int]:
        checkpoints = SimpleNamespace()
        Chaos([*pending_faults(text, tmp_path)], SimpleNamespace(rank=0, size=1), tmp_path, checkpoints)
        answers = {step: checkpoints.fault(step) for step in range(0, 60, 10)}
        assert {answer.errno for answer in answers.values() if answer} <= {errno.ENOSPC}
        return [step for step, answer in answers.items() if answer]

    assert refused("disk-full step=15 for=2") == [20, 30]
    assert refused("disk-full step=15 for=2") == [], "it has happened in this folder"
    assert refused("disk-full step=15") == [20, 30, 40, 50]
    assert refused("disk-full step=0 for=1; disk-full step=35 for=1") == [0, 40]


def test_chaos_unknown_rank_or_mpiexec_is_refused_before_work(tmp_path):
    out = tmp_path / "run"
    done = run_anyrank(*COUNT, "--out", out, "--chaos", "slow rank=0 factor=2; kill rank=7 step=3", ranks=2)
    assert done.returncode == 2 and "there is no rank 7; the ranks are 0 to 1." in done.stderr
    assert "slow" not in done.stderr and done.stderr.count("no rank 7") == 1
    assert not list((out / "checkpoints").iterdir()) and fired_faults(out) == []
    done = run_anyrank(*COUNT, "--out", tmp_path / "run1", "--chaos", "kill mpiexec step=3")
    assert done.returncode == 2 and "mpiexec did not start rank 0" in done.stderr
    done = run_anyrank(*COUNT, "--out", tmp_path / "run2", "--chaos", "kill rank=0")
    assert done.returncode == 2 and not (tmp_path / "run2").exists()


def test_chaos_kills_damage_and_full_disk_leave_the_result(tmp_path):
    out = tmp_path / "run"
    faults = ["flip-bit step=10", "kill rank=1 step=16", "disk-full step=20 for=1", "torn-checkpoint step=25"]
    faults += ["kill mpiexec step=31", "signal TERM step=35"]
    run = ("--out", out, "--checkpoint-every", 5, "--pause", 0.01, "--chaos", "; ".join(faults))

    def begin(ranks: int, *more: str) -> tuple[int, str]:
        done = run_anyrank(*COUNT, *run, *more, ranks=ranks)
        return done.returncode, done.stderr

    assert begin(2)[0] == 1
    status, output = begin(2)
    assert status == 2 and "Use another --out, or add --i-mean-it" in output
    status, output = begin(3, "--i-mean-it")
    assert status == 1 and "refused" in output and "resumed at step 5 " in output and "step 20 failed: " in output
    status, output = begin(2, "--i-mean-it")
    assert status == 75 and "it was cut short" in output and "resumed at step 15 " in output
    assert fired_faults(out) == faults
    status, output = begin(4, "--i-mean-it")
    assert status == 0 and json.loads((out / "result.json").read_text()) == {"count": 40}


def test_chaos_full_disk_with_gather_signal_and_raise(tmp_path):
    out = tmp_path / "run"
    faults = "disk-full step=0 for=1; signal USR1 after=0.15s; raise rank=0 step=30"
    run = (*COUNT, "--pause", 0.01, "--checkpoint-io", "gather", "--out", out, "--chaos", faults)
    stopped = run_anyrank(*run)
    assert stopped.returncode == 75 and "checkpoint of step 10 failed: " in stopped.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["stopped_by"] == "SIGUSR1" and 0 < summary["steps"] < 40
    failed = run_anyrank(*run, "--i-mean-it")
    assert failed.returncode == 1 and "RuntimeError: chaos: raise rank=0 step=30" in failed.stderr
    assert run_anyrank(*run, "--i-mean-it").returncode == 0
