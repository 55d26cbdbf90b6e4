"""Test runs with random faults: python benchmarks/faults/faults.py --faults 1000 --seed 1 --jobs 2.

Each run has one fault, at a random step or time, on a random number of ranks. It is then started again on another
number of ranks. It must end with the digest of an uninterrupted run, and leave no temporary file and no process. The
seed and the number of the case determine everything except the step that a fault at a random time hits; `--only N`
repeats one case. A full disk is simulated by a small tmpfs, which needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1]
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent / "tests")]

from measure import machine  # noqa: E402
from ranks import anyrank_command, processes_of, run_anyrank, start_process, sweep_shared_memory  # noqa: E402

from anyrank.runtime.watchdog import STEP_FILE, make_step_file, position  # noqa: E402

STEPS = 240
PROGRAMS = {
    "weather": ("weather", "--rows", 70, "--columns", 45, "--steps", STEPS, "--no-picture"),
    "pi": ("pi", "--batch", 100_000, "--points", STEPS * 100_000),
}
#: Approximate bytes of a checkpoint, and of the other files in a run folder.
CHECKPOINT_BYTES, OTHER_BYTES = {"weather": 240_000, "pi": 85_000}, 30_000
KINDS = ("kill a rank", "kill mpiexec", "TERM", "USR1", "torn checkpoint", "flipped bit", "full disk")
#: Largest number of seconds for a run on a busy machine, and for its processes to end after it.
START_LIMIT, EXIT_LIMIT = 180, 20


class Case:
    """One fault and its run, determined by the seed and the number."""

    def __init__(self, seed: int, number: int):
        self.number = number
        rng = random.Random(f"{seed}:{number}")
        self.kind, self.program = rng.choice(KINDS), rng.choice(list(PROGRAMS))
        self.ranks = rng.choices([1, 2, 3, 4], [4, 4, 2, 1], k=2)
        if self.kind == "kill mpiexec":
            self.ranks[0] = rng.choice([2, 3, 4])
        self.every = rng.choice([15, 30, 40])
        self.victim, self.after, self.delay = "", 0, 0.0
        self.chaos = self._chaos_text(rng) if self.kind != "full disk" else ""
        if not self.damages_checkpoint and self.kind != "full disk" and rng.random() < 0.5:
            self._plan_external_fault(rng)
        self.room = rng.uniform(0.2, 4.0) if self.kind == "full disk" else 0.0

    def _chaos_text(self, rng: random.Random) -> str:
        rank, step = rng.randrange(self.ranks[0]), rng.randrange(STEPS - 5)
        kill = "kill mpiexec" if self.ranks[0] > 1 and rng.random() < 0.3 else f"kill rank={rank}"
        if self.damages_checkpoint:
            # Damage a later checkpoint than the first, and kill the run before the next checkpoint can be complete.
            damaged = self.every * rng.randint(2, STEPS // self.every - 2)
            kind = "torn-checkpoint" if self.kind == "torn checkpoint" else "flip-bit"
            return f"{kind} step={damaged}; {kill} step={damaged + self.every}"
        kills = {"kill a rank": f"kill rank={rank}", "kill mpiexec": "kill mpiexec"}
        return f"{kills.get(self.kind) or f'signal {self.kind} rank={rank}'} step={step}"

    def _plan_external_fault(self, rng: random.Random) -> None:
        """Plan a signal to a rank, mpiexec or the `anyrank` process, some time after the start or after a step."""
        self.chaos = ""
        targets = ["rank", "mpiexec", "anyrank"] if self.ranks[0] > 1 else ["rank"]
        self.victim = {"kill a rank": "rank", "kill mpiexec": "mpiexec"}.get(self.kind) or rng.choice(targets)
        self.after = rng.choice([0, rng.randrange(1, STEPS // 2)])
        self.delay = rng.uniform(0, 0.05 if self.after else 1.2)

    @property
    def damages_checkpoint(self) -> bool:
        """Whether the fault damages a checkpoint."""
        return self.kind in ("torn checkpoint", "flipped bit")

    @property
    def signal(self) -> signal.Signals:
        """The signal to send."""
        return signal.Signals[f"SIG{self.kind}"] if self.kind in ("TERM", "USR1") else signal.SIGKILL

    @property
    def statuses(self) -> set[int]:
        """The exit statuses that the first start may have."""
        if self.room:
            return {0, 1, 2}
        if self.chaos and self.kind in ("TERM", "USR1"):
            return {75}
        return {1, -self.signal} | ({75} if self.kind in ("TERM", "USR1") else set())

    def shorten_delay(self) -> None:
        """Plan the signal for an earlier time, because the run ended before it."""
        self.delay, self.after = self.delay * 0.7, self.after * 2 // 3

    def __str__(self) -> str:
        how = self.chaos or (f"{self.victim} after step {self.after} and {self.delay:.3f} s" if self.victim else "")
        room = f"{self.room:.2f} checkpoints" if self.room else ""
        return f"{self.number}: {self.kind} ({how or room}), {self.program}, {self.ranks[0]} then {self.ranks[1]} ranks"


@dataclass
class Outcome:
    """The outcome of a case: what is wrong (empty if nothing is), and the cost of the fault."""

    case: Case
    wrong: str = ""
    resumed: bool = False
    lost: int | None = None
    seconds: float = 0.0
    log: list[str] = field(default_factory=list)


def find_targets(process: subprocess.Popen[str], target: str) -> list[int]:
    """Return the process ids of `anyrank` (the first process), of `mpiexec`, or of each `rank`."""
    found = {pid: words for pid, words in processes_of(process).items() if words and words[0]}
    if target == "mpiexec":  # not its forked children, which have its name until they call exec
        return [pid for pid, words in found.items() if Path(words[0]).name == "mpiexec" and parent(pid) == process.pid]
    ranks = [pid for pid, words in found.items() if "anyrank" in words and "python" in Path(words[0]).name]
    alone = process.args[-1] == "1"  # the first process is the only rank
    return [pid for pid in ranks if (pid == process.pid) == (alone or target == "anyrank")]


def parent(pid: int) -> int:
    """Return the parent of a process; 0 if the process has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def step_file(out: Path) -> Path:
    """Return the file in which a run stores its step; it is not on the small disk."""
    return out.parents[1] / f"{out.parent.name}-{out.name}.step"


