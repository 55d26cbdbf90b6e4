"""Measure what is promised of a GPU's speed within --limit seconds: python benchmarks/gpu/bench.py; `make gpu-bench`.

Rows are measured in the order of what is learnt most. Each is kept in --out as soon as it is measured: in bench.jsonl,
and in the table bench.md, which has the newest of every row. Bandwidths are compared with those of the row `copy`, or,
where that is not measured, with an H200's. Every group of rows has a child process; where a row fails or does not end,
the child is killed with all that it started, and a new one goes on. A row that would take longer than the time left
is left out. `--body shim --quick` shows, where no GPU is, that it works, and keeps nothing without --out.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from measure import HERE, machine, table
from rows import ASSUMED, ATTEMPTS, CHILD, Attempt, Bench

from anyrank.kernel import BODIES

BY_NAME = {attempt.name: attempt for attempt in ATTEMPTS}
#: The variable by which a child and all that it started are found.
TAG = "BENCH_CHILD"


class Child:
    """A process that measures rows; requests and answers are lines of JSON."""

    def __init__(self, command: list[str], errors: Path):
        self._tag, self._errors, self._text = uuid.uuid4().hex, errors, b""
        with errors.open("wb") as file:
            streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": file}
            self._process = subprocess.Popen(command, env={**os.environ, TAG: self._tag}, **streams)

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Return the answer; raise TimeoutError after so many seconds without one, EOFError if the process ends."""
        until = time.monotonic() + seconds
        with suppress(BrokenPipeError):  # its end is read below
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        while True:
            line, end, rest = self._text.partition(b"\n")
            if not end:
                self._text += self._read(until, seconds)
                continue
            self._text = rest
            if line.startswith(b"{"):  # all else is what libraries print
                return json.loads(line)

    def _read(self, until: float, seconds: float) -> bytes:
        out = self._process.stdout.fileno()
        if not select.select([out], [], [], max(0.0, until - time.monotonic()))[0]:
            raise TimeoutError(f"killed after {seconds:.0f} s")
        if not (text := os.read(out, 1 << 16)):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            why = self._errors.read_text(errors="replace")[-500:]
            raise EOFError(f"the process ended with {self._process.returncode}: {why}")
        return text

    def kill(self) -> None:
        """Kill the process and all that it started; ranks have sessions of their own, but inherit the tag."""
        for _ in range(2):  # what is killed may just have started another process
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    if self._tag.encode() in (process / "environ").read_bytes():
                        os.kill(int(process.name), signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):  # one that hangs in the driver stays
                self._process.wait(2)


class Results:
    """The rows that the folder `out` holds, and those of this run."""

    def __init__(self, out: Path | None):
        self.out, self.rows, self.failed = out, {}, False
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "bench.jsonl").touch()
            for line in (out / "bench.jsonl").read_text().splitlines():
                self.rows[json.loads(line)["attempt"]] = json.loads(line)

    def add(self, entry: dict[str, Any]) -> None:
        """Print a row and keep it."""
        what, value, _, remark, _ = entry["row"]
        print(f"{what}: {value} ({remark})", flush=True)
        self.rows[entry["attempt"]] = entry
        self.failed |= value == "FAILED"
        if self.out is not None:
            with (self.out / "bench.jsonl").open("a") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            (self.out / "bench.md.new").write_text(self.table())
            (self.out / "bench.md.new").replace(self.out / "bench.md")

    def table(self) -> str:
        """Return Markdown; the machine with its card is the longest of its names."""
        where = max((entry["machine"] for entry in self.rows.values()), key=len, default="")
        return table("gpu/bench", [entry["row"] for entry in self.rows.values()], where or "an unknown machine")


def measure(options: argparse.Namespace, folder: Path, results: Results) -> None:
    """Measure every row for which there is time."""
    known, child, group, left_out = dict(ASSUMED), None, "", []
    for entry in results.rows.values():  # of an earlier call, on the same machine
        known |= entry["numbers"]
    until = time.monotonic() + options.limit
    try:
        for attempt in (BY_NAME[name] for name in options.only):
            fresh, left = child is None or group != attempt.group, until - time.monotonic()
            needed = 0.0 if options.quick else attempt.estimate(known) + fresh * CHILD
            if needed > left or left <= 0:
                left_out.append(attempt.name)
                print(f"{attempt.name}: needs {needed:.0f} s, and {max(0.0, left):.0f} are left", flush=True)
                continue
            if fresh:
                if child is not None:
                    child.kill()
                group, words = attempt.group, ["--folder", str(folder), "--group", attempt.group]
                child = Child([sys.executable, __file__, *sys.argv[1:], *words], folder / "errors")
            began = time.monotonic()
            try:
                allowed = left if options.quick else min(left, 20 + 3 * needed)
                answer = child.ask({"attempt": attempt.name, "known": known}, allowed)
            except (TimeoutError, EOFError) as error:
                answer = failure(attempt.name, error)
            if answer["row"][1] == "FAILED":
                child.kill()
                child = None
            known |= answer["numbers"]
            when = datetime.now(timezone.utc).isoformat(timespec="seconds")
            took = round(time.monotonic() - began, 2)
            results.add({"attempt": attempt.name, "when": when, "estimate": needed, "seconds": took, **answer})
    finally:
        if child is not None:
            child.kill()
    print(f"left out for want of time: {', '.join(left_out)}" if left_out else "no row was left out", flush=True)


def failure(name: str, error: Exception) -> dict[str, Any]:
    why = " ".join(f"{type(error).__name__}: {error}".split())
    return {"row": [name, "FAILED", "", why, False], "numbers": {}, "machine": ""}


def answer(attempt: Attempt, bench: Bench) -> dict[str, Any]:
    """Measure a row; runs have the card to themselves."""
    try:
        if not BODIES.round:
            BODIES.prefer("reference" if attempt.group == "runs" else bench.body)
        where = machine()
        row, numbers = attempt.measure(bench)
        return {"row": row, "numbers": numbers, "machine": where}
    except Exception as error:
        return failure(attempt.name, error)


def serve(options: argparse.Namespace) -> None:
    """Answer requests: what a child does."""
    for request in map(json.loads, sys.stdin):
        bench = Bench(options.quick, options.body, options.folder, request["known"])
        print(json.dumps(answer(BY_NAME[request["attempt"]], bench)), flush=True)


def names(text: str) -> list[str]:
    if unknown := set(text.split(",")) - set(BY_NAME):
        raise argparse.ArgumentTypeError(f"there is no row {', '.join(sorted(unknown))}; rows are {', '.join(BY_NAME)}")
    return [name for name in BY_NAME if name in text.split(",")]


def main() -> int:
    """Measure, print, keep; 1 where a row failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--body", default="cupy", choices=("cupy", "shim"))
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--folder", type=Path, help="where runs and checkpoints are written  [a temporary one]")
    parser.add_argument("--out", type=Path, help="where rows are kept  [benchmarks/results/gpu; with --quick nowhere]")
    parser.add_argument("--only", type=names, default=[*BY_NAME], metavar="NAME,NAME", help=f"of {', '.join(BY_NAME)}")
    parser.add_argument("--limit", type=float, default=260, metavar="SECONDS", help="time for all rows  [260]")
    parser.add_argument("--group", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.group:
        serve(options)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the child is killed, too
    results = Results(options.out or (None if options.quick else HERE / "results" / "gpu"))
    with tempfile.TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as folder:
        measure(options, Path(folder), results)
    print("\n" + results.table())
    return int(results.failed)


if __name__ == "__main__":
    sys.exit(main())
