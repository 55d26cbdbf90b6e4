"""A fake PBS whose commands behave like OpenPBS's, as far as job scripts can see.

After OpenPBS's manual pages and sources (finish_exec and kill_session of pbs_mom; req_register.c, chk_Jrange.c). There
are no daemons: the state is a file, and each command that changes it starts the jobs that can start, by fake_mom.py.
The server forgets jobs that have ended, as by default; it keeps them if there is a file `history`. A qsub takes long in
the job that a file `slow` names.
"""

from __future__ import annotations

import fcntl
import getopt
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("FAKE_PBS", "."))
HOST = socket.gethostname().partition(".")[0]
#: Cores, and the program that runs a job.
CPUS, MOM = 16, Path(__file__).with_name("fake_mom.py")
#: Seconds of a slow qsub: a run stopped before the wall time of its job is submitted again after the job got TERM.
QSUB_DELAY = 8.0
#: The patterns of option values; other values and other options are refused.
RULES = {
    **{"-h": "", "-A": r"\S+", "-N": r"[A-Za-z]\S{0,235}", "-S": r"/[^\s,@]+", "-j": "oe", "-o": r"[^\s,:]+"},
    **{"-q": "workq", "-r": "[yn]", "-J": r"\d+-\d+(%\d+)?", "-v": r"\w+=[^\s,]*", "-l walltime": r"\d+:\d\d:\d\d"},
    "-W": r"depend=after(ok|any|notok):[^\s,]+(,after(ok|any|notok):[^\s,]+)*",
    "-l select": r"\d+(:(ncpus|mpiprocs|ompthreads|ngpus)=\d+|:mem=\d+[kmgt]?b)*",
}
Jobs = dict[str, dict[str, Any]]


class RefusalError(Exception):
    """The message of a command on stderr, and its exit status."""

    def __init__(self, text: str, status: int):
        super().__init__(text)
        self.status = status


def read() -> Jobs:
    file = FOLDER / "state.json"
    return json.loads(file.read_text()) if file.exists() else {}


@contextmanager
def server() -> Iterator[Jobs]:
    """All jobs by their ids, for changes; afterwards the jobs that can start are started."""
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jobs = read()
        yield jobs
        schedule(jobs)
        (FOLDER / "new").write_text(json.dumps(jobs))
        (FOLDER / "new").replace(FOLDER / "state.json")


def schedule(jobs: Jobs) -> None:
    for name, job in jobs.items():
        above = jobs.get(job["array"], job)
        running = [entry for entry in jobs.values() if entry["state"] == "R"]
        beside = sum(job["array"] is not None and entry["array"] == job["array"] for entry in running)
        limit = int(job["given"].get("-J", "").partition("%")[2] or CPUS)
        fits = sum(chunks(entry, "ncpus") for entry in running) + chunks(job, "ncpus") <= CPUS and beside < limit
        if job["state"] == "Q" and "[]" not in name and fits and not above["hold"] and not above["depend"]:
            above["state"] = "B"
            job |= {"state": "R", "stime": time.time(), "session": 0, "asked": ""}
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": (FOLDER / "log").open("a")}
            subprocess.Popen([sys.executable, "-S", MOM, name], start_new_session=True, **streams)


def chunks(job: dict[str, Any], what: str) -> int:
    """The total of a resource over all chunks: `select=2:ncpus=4` has 8 ncpus."""
    select = job["given"].get("-l select", "1")
    result = re.search(rf"{what}=(\d+)", select)
    return int(select.partition(":")[0]) * int(result[1] if result else 1)


