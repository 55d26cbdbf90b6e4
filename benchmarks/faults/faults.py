"""Random faults, each in a run of its own: python benchmarks/faults/faults.py --faults 1000 --seed 1 --jobs 2.

A run meets one fault, at a random step or a random instant, on a random number of ranks, and is started again on
another: it must then end on the digest of an unbroken run, and leave no temporary file and no process. Number and seed
decide all but what instants hit; `--only N` repeats one. A full disk is a small tmpfs, which needs root.
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
#: About how much room a checkpoint takes, in bytes, and what else is in a run folder.
CHECKPOINT, REST = {"weather": 240_000, "pi": 85_000}, 30_000
KINDS = ("kill a rank", "kill mpiexec", "TERM", "USR1", "torn checkpoint", "flipped bit", "full disk")
#: Seconds that a start may take on a busy machine, and that its processes may take to go.
PATIENCE, LEAVING = 180, 20


class Case:
    """One fault and its run, as the seed and its number decide them."""

    def __init__(self, seed: int, number: int):
        self.number = number
        chance = random.Random(f"{seed}:{number}")
        self.kind, self.program = chance.choice(KINDS), chance.choice(list(PROGRAMS))
        self.ranks = chance.choices([1, 2, 3, 4], [4, 4, 2, 1], k=2)
        if self.kind == "kill mpiexec":
            self.ranks[0] = chance.choice([2, 3, 4])
        self.every = chance.choice([15, 30, 40])
        self.victim, self.after, self.delay = "", 0, 0.0
        self.chaos = self._chaos(chance) if self.kind != "full disk" else ""
        if not self.damages and self.kind != "full disk" and chance.random() < 0.5:
            self._from_without(chance)
        self.room = chance.uniform(0.2, 4.0) if self.kind == "full disk" else 0.0

    def _chaos(self, chance: random.Random) -> str:
        rank, step = chance.randrange(self.ranks[0]), chance.randrange(STEPS - 5)
        kill = "kill mpiexec" if self.ranks[0] > 1 and chance.random() < 0.3 else f"kill rank={rank}"
        if self.damages:
            # Not the first checkpoint; and death comes when no later one can be whole.
            damaged = self.every * chance.randint(2, STEPS // self.every - 2)
            kind = "torn-checkpoint" if self.kind == "torn checkpoint" else "flip-bit"
            return f"{kind} step={damaged}; {kill} step={damaged + self.every}"
        kills = {"kill a rank": f"kill rank={rank}", "kill mpiexec": "kill mpiexec"}
        return f"{kills.get(self.kind) or f'signal {self.kind} rank={rank}'} step={step}"

    def _from_without(self, chance: random.Random) -> None:
        """Send a signal, some time after the start or a step, to a rank, mpiexec, or the process that started it."""
        self.chaos = ""
        targets = ["rank", "mpiexec", "anyrank"] if self.ranks[0] > 1 else ["rank"]
        self.victim = {"kill a rank": "rank", "kill mpiexec": "mpiexec"}.get(self.kind) or chance.choice(targets)
        self.after = chance.choice([0, chance.randrange(1, STEPS // 2)])
        self.delay = chance.uniform(0, 0.05 if self.after else 1.2)

    @property
    def damages(self) -> bool:
        """Whether a checkpoint is damaged."""
        return self.kind in ("torn checkpoint", "flipped bit")

    @property
    def signal(self) -> signal.Signals:
        """What is sent."""
        return signal.Signals[f"SIG{self.kind}"] if self.kind in ("TERM", "USR1") else signal.SIGKILL

    @property
    def statuses(self) -> set[int]:
        """With which statuses the first start may end."""
        if self.room:
            return {0, 1, 2}
        if self.chaos and self.kind in ("TERM", "USR1"):
            return {75}
        return {1, -self.signal} | ({75} if self.kind in ("TERM", "USR1") else set())

    def earlier(self) -> None:
        """Make the signal come earlier, because the run was over before it."""
        self.delay, self.after = self.delay * 0.7, self.after * 2 // 3

    def __str__(self) -> str:
        how = self.chaos or (f"{self.victim} after step {self.after} and {self.delay:.3f} s" if self.victim else "")
        room = f"{self.room:.2f} checkpoints" if self.room else ""
        return f"{self.number}: {self.kind} ({how or room}), {self.program}, {self.ranks[0]} then {self.ranks[1]} ranks"


@dataclass
class Outcome:
    """What came of a case: why it is wrong, if it is, and what the fault has cost."""

    case: Case
    wrong: str = ""
    resumed: bool = False
    lost: int | None = None
    seconds: float = 0.0
    log: list[str] = field(default_factory=list)


def victims(process: subprocess.Popen[str], whom: str) -> list[int]:
    """Return the process ids of `anyrank`, which started all, of `mpiexec`, or of each `rank`."""
    found = {pid: words for pid, words in processes_of(process).items() if words and words[0]}
    if whom == "mpiexec":  # not what it has just forked, which has its name until it becomes something else
        return [pid for pid, words in found.items() if Path(words[0]).name == "mpiexec" and parent(pid) == process.pid]
    ranks = [pid for pid, words in found.items() if "anyrank" in words and "python" in Path(words[0]).name]
    alone = process.args[-1] == "1"  # then it is its own rank
    return [pid for pid in ranks if (pid == process.pid) == (alone or whom == "anyrank")]


def parent(pid: int) -> int:
    """Return the process that started another; 0 if that has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def step_file(out: Path) -> Path:
    """Return where a run keeps its step: not on the small disk."""
    return out.parents[1] / f"{out.parent.name}-{out.name}.step"