def send_signal(case: Case, out: Path, process: subprocess.Popen[str]) -> bool:
    """Send the signal at its time; return False if the run ended before."""

    def until(condition: Callable[[], object]) -> None:
        while not condition() and process.poll() is None:
            time.sleep(0.001)

    until(lambda: (position(step_file(out)) or 0) >= case.after)
    due = time.monotonic() + case.delay
    until(lambda: time.monotonic() >= due)
    until(lambda: find_targets(process, case.victim))
    chosen = find_targets(process, case.victim) if process.poll() is None else []
    if chosen:
        os.kill(chosen[case.number % len(chosen)], case.signal)
    return bool(chosen)


def start(outcome: Outcome, out: Path, ranks: int, fault: bool) -> int | None:
    """Run the program, with its fault or without; return the status, or None if the run ended before the fault."""
    case, sent = outcome.case, True
    chaos = ("--chaos", case.chaos) if fault and case.chaos else ()
    words = ("run", *PROGRAMS[case.program], "--checkpoint-every", case.every, "--hang-timeout", 60, "--out", out)
    with tempfile.TemporaryFile("w+") as printed:
        command, environment = anyrank_command(*words, *chaos, ranks=ranks), {STEP_FILE: str(step_file(out))}
        make_step_file(step_file(out))
        with start_process(*command, env=environment, stdout=printed, stderr=printed) as process:
            if fault and case.victim:
                sent = send_signal(case, out, process)
            status = process.wait(START_LIMIT)
            give_up = time.monotonic() + EXIT_LIMIT
            while left := processes_of(process):
                assert time.monotonic() < give_up, f"processes are left: {left}"
                time.sleep(0.01)
        printed.seek(0)
        outcome.log.append(f"{shlex.join(process.args)}\n{printed.read()}status {status}")
    return status if sent else None


