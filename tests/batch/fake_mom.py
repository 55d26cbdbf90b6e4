"""What pbs_mom does for a job of fake_pbs.py: its shell, environment, wall time and output."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fake_pbs import FOLDER, HOST, chunks, end, read, send_signal, server

#: Seconds between TERM and KILL, and the delay after which a wall time is enforced (pbs_mom: up to 10 s and more).
KILL_DELAY, LATE = 10.0, 2.0


def mom(name: str) -> None:
    """Run a job: the shell that -S names, or the login shell, reads the path of the script's copy from stdin."""
    with server() as jobs:
        job = jobs[name]
    shell, spool = job["given"].get("-S", "/bin/bash"), FOLDER / f"{name}.OU"
    with spool.open("w") as out, suppress(BrokenPipeError):
        streams = {"stdin": subprocess.PIPE, "stdout": out, "stderr": out, "text": True, "umask": 0o077}
        where = {"cwd": FOLDER / "home", "env": environment(name, job), "start_new_session": True}
        child = subprocess.Popen([f"-{Path(shell).name}"], executable=shell, **where, **streams)
        child.stdin.write(f"{job['script']}\n")
        child.stdin.close()
    with server() as jobs:
        jobs[name]["session"] = child.pid
    asked = watch(name, child, job["given"].get("-l walltime", "1:00:00"))
    output = (
        job["given"]
        .get("-o", f"{job['given'].get('-N', 'STDIN')}.o{name}")
        .replace("^array_index^", job["env"].get("PBS_ARRAY_INDEX", ""))
    )
    Path(job["env"]["PBS_O_WORKDIR"], output).write_text(spool.read_text())
    with server() as jobs:
        if asked == "qrerun":
            jobs[name]["state"] = "Q"
        else:
            end(jobs, name, child.returncode if child.returncode >= 0 else 256 - child.returncode)


def environment(name: str, job: dict[str, Any]) -> dict[str, str]:
    """The job's environment, without qsub's. Tests find the job's processes by the tag."""
    nodes = FOLDER / f"{name}.nodes"
    nodes.write_text(f"{HOST}\n" * chunks(job, "mpiprocs"))
    cpus = str(chunks(job, "ncpus"))
    own = {"PBS_ENVIRONMENT": "PBS_BATCH", "PBS_JOBID": name, "PBS_NODEFILE": str(nodes), "PBS_QUEUE": "workq"}
    own |= {"OMP_NUM_THREADS": cpus, "NCPUS": cpus, "PATH": "/bin:/usr/bin", "SHELL": "/bin/bash", "TMPDIR": "/tmp"}
    return {**job["env"], **own, "HOME": str(FOLDER / "home"), "ANYRANK_TEST_TAG": os.environ["ANYRANK_TEST_TAG"]}


def watch(name: str, child: subprocess.Popen[str], walltime: str) -> str:
    """Wait for the end of a job and stop it when needed; returns what was requested of it."""
    hours, minutes, seconds = map(int, walltime.split(":"))
    until, killing, asked = time.monotonic() + hours * 3600 + minutes * 60 + seconds + LATE, math.inf, ""
    while child.poll() is None:
        now, asked = time.monotonic(), read()[name]["asked"]
        if killing == math.inf and (asked == "qdel" or now > until):
            send_signal(child.pid, signal.SIGTERM)
            killing = now + KILL_DELAY
        if asked == "qrerun" or now > killing:
            send_signal(child.pid, signal.SIGKILL)
        time.sleep(0.1)
    send_signal(child.pid, signal.SIGKILL)
    return asked


if __name__ == "__main__":
    mom(sys.argv[1])
