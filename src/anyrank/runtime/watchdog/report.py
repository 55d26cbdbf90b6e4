"""The report of a hang, made by a process of its own: `python -m anyrank.runtime.watchdog.report FACTS`.

FACTS is JSON from a rank's watchdog. The status is 0 when the report is made, by this process or by another.
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

from anyrank.errors import spans
from anyrank.observe.events import Events
from anyrank.runtime.watchdog.hosts import SAMPLE, Host, look_around
from anyrank.runtime.watchdog.stacks import Dump, grouped, parse
from anyrank.storage.durable import write_atomically

#: Seconds for which a host that may be cut off leaves the report to others.
OTHERS_FIRST = 3
#: Groups of ranks that the terminal shows, and bytes at the end of a log that are read.
SHOWN, TAIL = 8, 1 << 20


def main(file: str) -> int:
    """Make the report, or wait until another process has made it; the exit status."""
    _stand_alone()
    facts = json.loads(Path(file).read_text(encoding="utf-8"))
    signal.alarm(int(facts["grace"]) + 20)  # wherever we get stuck, we do not outlive the ranks by much
    sure, cut_off = look_around(facts["hosts"], facts["host"], SAMPLE)
    if not sure:
        time.sleep(OTHERS_FIRST)
    claim = Path(facts["claim"])
    if not _ours(claim):
        return 0
    signal.alarm(int(facts["grace"]) + 20)
    if len(facts["hosts"]) > SAMPLE + 1:  # all of them are called by one process alone
        _, cut_off = look_around(facts["hosts"], facts["host"])
    folder = Path(facts["folder"])
    report = compose(facts, _collect(facts, folder / "log"), cut_off)
    end = f"The stacks of all threads are in {folder / 'log'}."
    with suppress(OSError):
        _publish(folder, report, "\n".join([*describe(report), end, ""]))
    with suppress(OSError):
        print(*describe(report, SHOWN), end, sep="\n", file=sys.stderr, flush=True)
    with suppress(OSError):
        claim.write_text("reported", encoding="utf-8")
    return 0


def _stand_alone() -> None:
    """Be no part of the rank that started us: of its process group, its open files, the signals that it blocks."""
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for name in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):
            if int(name.name) > 2:
                os.close(int(name.name))


def _ours(claim: Path) -> bool:
    """Whether the report is ours to make; if not, another process has made it when this returns."""
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        with suppress(OSError):
            while not claim.stat().st_size:
                time.sleep(0.1)
        return False
    except OSError:
        pass  # where the disk is full, the terminal still has room
    return True


def _collect(facts: Mapping[str, Any], logs: Path) -> dict[int, Dump]:
    """What the ranks have left in their logs; those that have left nothing get `grace` seconds to do so."""
    dumps: dict[int, Dump] = {}
    missing = {rank for host in facts["hosts"] for rank in host["ranks"]}
    give_up, pause = time.monotonic() + facts["grace"], 0.1
    while missing and time.monotonic() < give_up:
        time.sleep(pause)
        pause = min(1.5 * pause, 1.0)
        for rank in missing:
            with suppress(OSError):
                log = _end_of(logs / f"rank-{rank:04d}.log")
                if dump := parse(log, facts["head"], facts["tail"]):
                    dumps[rank] = dump
        missing -= set(dumps)
    return dumps


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        return file.read().decode(errors="replace")


def compose(facts: Mapping[str, Any], dumps: Mapping[int, Dump], cut_off: list[Host]) -> dict[str, Any]:
    """The content of hang.json."""
    ranks = {rank for host in facts["hosts"] for rank in host["ranks"]}
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "seconds": facts["seconds"],
        "ranks": len(ranks),
        "step": min((dump.step for dump in dumps.values() if dump.step >= 0), default=None),
        "groups": grouped(dumps, facts["hosts"]),
        "silent": spans(ranks - set(dumps)),
        "unreachable": {host["name"]: spans(host["ranks"]) for host in cut_off},
    }


def describe(report: Mapping[str, Any], most: int = 0) -> Iterator[str]:
    """The lines of the report for people: the suspects in the first, then every group with its stack, or `most`."""
    groups, unreachable, size = report["groups"], report["unreachable"], report["ranks"]
    silent = f"{_named('rank', report['silent'])} of {size} left no stack" if report["silent"] else ""
    suspects = [f"host {name} ({_named('rank', ranks)}) does not answer" for name, ranks in unreachable.items()]
    if silent and not suspects and all(group["waiting"] for group in groups[:1]):
        suspects.append(silent)
    suspects += [f"{_place(group, f' of {size}')} in {group['where']}" for group in groups[:1]]
    yield f"anyrank: hung: no step for {report['seconds']:g} s; {'; '.join(suspects)}"
    for group in groups[: most or None]:
        waiting = ", waiting for others" if group["waiting"] else ""
        yield f"{_place(group)}{waiting}; the innermost call is the last:"
        yield from (f"    {frame}" for frame in group["stack"])
    if most and len(groups) > most:
        yield f"{len(groups) - most} more groups of ranks are in hang.txt."
    if silent:
        yield silent


def _place(group: Mapping[str, Any], of: str = "") -> str:
    ranks, steps, hosts = group["ranks"], group["steps"], group["hosts"]
    on = f"host{'s' * (len(hosts) > 1)} {', '.join(hosts[:4])}{', …' * (len(hosts) > 4)}"
    step = f"at {_named('step', steps)}" if steps else "before the first step"
    return f"{_named('rank', ranks)}{of} ({on}) {'is' if ranks.isdecimal() else 'are'} {step}"


def _named(word: str, numbers: str) -> str:
    return f"{word}{'s' * (not numbers.isdecimal())} {numbers}"


def _publish(folder: Path, report: Mapping[str, Any], text: str) -> None:
    for name, content in (("hang.txt", text), ("hang.json", json.dumps(report, indent=2) + "\n")):
        write_atomically(folder / name, content)
    first = report["groups"][0] if report["groups"] else {"ranks": report["silent"], "where": ""}
    details = {"ranks": first["ranks"], "where": first["where"], "unreachable": report["unreachable"]}
    Events(folder / "events.jsonl").say("hang", step=report["step"], **details)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