def final_digest(out: Path) -> str:
    """Return the digest of a finished run; empty if it is not finished."""
    path = out / "summary.json"
    summary = json.loads(path.read_text()) if path.exists() else {"finished": False}
    return summary["digest"] if summary["finished"] else ""


def events(out: Path, name: str) -> list[dict]:
    """Return the events of one name; lines that a full disk has truncated are ignored."""
    lines = (out / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}") and f'"event": "{name}"' in line]


def run_case(outcome: Outcome, out: Path, grow: Callable[[], None], digest: str) -> bool:
    """Run with the fault, start again, and check the outcome; return False if the run ended before the fault."""
    case = outcome.case
    status = start(outcome, out, case.ranks[0], fault=True)
    if status is None or (case.victim and final_digest(out)):
        return False
    assert status in case.statuses, f"status {status} after the fault"
    if status != 0:
        reached = position(step_file(out)) or 0
        newest = max((int(path.stem[5:]) for path in (out / "checkpoints").glob("step-*.h5")), default=0)
        grow()
        again = start(outcome, out, case.ranks[1], fault=False)
        assert again == 0, f"status {again} when started again"
        resumed = events(out, "resumed")
        step = resumed[-1]["step"] if resumed else 0
        outcome.resumed, outcome.lost = bool(resumed), reached - step
        # At most two intervals, because the last checkpoint may be incomplete, and a third if a checkpoint is damaged.
        # Rank 0 may be two steps ahead.
        most = 0 if status == 75 else STEPS if case.room else (2 + case.damages_checkpoint) * case.every + 2
        assert outcome.lost <= most, f"{outcome.lost} steps lost, which is more than {most}"
        assert (step < newest) == case.damages_checkpoint, f"resumed from {step}, but {newest} is the newest"
        assert bool(events(out, "checkpoint-refused")) == case.damages_checkpoint, (
            "a checkpoint is refused if and only if it is damaged"
        )
    assert final_digest(out) == digest, f"digest {final_digest(out)!r}, not {digest!r}"
    left = [path.name for folder in (out, out / "checkpoints") for path in folder.glob(".*")]
    assert not left, f"files are left: {left}"
    return True


def try_case(case: Case, folder: Path, digest: str) -> Outcome:
    """Run a case and return its outcome; its files are in `folder`, or on a small disk that is mounted there."""
    outcome, began = Outcome(case), time.monotonic()
    folder.mkdir()
    size = f"size={OTHER_BYTES + int(case.room * CHECKPOINT_BYTES[case.program])}"
    if case.room:
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)

    def grow() -> None:
        if case.room:
            subprocess.run(["mount", "-o", "remount,size=64M", folder], check=True)

    try:
        for attempt in range(20):
            outcome.log.clear()
            if run_case(outcome, folder / f"run{attempt}", grow, digest):
                break
            case.shorten_delay()
        else:
            outcome.wrong = "the run ended before the fault in twenty attempts"
    except (AssertionError, OSError, ValueError, subprocess.TimeoutExpired) as error:
        outcome.wrong = f"{type(error).__name__}: {error}"
    finally:
        if case.room:
            subprocess.run(["umount", "-l", folder], check=True)
    outcome.seconds = time.monotonic() - began
    return outcome


