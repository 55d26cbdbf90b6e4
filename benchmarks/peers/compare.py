"""Compare anyrank with other tools: `make peers`, or python benchmarks/peers/compare.py [--quick].

Each peer of a job (see peer.py) has its own process, which stays alive for all rounds. In a round anyrank is paired
with each other peer, and goes first in every other round. A turn repeats the run until it has taken half a second.
Ratios are computed for each pair. Answers are compared after the first run, which is not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import numpy as np  # noqa: E402
from measure import machine  # noqa: E402

from peer import OURS, Peer, load  # noqa: E402
from process import ROOT, IdleMonitor, PeerError, PeerProcess  # noqa: E402
from table import README, RESULTS, report, write_readme  # noqa: E402
from tasks import JOBS, DifferError, Job  # noqa: E402

#: The shortest duration of a turn, in seconds.
TURN_SECONDS = 0.5


class Comparison:
    """The rows of all comparisons, and the details for the results."""

    def __init__(self, quick: bool, rounds: int, folder: Path):
        self.quick, self.rounds, self.folder = quick, rounds, folder
        self.rows: list[dict[str, Any]] = []
        self.skipped: list[dict[str, str]] = []
        self.versions: dict[str, str] = {}
        self.details: dict[str, str] = {}
        self.idle: dict[str, float] = {}

    def skip(self, peer: str, reason: object) -> None:
        """Record once that a peer was not measured, and why."""
        if peer not in [one["peer"] for one in self.skipped]:
            self.skipped.append({"peer": peer, "reason": str(reason)})

    def compare(self, name: str, size: dict[str, int], cores: int, peers: dict[str, type[Peer]]) -> None:
        """Compare anyrank with each peer for one job of one size on this number of cores."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self.folder)))
            JOBS[name].prepare(size, folder)
            started = [
                stack.enter_context(PeerProcess(file, peers[file], size, cores, folder))
                for file in sorted(peers, key=lambda file: file != f"{name}_{OURS}")
            ]
            ours, *theirs = [one for one in started if self._is_ready(one)]
            agreement = {}
            for one in list(theirs):
                try:
                    agreement[one.name] = _compare_answers(JOBS[name], size, ours, one)
                except PeerError as why:
                    self.skip(one.kind.name, why)
                    theirs.remove(one)
            turns = self._rounds(ours, theirs)
        for one in theirs:
            for key, words in JOBS[name].measures:
                pairs = turns[one.name]
                if any(key in run for mine, _ in pairs for run in mine):
                    self.rows.append(_row(name, size, cores, one.kind, key, words, pairs, *agreement[one.name]))
                    print(f"{name} {size} on {cores}: {one.kind.name} {words}", file=sys.stderr, flush=True)

    def _is_ready(self, one: PeerProcess) -> bool:
        """Return whether a peer has started; if anyrank has not, raise PeerError."""
        try:
            reply = one.ready()
            one.ask("run")
        except PeerError as why:
            if one.kind.name == OURS:
                raise
            self.skip(one.kind.name, why)
            return False
        own = f" ({one.kind.environment[0]})" if one.kind.environment else ""
        self.versions.update({package + own: version for package, version in reply["versions"].items()})
        self.details.update(reply["details"])
        return True

    def _rounds(self, ours: PeerProcess, theirs: list[PeerProcess]) -> dict[str, list[tuple[list, list]]]:
        """Return the runs of anyrank and of the peer, by peer and round; remove peers that fail from `theirs`."""
        found: dict[str, list[tuple[list, list]]] = {one.name: [] for one in theirs}
        watch = IdleMonitor([ours, *theirs])
        for number in range(self.rounds):
            for one in list(theirs):
                try:
                    found[one.name].append(self._pair(ours, one, number % 2 == 0, watch))
                except PeerError as why:
                    if ours.process.poll() is not None:
                        raise
                    self.skip(one.kind.name, why)
                    theirs.remove(one)
        for name, share in watch.shares().items():
            self.idle[name] = max(self.idle.get(name, 0.0), share)
        return found

    def _pair(self, ours: PeerProcess, one: PeerProcess, ours_first: bool, watch: IdleMonitor) -> tuple[list, list]:
        runs = {}
        for turn in (ours, one) if ours_first else (one, ours):
            if not self.quick:
                watch.wait_until_idle()
            with watch.measure_others(turn):
                runs[turn.name] = self._turn(turn)
        return runs[ours.name], runs[one.name]

    def _turn(self, one: PeerProcess) -> list[dict[str, float]]:
        runs = [one.ask("run")]
        while not self.quick and sum(run["seconds"] for run in runs) < TURN_SECONDS:
            runs.append(one.ask("run"))
        return runs


def _compare_answers(job: Job, size: dict[str, int], ours: PeerProcess, theirs: PeerProcess) -> tuple[bool, str]:
    """Return whether the answers agree, and a text about it."""
    answers = []
    for one in (ours, theirs):
        path = one.folder.parent / f"{one.name}.npz"
        if not path.exists():
            one.ask(f"answer {path}")
        with np.load(path) as file:
            answers.append(dict(file))
    path.unlink()
    try:
        return True, job.check(theirs.kind, size, *answers)
    except DifferError as difference:
        return False, f"DIFFER: {difference}"