def strike(case: Case, out: Path, process: subprocess.Popen[str]) -> bool:
    """Send the signal when its time has come; False where the run was over before."""

    def until(come: Callable[[], object]) -> None:
        while not come() and process.poll() is None:
            time.sleep(0.001)

    until(lambda: (position(step_file(out)) or 0) >= case.after)
    then = time.monotonic() + case.delay
    until(lambda: time.monotonic() >= then)
    until(lambda: victims(process, case.victim))
    chosen = victims(process, case.victim) if process.poll() is None else []
    if chosen:
        os.kill(chosen[case.number % len(chosen)], case.signal)
    return bool(chosen)


def start(outcome: Outcome, out: Path, ranks: int, fault: bool) -> int | None:
    """Start the run, with its fault or without; the status, None where the fault came too late."""
    case, struck = outcome.case, True
    chaos = ("--chaos", case.chaos) if fault and case.chaos else ()
    words = ("run", *PROGRAMS[case.program], "--checkpoint-every", case.every, "--hang-timeout", 60, "--out", out)
    with tempfile.TemporaryFile("w+") as printed:
        command, environment = anyrank_command(*words, *chaos, ranks=ranks), {STEP_FILE: str(step_file(out))}
        make_step_file(step_file(out))
        with start_process(*command, env=environment, stdout=printed, stderr=printed) as process:
            if fault and case.victim:
                struck = strike(case, out, process)
            status = process.wait(PATIENCE)
            give_up = time.monotonic() + LEAVING
            while left := processes_of(process):
                assert time.monotonic() < give_up, f"processes are left: {left}"
                time.sleep(0.01)
        printed.seek(0)
        outcome.log.append(f"{shlex.join(process.args)}\n{printed.read()}status {status}")
    return status if struck else None


def finished(out: Path) -> str:
    """Return the digest of a finished run; empty for any other."""
    path = out / "summary.json"
    summary = json.loads(path.read_text()) if path.exists() else {"finished": False}
    return summary["digest"] if summary["finished"] else ""


def events(out: Path, name: str) -> list[dict]:
    """Return the run's events of one name; lines that a full disk has truncated are ignored."""
    lines = (out / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}") and f'"event": "{name}"' in line]


def carry_out(outcome: Outcome, out: Path, grow: Callable[[], None], digest: str) -> bool:
    """Inject the fault, start again, and judge; return False if the fault came too late."""
    case = outcome.case
    status = start(outcome, out, case.ranks[0], fault=True)
    if status is None or (case.victim and finished(out)):
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
        # An interval, and the one whose checkpoint was being written, or was damaged; rank 0 may be two steps ahead.
        most = 0 if status == 75 else STEPS if case.room else (2 + case.damages) * case.every + 2
        assert outcome.lost <= most, f"{outcome.lost} steps lost, which is more than {most}"
        assert (step < newest) == case.damages, f"resumed from {step}, and {newest} is whole"
        assert bool(events(out, "checkpoint-refused")) == case.damages, "damage is noticed where there is damage"
    assert finished(out) == digest, f"digest {finished(out)!r}, not {digest!r}"
    left = [path.name for folder in (out, out / "checkpoints") for path in folder.glob(".*")]
    assert not left, f"files are left: {left}"
    return True