def reference_digest(program: str, folder: Path) -> str:
    """Return the digest that every run of the program must have at its end."""
    out = folder / f"unbroken-{program}"
    done = run_anyrank("run", *PROGRAMS[program], "--out", out, "--json", timeout=START_LIMIT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["digest"]


def try_all(
    cases: Iterable[Case], jobs: int, notify: Callable[[Outcome], None] = lambda outcome: None
) -> list[Outcome]:
    """Run the cases, `jobs` at a time, and return their outcomes; cases with a full disk are left out without root."""
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="anyrank-faults-") as name, ThreadPoolExecutor(jobs) as pool:
        folder = Path(name)
        digests = {program: reference_digest(program, folder) for program in PROGRAMS}

        def one(case: Case) -> Outcome:
            outcome = try_case(case, folder / str(case.number), digests[case.program])
            sweep_shared_memory(began)
            notify(outcome)
            return outcome

        return [*pool.map(one, (case for case in cases if not case.room or os.geteuid() == 0))]


def table(outcomes: list[Outcome]) -> list[str]:
    """Return a table with a row for each kind of fault and program."""
    groups: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.case.kind, outcome.case.program].append(outcome)
    lines = ["| fault | program | runs | right | resumed | steps lost: median, most | seconds per run |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for (kind, program), group in sorted(groups.items(), key=lambda item: (KINDS.index(item[0][0]), item[0][1])):
        lost = [outcome.lost for outcome in group if outcome.lost is not None]
        cost = f"{statistics.median(lost):g}, {max(lost)}" if lost else ""
        right, resumed = sum(not one.wrong for one in group), sum(one.resumed for one in group)
        seconds = statistics.median(one.seconds for one in group)
        lines.append(f"| {kind} | {program} | {len(group)} | {right} | {resumed} | {cost} | {seconds:.1f} |")
    right, resumed = sum(not one.wrong for one in outcomes), sum(one.resumed for one in outcomes)
    return [*lines, f"| all | | {len(outcomes)} | {right} | {resumed} | | |"]


def main() -> int:
    """Run the cases and write the table; return 1 if any outcome is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="number of cases at a time")
    parser.add_argument("--only", type=int, metavar="N", help="run only this case, and print its output")
    parser.add_argument("--keep", action="store_true", help="write the table to benchmarks/results/")
    options = parser.parse_args()
    numbers = range(options.faults) if options.only is None else [options.only]
    began, done = time.monotonic(), 0

    def notify(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        if outcome.wrong or options.only is not None:
            print(f"{outcome.case}: {outcome.wrong or 'right'}", *outcome.log, sep="\n", flush=True)
        elif done % 50 == 0:
            print(f"{done} of {len(numbers)}, {time.monotonic() - began:.0f} s", flush=True)

    outcomes = try_all((Case(options.seed, number) for number in numbers), options.jobs, notify)
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    report(options, outcomes, wrong, time.monotonic() - began)
    return bool(wrong)


def report(options: argparse.Namespace, outcomes: list[Outcome], wrong: list[Outcome], seconds: float) -> None:
    """Print the table with machine, date, command and versions; with --keep, write it to benchmarks/results/."""
    from anyrank.provenance import versions  # starts MPI, which a process that starts mpiexec must not do

    now, call = datetime.now(timezone.utc), f"--faults {options.faults} --seed {options.seed} --jobs {options.jobs}"
    versions_text = ", ".join(
        f"{name} {' '.join(versions()[name].split())}" for name in ("anyrank", "numpy", "h5py", "hdf5", "mpi")
    )
    lines = [f"`python benchmarks/faults/faults.py {call}`, {now:%Y-%m-%d %H:%M} UTC, {seconds / 60:.1f} min,"]
    lines += [f"on {machine()}; {versions_text}.", "", *table(outcomes), ""]
    if options.only is None and len(outcomes) < options.faults:
        lines += [f"{options.faults - len(outcomes)} full disks were left out: they need root.", ""]
    lines += [f"WRONG: {one.case}: {one.wrong}. Again: --seed {options.seed} --only {one.case.number}" for one in wrong]
    text = "\n".join(lines)
    print(text)
    if options.keep:
        (BENCHMARKS / "results" / f"faults-{now:%Y-%m-%d}.md").write_text(text.rstrip() + "\n")


if __name__ == "__main__":
    sys.exit(main())
