"""Measure the promises about a GPU's speed within --limit seconds: python benchmarks/gpu/bench.py; `make gpu-bench`.

The most informative rows come first. Each row is written to --out as soon as it is measured: to bench.jsonl, and to the
table bench.md, which has the newest value of every row. Bandwidths are compared with the row `copy`, or with an H200 if
that row is missing. A child process measures each group of rows. If a row fails or does not end, the child and all
processes that it started are killed, and a new child continues. A row that would take longer than the remaining time is
left out. `--body shim --quick` tests the benchmark without a GPU; it writes nothing without --out.
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
from rows import ASSUMED, ATTEMPTS, CHILD_SECONDS, Attempt, Bench

from anyrank.kernel import BODIES

BY_NAME = {attempt.name: attempt for attempt in ATTEMPTS}
#: The environment variable that marks a child and all processes that it starts.
TAG = "BENCH_CHILD"


class Child:
    """A process that measures rows; requests and replies are lines of JSON."""

    def __init__(self, command: list[str], errors: Path):
        self._tag, self._errors, self._text = uuid.uuid4().hex, errors, b""
        with errors.open("wb") as file:
            streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": file}
            self._process = subprocess.Popen(command, env={**os.environ, TAG: self._tag}, **streams)

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a request and return the reply. Raises TimeoutError after `seconds`, EOFError if the process ends."""
        until = time.monotonic() + seconds
        with suppress(BrokenPipeError):  # the process has ended: _read raises EOFError
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        while True:
            line, end, rest = self._text.partition(b"\n")
            if not end:
                self._text += self._read(until, seconds)
                continue
            self._text = rest
            if line.startswith(b"{"):  # libraries print the other lines
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
        """Kill the process and all that it started, and wait until they are gone, or 4 s: a driver may keep one.

        Ranks have their own sessions, but inherit the tag. A killed process may just have started another.
        """
        until = time.monotonic() + 4
        while self._kill_tagged() and time.monotonic() < until:
            self._process.poll()  # no zombie
            time.sleep(0.02)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, until - time.monotonic()))

    def _kill_tagged(self) -> bool:
        """Send SIGKILL to all processes with the tag. Return whether there was one."""
        found = False
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if self._tag.encode() in (process / "environ").read_bytes():
                    found = True
                    os.kill(int(process.name), signal.SIGKILL)
        return found


class Results:
    """The rows in the folder `out`, and those of this call."""

    def __init__(self, out: Path | None):
        self.out, self.rows, self.failed = out, {}, False
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "bench.jsonl").touch()
            for line in (out / "bench.jsonl").read_text().splitlines():
                self.rows[json.loads(line)["attempt"]] = json.loads(line)

    def add(self, entry: dict[str, Any]) -> None:
        """Print a row and write it."""
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
        """Return the table in Markdown. The longest description of the machine includes its GPU."""
        where = max((entry["machine"] for entry in self.rows.values()), key=len, default="")
        return table("gpu/bench", [entry["row"] for entry in self.rows.values()], where or "an unknown machine")


def measure(options: argparse.Namespace, folder: Path, results: Results) -> None:
    """Measure every row for which there is enough time."""
    known, child, group, left_out = dict(ASSUMED), None, "", []
    for entry in results.rows.values():  # rows of an earlier call, on the same machine
        known |= entry["numbers"]
    until = time.monotonic() + options.limit
    try:
        for attempt in (BY_NAME[name] for name in options.only):
            new_child, time_left = child is None or group != attempt.group, until - time.monotonic()
            estimate = 0.0 if options.quick else attempt.estimate(known) + new_child * CHILD_SECONDS
            if estimate > time_left or time_left <= 0:
                left_out.append(attempt.name)
                print(f"{attempt.name}: needs {estimate:.0f} s, and {max(0.0, time_left):.0f} are left", flush=True)
                continue
            if new_child:
                if child is not None:
                    child.kill()
                group, words = attempt.group, ["--folder", str(folder), "--group", attempt.group]
                child = Child([sys.executable, __file__, *sys.argv[1:], *words], folder / "errors")
            start = time.monotonic()
            try:
                allowed = time_left if options.quick else min(time_left, 20 + 3 * estimate)
                reply = child.ask({"attempt": attempt.name, "known": known}, allowed)
            except (TimeoutError, EOFError) as error:
                reply = failure(attempt.name, error)
            if reply["row"][1] == "FAILED":
                child.kill()
                child = None
            known |= reply["numbers"]
            when = datetime.now(timezone.utc).isoformat(timespec="seconds")
            seconds = round(time.monotonic() - start, 2)
            results.add({"attempt": attempt.name, "when": when, "estimate": estimate, "seconds": seconds, **reply})
    finally:
        if child is not None:
            child.kill()
    print(f"left out for lack of time: {', '.join(left_out)}" if left_out else "no row was left out", flush=True)


def failure(name: str, error: Exception) -> dict[str, Any]:
    why = " ".join(f"{type(error).__name__}: {error}".split())
    return {"row": [name, "FAILED", "", why, False], "numbers": {}, "machine": ""}


def measure_row(attempt: Attempt, bench: Bench) -> dict[str, Any]:
    """Measure a row. For the rows of group `runs`, this process leaves the GPU to the run."""
    try:
        if not BODIES.round:
            BODIES.prefer("reference" if attempt.group == "runs" else bench.body)
        where = machine()
        row, numbers = attempt.measure(bench)
        return {"row": row, "numbers": numbers, "machine": where}
    except Exception as error:
        return failure(attempt.name, error)


def serve(options: argparse.Namespace) -> None:
    """Answer requests: the main loop of a child."""
    for request in map(json.loads, sys.stdin):
        bench = Bench(options.quick, options.body, options.folder, request["known"])
        print(json.dumps(measure_row(BY_NAME[request["attempt"]], bench)), flush=True)


def names(text: str) -> list[str]:
    if unknown := set(text.split(",")) - set(BY_NAME):
        raise argparse.ArgumentTypeError(f"there is no row {', '.join(sorted(unknown))}; rows are {', '.join(BY_NAME)}")
    return [name for name in BY_NAME if name in text.split(",")]


def main() -> int:
    """Measure, and write the table; return 1 if a row failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--body", default="cupy", choices=("cupy", "shim"))
    parser.add_argument("--quick", action="store_true", help="small sizes, as a test")
    parser.add_argument("--folder", type=Path, help="folder for runs and checkpoints  [a temporary folder]")
    parser.add_argument("--out", type=Path, help="folder for the rows  [benchmarks/results/gpu; none with --quick]")
    parser.add_argument(
        "--only",
        type=names,
        default=[*BY_NAME],
        metavar="NAME,NAME",
        help=f"measure only these rows: {', '.join(BY_NAME)}",
    )
    parser.add_argument("--limit", type=float, default=260, metavar="SECONDS", help="time limit for all rows  [260]")
    parser.add_argument("--group", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.group:
        serve(options)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that `measure` kills the child, too
    results = Results(options.out or (None if options.quick else HERE / "results" / "gpu"))
    with tempfile.TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as folder:
        measure(options, Path(folder), results)
    print("\n" + results.table())
    return int(results.failed)


if __name__ == "__main__":
    sys.exit(main())