def try_case(case: Case, folder: Path, digest: str) -> Outcome:
    """Return the outcome of a case; its files are in `folder` meanwhile, or on a small disk that is mounted there."""
    outcome, began = Outcome(case), time.monotonic()
    folder.mkdir()
    size = f"size={REST + int(case.room * CHECKPOINT[case.program])}"
    if case.room:
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)

    def grow() -> None:
        if case.room:
            subprocess.run(["mount", "-o", "remount,size=64M", folder], check=True)

    try:
        for attempt in range(20):
            outcome.log.clear()
            if carry_out(outcome, folder / f"run{attempt}", grow, digest):
                break
            case.earlier()
        else:
            outcome.wrong = "the fault came too late, twenty times"
    except (AssertionError, OSError, ValueError, subprocess.TimeoutExpired) as error:
        outcome.wrong = f"{type(error).__name__}: {error}"
    finally:
        if case.room:
            subprocess.run(["umount", "-l", folder], check=True)
    outcome.seconds = time.monotonic() - began
    return outcome


def unbroken(program: str, folder: Path) -> str:
    """Return the digest with which every run of the program must end."""
    out = folder / f"unbroken-{program}"
    done = run_anyrank("run", *PROGRAMS[program], "--out", out, "--json", timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["digest"]


def try_all(cases: Iterable[Case], jobs: int, tell: Callable[[Outcome], None] = lambda outcome: None) -> list[Outcome]:
    """Return the outcomes of the cases, so many at a time; only root can test full disks."""
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="anyrank-faults-") as name, ThreadPoolExecutor(jobs) as pool:
        folder = Path(name)
        digests = {program: unbroken(program, folder) for program in PROGRAMS}

        def one(case: Case) -> Outcome:
            outcome = try_case(case, folder / str(case.number), digests[case.program])
            sweep_shared_memory(began)
            tell(outcome)
            return outcome

        return [*pool.map(one, (case for case in cases if not case.room or os.geteuid() == 0))]


def table(outcomes: list[Outcome]) -> list[str]:
    """Return a row for each kind of fault and program."""
    groups: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.case.kind, outcome.case.program].append(outcome)
    lines = ["| fault | program | runs | right | resumed | steps lost: median, most | seconds a run |"]
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
    """Try, print, keep; 1 where any is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--only", type=int, metavar="N", help="this one alone, with all it prints")
    parser.add_argument("--keep", action="store_true", help="write the table to benchmarks/results/")
    options = parser.parse_args()
    numbers = range(options.faults) if options.only is None else [options.only]
    began, done = time.monotonic(), 0

    def tell(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        if outcome.wrong or options.only is not None:
            print(f"{outcome.case}: {outcome.wrong or 'right'}", *outcome.log, sep="\n", flush=True)
        elif done % 50 == 0:
            print(f"{done} of {len(numbers)}, {time.monotonic() - began:.0f} s", flush=True)

    outcomes = try_all((Case(options.seed, number) for number in numbers), options.jobs, tell)
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    report(options, outcomes, wrong, time.monotonic() - began)
    return bool(wrong)


def report(options: argparse.Namespace, outcomes: list[Outcome], wrong: list[Outcome], seconds: float) -> None:
    """Print the table, with machine, date, command and versions, and keep it where that is asked for."""
    from anyrank.provenance import versions  # starts MPI, which what starts mpiexec must not

    now, call = datetime.now(timezone.utc), f"--faults {options.faults} --seed {options.seed} --jobs {options.jobs}"
    made = ", ".join(
        f"{name} {' '.join(versions()[name].split())}" for name in ("anyrank", "numpy", "h5py", "hdf5", "mpi")
    )
    lines = [f"`python benchmarks/faults/faults.py {call}`, {now:%Y-%m-%d %H:%M} UTC, {seconds / 60:.1f} min,"]
    lines += [f"on {machine()}; {made}.", "", *table(outcomes), ""]
    if options.only is None and len(outcomes) < options.faults:
        lines += [f"{options.faults - len(outcomes)} full disks were left out: they need root.", ""]
    lines += [f"WRONG: {one.case}: {one.wrong}. Again: --seed {options.seed} --only {one.case.number}" for one in wrong]
    text = "\n".join(lines)
    print(text)
    if options.keep:
        (BENCHMARKS / "results" / f"faults-{now:%Y-%m-%d}.md").write_text(text.rstrip() + "\n")


if __name__ == "__main__":
    sys.exit(main())
