"""The report of a hang, made by a separate process: `python -m anyrank.runtime.watchdog.report METADATA`.

METADATA is a JSON file from a rank's watchdog. The status is 0 if this process or another one made the report.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from anyrank.errors import as_ranges
from anyrank.observe.events import Events
from anyrank.runtime.watchdog.hosts import SAMPLE, Host, probe_hosts
from anyrank.runtime.watchdog.stacks import Dump, group_stacks, parse
from anyrank.storage.durable import write_atomically

#: Seconds for which a host that may be cut off waits for the report of another host.
CUT_OFF_WAIT = 3
#: The number of groups of ranks on the terminal, and of bytes that are read from the end of a log.
SHOWN, TAIL = 8, 1 << 20


def main(file: str) -> int:
    """Make the report, or wait until another process has made it; return the exit status."""
    _detach()
    metadata = json.loads(Path(file).read_text(encoding="utf-8"))
    signal.alarm(int(metadata["grace"]) + 20)  # this process ends soon after the ranks, even if it gets stuck
    connected, cut_off = probe_hosts(metadata["hosts"], metadata["host"], SAMPLE)
    if not connected:
        time.sleep(CUT_OFF_WAIT)
    claim = Path(metadata["claim"])
    if not _claim(claim):
        return 0
    signal.alarm(int(metadata["grace"]) + 20)
    if len(metadata["hosts"]) > SAMPLE + 1:  # only one process probes all hosts
        _, cut_off = probe_hosts(metadata["hosts"], metadata["host"])
    folder = Path(metadata["folder"])
    report = compose(metadata, _collect(metadata, folder / "log"), cut_off)
    end = f"The stacks of all threads are in {folder / 'log'}."
    with suppress(OSError):
        _publish(folder, report, "\n".join([*describe(report), end, ""]))
    with suppress(OSError):
        print(*describe(report, SHOWN), end, sep="\n", file=sys.stderr, flush=True)
    with suppress(OSError):
        claim.write_text("reported", encoding="utf-8")
    return 0


def _detach() -> None:
    """Detach from the rank that started this process: from its process group, open files and blocked signals."""
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for name in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):
            if int(name.name) > 2:
                os.close(int(name.name))


def _claim(claim: Path) -> bool:
    """Claim the report; False if another process has claimed it, and has then made it."""
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        with suppress(OSError):
            while not claim.stat().st_size:
                time.sleep(0.1)
        return False
    except OSError:
        pass  # if the disk is full, the report still goes to the terminal
    return True


def _collect(metadata: Mapping[str, Any], logs: Path) -> dict[int, Dump]:
    """Read the stacks from the ranks' logs; wait at most `grace` seconds for missing ones."""
    dumps: dict[int, Dump] = {}
    missing = {rank for host in metadata["hosts"] for rank in host["ranks"]}
    deadline, pause = time.monotonic() + metadata["grace"], 0.1
    while missing and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(1.5 * pause, 1.0)
        for rank in missing:
            with suppress(OSError):
                log = _end_of(logs / f"rank-{rank:04d}.log")
                if dump := parse(log, metadata["head"], metadata["tail"]):
                    dumps[rank] = dump
        missing -= set(dumps)
    return dumps


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        return file.read().decode(errors="replace")


def compose(metadata: Mapping[str, Any], dumps: Mapping[int, Dump], cut_off: list[Host]) -> dict[str, Any]:
    """Return the content of hang.json."""
    ranks = {rank for host in metadata["hosts"] for rank in host["ranks"]}
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "seconds": metadata["seconds"],
        "ranks": len(ranks),
        "step": min((dump.step for dump in dumps.values() if dump.step >= 0), default=None),
        "groups": group_stacks(dumps, metadata["hosts"]),
        "silent": as_ranges(ranks - set(dumps)),
        "unreachable": {host["name"]: as_ranges(host["ranks"]) for host in cut_off},
    }


def describe(report: Mapping[str, Any], most: int = 0) -> Iterator[str]:
    """Yield the report as text: the first line names the suspects, then each group (at most `most`) with its stack."""
    groups, unreachable, size = report["groups"], report["unreachable"], report["ranks"]
    silent = f"{_counted('rank', report['silent'])} of {size} wrote no stack" if report["silent"] else ""
    suspects = [f"host {name} ({_counted('rank', ranks)}) does not respond" for name, ranks in unreachable.items()]
    if silent and not suspects and all(group["waiting"] for group in groups[:1]):
        suspects.append(silent)
    suspects += [f"{_location(group, f' of {size}')} in {group['where']}" for group in groups[:1]]
    yield f"anyrank: hung: no step for {report['seconds']:g} s; {'; '.join(suspects)}"
    for group in groups[: most or None]:
        waiting = ", waiting for other ranks" if group["waiting"] else ""
        yield f"{_location(group)}{waiting}; the innermost call is the last:"
        yield from (f"    {frame}" for frame in group["stack"])
    if most and len(groups) > most:
        yield f"{len(groups) - most} more groups of ranks are in hang.txt."
    if silent:
        yield silent


def _location(group: Mapping[str, Any], of: str = "") -> str:
    ranks, steps, hosts = group["ranks"], group["steps"], group["hosts"]
    where = f"host{'s' * (len(hosts) > 1)} {', '.join(hosts[:4])}{', …' * (len(hosts) > 4)}"
    step = f"at {_counted('step', steps)}" if steps else "before the first step"
    return f"{_counted('rank', ranks)}{of} ({where}) {'is' if ranks.isdecimal() else 'are'} {step}"


def _counted(word: str, numbers: str) -> str:
    return f"{word}{'s' * (not numbers.isdecimal())} {numbers}"


def _publish(folder: Path, report: Mapping[str, Any], text: str) -> None:
    for name, content in (("hang.txt", text), ("hang.json", json.dumps(report, indent=2) + "\n")):
        write_atomically(folder / name, content)
    first = report["groups"][0] if report["groups"] else {"ranks": report["silent"], "where": ""}
    details = {"ranks": first["ranks"], "where": first["where"], "unreachable": report["unreachable"]}
    Events(folder / "events.jsonl").say("hang", step=report["step"], **details)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