def _row(
    name: str,
    size: dict[str, int],
    cores: int,
    kind: type[Peer],
    key: str,
    words: str,
    pairs: list[tuple[list[dict], list[dict]]],
    agree: bool,
    answers: str,
) -> dict[str, Any]:
    """Return a row of the results. If the peer does not return this measurement, its seconds count."""
    return {
        "job": name,
        "size": size,
        "cores": cores,
        "measure": words,
        "peer": kind.name,
        "share": kind.share_of(size),
        "ours": [[run[key] for run in mine] for mine, _ in pairs],
        "theirs": [[run.get(key, run["seconds"]) for run in theirs] for _, theirs in pairs],
        "goal": kind.goals.get(cores, 1.0),
        "agree": agree,
        "answers": answers,
        "behind": kind.behind,
    }


def load_peers(comparison: Comparison, only: Sequence[str]) -> dict[str, dict[str, type[Peer]]]:
    """Return the peers by job and file, without those that cannot be imported or have no environment."""
    peers: dict[str, dict[str, type[Peer]]] = {}
    for name in JOBS:
        for path in sorted(HERE.glob(f"{name}_*.py")):
            if only and not {name, path.stem} & {*only} and path.stem != f"{name}_{OURS}":
                continue
            try:
                kind = load(path.stem)
                if kind.environment:
                    _make(*kind.environment, quick=comparison.quick)
            except (ImportError, PeerError) as why:
                comparison.skip(path.stem, why)
            else:
                peers.setdefault(name, {})[path.stem] = kind
    return {name: kinds for name, kinds in peers.items() if len(kinds) > 1}


def _make(environment: str, script: str, quick: bool) -> None:
    """Make a virtual environment if it is missing; raises PeerError with the reason if that fails."""
    if (ROOT / environment / "bin/mpiexec").exists():  # the last file that the script makes
        return
    if quick:
        raise PeerError(f"there is no {environment}: {script} makes it")
    done = subprocess.run([str(ROOT / script)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise PeerError((done.stderr.strip().splitlines() or [f"{script} failed"])[-1])


def _groups(name: str, peers: dict[str, type[Peer]]) -> list[dict[str, type[Peer]]]:
    """Return the groups of peers to run at the same time: all, or anyrank with each of the others."""
    ours = f"{name}_{OURS}"
    pairs = [{ours: peers[ours], file: kind} for file, kind in peers.items() if file != ours]
    return pairs if JOBS[name].apart else [peers]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Do all selected comparisons and return the results, as JSON types."""
    began, clock = datetime.now(timezone.utc), time.perf_counter()
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        comparison = Comparison(options.quick, options.rounds, Path(folder))
        for name, peers in load_peers(comparison, options.only).items():
            sizes = (JOBS[name].quick,) if options.quick else JOBS[name].sizes
            for cores in sorted({count for kind in peers.values() for count in kind.cores}):
                peers_on_cores = {file: kind for file, kind in peers.items() if cores in kind.cores}
                if cores in (options.cores or (cores,)) and len(peers_on_cores) > 1:
                    for size, group in product(sizes, _groups(name, peers_on_cores)):
                        comparison.compare(name, size, cores, group)
    return {
        "command": " ".join(["python", "benchmarks/peers/compare.py", *sys.argv[1:]]),
        "began": f"{began:%Y-%m-%d %H:%M} UTC",
        "seconds": round(time.perf_counter() - clock, 1),
        "rounds": options.rounds,
        "machine": machine(),
        "load": load_average,
        "versions": comparison.versions,
        "details": comparison.details,
        "idle": comparison.idle,
        "rows": comparison.rows,
        "skipped": comparison.skipped,
    }


def main() -> None:
    """Measure, print, and write the results; exit status 1 if answers differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, as a test; write no results")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds  [5]")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="only these jobs or files: pi, pi_dask")
    parser.add_argument("--cores", nargs="*", type=int, help="only these numbers of cores")
    parser.add_argument("--folder", type=Path, help="folder for checkpoints  [a temporary folder]")
    parser.add_argument("--out", type=Path, help=f"folder for the results  [{RESULTS.relative_to(ROOT)}]")
    parser.add_argument("--table", action="store_true", help="write the README's table from the newest results")
    options = parser.parse_args()
    unknown = [name for name in options.only if name not in JOBS and not (HERE / f"{name}.py").exists()]
    if unknown:
        parser.error(f"--only {' '.join(unknown)}: no such job, and no such file in {HERE.relative_to(ROOT)}")
    if options.table:
        write_readme()
        return
    result = measure(options)
    print(report(result))
    if not options.quick or options.out:
        folder = options.out or RESULTS
        path = folder / f"peers-{result['began'][:10]}"
        path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        path.with_suffix(".md").write_text(report(result))
        if folder == RESULTS:
            write_readme(README)
    sys.exit(not all(row["agree"] for row in result["rows"]))


if __name__ == "__main__":
    main()