def parse(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The options of qsub or of a directive, and the remaining words."""
    try:
        pairs, rest = getopt.getopt(words, "hA:N:S:j:o:q:r:J:v:W:l:")
    except getopt.GetoptError as error:
        raise RefusalError(f"qsub: {error}", 2) from None
    given = {f"-l {value.partition('=')[0]}" if flag == "-l" else flag: value for flag, value in pairs}
    given = {key: value.partition("=")[2] if key[:2] == "-l" else value for key, value in given.items()}
    for key, value in given.items():
        if not re.fullmatch(RULES.get(key, "(?!)"), value):
            raise RefusalError(f"qsub: illegal {key} value {value!r}", 2)
    return given, rest


def qsub(words: list[str]) -> None:
    slow = FOLDER / "slow"
    if slow.exists() and slow.read_text() == os.environ.get("PBS_JOBID"):
        time.sleep(QSUB_DELAY)
    given, [name] = parse(words)
    if name != "-" and not Path(name).is_file():
        raise RefusalError("qsub: script file: No such file or directory", 1)
    text = sys.stdin.read() if name == "-" else Path(name).read_text()
    for line in text.splitlines():
        if line.startswith("#PBS "):
            more, left = parse(shlex.split(line[5:]))
            if left:
                raise RefusalError(f"qsub: directive error: {line[5:]}", 2)
            given = {**more, **given}
        elif line and not line.startswith("#"):  # directives end at the first line that is no comment
            break
    lists = re.findall(r"(after\w+):([^,]+)", given.get("-W", ""))
    depend = [(kind, need) for kind, needs in lists for need in needs.split(":")]
    if any(re.search(r"\[\d", need) for _, need in depend):
        raise RefusalError("qsub: Invalid request", 1)
    first, last = map(int, re.findall(r"\d+", given.get("-J", "0-0"))[:2])
    if "-J" in given and first >= last:
        raise RefusalError("qsub: illegal -J value", 2)
    env = {f"PBS_O_{name}": os.environ.get(name, "") for name in ("PATH", "HOME", "LOGNAME", "SHELL")}
    env |= {"PBS_O_WORKDIR": str(Path.cwd()), "PBS_O_HOST": HOST}
    env |= dict([given["-v"].split("=", 1)] if "-v" in given else [])
    job = {"state": "Q", "hold": "-h" in given, "depend": depend, "given": given, "array": None, "exit": None}
    print(enter({**job, "env": env}, text, range(first, last + 1) if "-J" in given else range(0)))


def enter(job: dict[str, Any], script: str, tasks: range) -> str:
    """Queue a job with its tasks and return its id. A job that depends on an unknown job is deleted at once."""
    with server() as jobs:
        number = len(list(FOLDER.glob("*.SC")))
        job["script"] = str(FOLDER / f"{number}.SC")
        Path(job["script"]).write_text(script)
        Path(job["script"]).chmod(0o700)
        name = f"{number}{'[]' * bool(tasks)}.srv"
        jobs[name] = job
        for task in tasks:
            own = {"array": name, "depend": [], "env": {**job["env"], "PBS_ARRAY_INDEX": str(task)}}
            jobs[f"{number}[{task}].srv"] = {**job, **own}
        for _, need in job["depend"]:
            if need not in jobs:
                end(jobs, name, None)
            elif jobs[need]["state"] == "F":
                settle(jobs, need)
    return name


def end(jobs: Jobs, name: str, status: int | None) -> None:
    """End a job, or delete it before it has run (None); an array ends with its last task."""
    job = jobs.get(name)
    if job is None or job["state"] in "XF":
        return
    job |= {"state": "X" if job["array"] else "F", "exit": status}
    tasks = [entry for entry in jobs.values() if job["array"] and entry["array"] == job["array"]]
    if not tasks:
        settle(jobs, name)
        for entry in [
            entry for entry, other in jobs.items() if name in (entry, other["array"]) and not keeps_history()
        ]:
            del jobs[entry]
    elif all(entry["state"] == "X" for entry in tasks):
        end(jobs, job["array"], max(1 if entry["exit"] is None else entry["exit"] for entry in tasks))


def settle(jobs: Jobs, name: str) -> None:
    """Release the jobs that waited for a job that has ended, or delete them and the jobs that depend on them."""
    status = jobs[name]["exit"]
    for other, job in list(jobs.items()):
        for kind, need in [entry for entry in job["depend"] if entry[1] == name]:
            if {"afterok": status == 0, "afternotok": bool(status), "afterany": status is not None}[kind]:
                job["depend"] = [entry for entry in job["depend"] if entry[1] != need]
            else:
                end(jobs, other, None)


def keeps_history() -> bool:
    return (FOLDER / "history").exists()


def find_job(jobs: Jobs, command: str, name: str) -> dict[str, Any]:
    if name not in jobs:
        raise RefusalError(f"{command}: Unknown Job Id {name}", 153)
    return jobs[name]


@contextmanager
def continue_after_errors() -> Iterator[None]:
    """Continue with the other jobs after an error of one of them, which is printed and sets the exit status."""
    try:
        yield
    except RefusalError as refusal:
        print(refusal, file=sys.stderr)
        failed.append(refusal.status)


failed: list[int] = []


def qstat(words: list[str]) -> None:
    flags, names = getopt.getopt(words, "xft")
    flags = {flag for flag, _ in flags}
    if "-x" in flags and not keeps_history():
        raise RefusalError("qstat: PBS is not configured to maintain job history", 1)
    jobs = read()
    for name in names:
        with continue_after_errors():
            if find_job(jobs, "qstat", name)["state"] == "F" and "-x" not in flags:
                raise RefusalError(f"qstat: {name} Job has finished, use -x to obtain historical job information", 35)
            for entry in (name, *(entry for entry in jobs if "-t" in flags and jobs[entry]["array"] == name)):
                print(
                    f"Job Id: {entry}\n"
                    + "".join(f"    {key} = {value}\n" for key, value in job_description(jobs[entry]).items())
                )


def job_description(job: dict[str, Any]) -> dict[str, Any]:
    needs = ",".join(f"{kind}:{need}@srv" for kind, need in job["depend"])
    holds = "u" * job["hold"] + "s" * bool(needs)
    result = {"Job_Name": job["given"].get("-N", "STDIN"), "Hold_Types": holds or "n"}
    result["job_state"] = "H" if job["state"] == "Q" and holds else job["state"]
    maybe = {"depend": needs or None, "stime": job.get("stime"), "Exit_status": job["exit"]}
    return result | {key: value for key, value in maybe.items() if value is not None}


def qrls(names: list[str]) -> None:
    with server() as jobs:
        for name in names:
            find_job(jobs, "qrls", name)["hold"] = False


def qrerun(names: list[str]) -> None:
    if "PBS_OPERATOR" not in os.environ:
        raise RefusalError(f"qrerun: Unauthorized Request  {names[0]}", 159)
    with server() as jobs:
        for name in names:
            find_job(jobs, "qrerun", name)["asked"] = "qrerun"


def qdel(names: list[str]) -> None:
    for name in names:
        with continue_after_errors(), server() as jobs:
            if find_job(jobs, "qdel", name)["state"] == "F":
                raise RefusalError(f"qdel: Job has finished {name}", 35)
            for entry in [entry for entry, job in jobs.items() if name in (entry, job["array"])]:
                if jobs.get(entry, {}).get("state") == "R":
                    jobs[entry]["asked"] = "qdel"
                elif "[]" not in entry:
                    end(jobs, entry, None)


def qsig(words: list[str]) -> None:
    [(_, name)], jobs = getopt.getopt(words, "s:")
    for job in jobs:
        send_signal(find_job(read(), "qsig", job)["session"], getattr(signal, name))


def send_signal(session: int, number: int) -> None:
    """Send a signal to all processes of the session, to its leader last."""
    result = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if stat.read_text().rpartition(")")[2].split()[3] == str(session):
                result.append(int(stat.parent.name))
    for pid in sorted(result, key=lambda pid: pid == session):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


if __name__ == "__main__":
    with continue_after_errors():
        globals()[sys.argv[1]](sys.argv[2:])
    sys.exit(failed[-1] if failed else 0)
