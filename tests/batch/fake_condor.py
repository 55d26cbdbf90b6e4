"""A fake HTCondor whose commands behave like HTCondor's, as far as jobs can see.

After the manual (condor_submit, condor_submit_dag, condor_rm, condor_vacate_job, DAGMan). There are no daemons: every
job has a process like condor_shadow's and condor_starter's, every DAG a process like DAGMan's. A job gets an almost
empty environment. When its process has ended, all processes that it started are killed.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

FOLDER = Path(os.environ.get("FAKE_CONDOR", "."))
RM, VACATE = "rm", "vacate"
USAGE = "".join(f"\t\tUsr 0 00:00:00, Sys 0 00:00:00  -  Run {where} Usage\n" for where in ("Remote", "Local"))
HOST = "host: <127.0.0.1:9618>\n"


def new_cluster() -> int:
    for number in range(1, 1000):
        with suppress(FileExistsError):
            (FOLDER / str(number)).mkdir()
            return number
    raise OverflowError


def write_event(log: Path, job: str, code: str, text: str) -> None:
    """Write an event into a log."""
    cluster, process = map(int, job.split("."))
    head = f"{code} ({cluster:03}.{process:03}.000) {time.strftime('%Y-%m-%d %H:%M:%S')}"
    with log.open("a") as file:
        file.write(f"{head} {text}...\n")


def begin(*words: str) -> None:
    with (FOLDER / "log").open("a") as log:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": log}
        subprocess.Popen([sys.executable, __file__, *words], start_new_session=True, **streams)


def write_whole(file: Path, text: str) -> None:
    """Write a file that other processes wait for: they never see it empty."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    part.write_text(text)
    part.rename(file)


def read_request(job: str) -> str:
    file = FOLDER / job.replace(".", "/")
    return file.read_text() if file.exists() else ""


def condor_rm(*jobs: str) -> None:
    for job in jobs:
        write_whole(FOLDER / job.replace(".", "/"), RM)


def condor_vacate_job(*jobs: str) -> None:
    for job in jobs:
        write_whole(FOLDER / job.replace(".", "/"), VACATE)


def condor_submit(*words: str) -> None:
    jobs = submit(Path(words[-1]), [word for word in words[:-1] if "=" in word])
    cluster = jobs[0].partition(".")[0]
    print(f"{jobs[0]} - {jobs[-1]}" if "-terse" in words else f"{len(jobs)} job(s) submitted to cluster {cluster}.")


def submit(file: Path, given: list[str]) -> list[str]:
    """Start the jobs of a submit file and return their ids; values may contain `$(NAME)` and `$(NAME:DEFAULT)`."""
    lines = re.sub(r"\\\n", "", file.read_text()).splitlines()
    commands = {k.strip().lower(): v.strip() for k, _, v in (line.partition("=") for line in lines if line[:1] != "#")}
    commands |= {key.lower(): value for key, _, value in (word.partition("=") for word in given)}
    if not Path(commands["executable"]).is_file():
        sys.exit(f"ERROR: Executable file {commands['executable']} does not exist")
    [queue] = [line.split(maxsplit=1)[1:] for line in lines if re.match("queue( |$)", line)]
    many = re.fullmatch(r"(\w+) in \((.*)\)", queue[0]) if queue else None
    items = re.split(", *", many[2]) if many else [""] * int(queue[0] if queue else 1)
    cluster, jobs = new_cluster(), []
    for process, item in enumerate(items):
        own = {"clusterid": str(cluster), "procid": str(process), **({many[1]: item} if many else {})}
        settings = {key: expand(value, {**commands, **own}) for key, value in commands.items()}
        jobs.append(f"{cluster}.{process}")
        write_event(Path(settings["log"]), jobs[-1], "000", f"Job submitted from {HOST}")
        begin("shadow", jobs[-1], *(f"{key}={value}" for key, value in settings.items() if key))
    return jobs


def expand(text: str, values: dict[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        return expand(values.get(match[1].lower(), match[2] or ""), values)

    text = re.sub(r"\$ENV\((\w+)\)", lambda match: os.environ.get(match[1], "UNDEFINED"), text)
    return re.sub(r"\$\((\w+)(?::([^)]*))?\)", value, text)


def shadow(job: str, *words: str) -> None:
    """Run a job until it leaves the queue."""
    import classad2

    settings = dict(word.split("=", 1) for word in words)
    log, remove = Path(settings["log"]), classad2.ExprTree(settings.get("on_exit_remove", "True"))
    starts = 0
    while read_request(job) != RM:
        starts += 1
        write_event(log, job, "001", f"Job executing on {HOST}")
        code = starter(job, settings)
        if read_request(job) == VACATE:
            write_event(log, job, "004", f"Job was evicted.\n\t(0) CPU times\n{USAGE}\tReason: Job vacated\n")
            (FOLDER / job.replace(".", "/")).unlink()
        elif not read_request(job):
            ended = (
                {"ExitBySignal": True, "ExitSignal": -code} if code < 0 else {"ExitBySignal": False, "ExitCode": code}
            )
            how = (
                f"(1) Normal termination (return value {code})\n"
                if code >= 0
                else f"(0) Abnormal termination (signal {-code})\n"
            )
            if remove.eval(classad2.ClassAd({"JobStatus": 2, "NumJobStarts": starts, **ended})) is True:
                write_event(log, job, "005", f"Job terminated.\n\t{how}{USAGE}")
                write_whole(FOLDER / f"{job}.ended", str(code))
                return
            write_event(log, job, "004", f"Job was evicted.\n\t(0) Job terminated and was requeued\n{USAGE}\t{how}")
        time.sleep(0.2)
    write_event(log, job, "009", "Job was aborted.\n\tvia condor_rm (by user user)\n")
    write_whole(FOLDER / f"{job}.ended", "-9")


def starter(job: str, settings: dict[str, str]) -> int:
    """Run the job once; its exit status, or minus its signal. Signals reach its first process only."""
    mark = f"_CONDOR_ANCESTOR_{os.getpid()}"
    more = dict(pair.split("=", 1) for pair in shlex.split(settings.get("environment", "").strip('"')))
    tag = {"ANYRANK_TEST_TAG": os.environ["ANYRANK_TEST_TAG"]}  # tests end the process by this tag
    environment = {"_CONDOR_SLOT": "slot1", "OMP_NUM_THREADS": settings["request_cpus"], mark: "1", **tag, **more}
    with Path(settings["output"]).open("w") as output:
        command = [str(Path(settings["executable"]).absolute()), *shlex.split(settings.get("arguments", "").strip('"'))]
        child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    killing = 0.0
    while child.poll() is None:
        if read_request(job) and not killing:
            child.send_signal(signal.SIGTERM)
            killing = time.monotonic() + float(settings.get("job_max_vacate_time", 10))
        if killing and time.monotonic() > killing:
            child.kill()
        time.sleep(0.05)
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark.encode() in environ.read_bytes():
                os.kill(int(environ.parent.name), signal.SIGKILL)
    return child.returncode


def condor_submit_dag(*words: str) -> None:
    cluster = new_cluster()
    begin("dagman", f"{cluster}.0", words[-1])
    print(f"Submitting job(s).\n1 job(s) submitted to cluster {cluster}.")


def dagman(job: str, file: str) -> None:
    """Run the nodes of a DAG after the nodes that they need, and again as RETRY says; one DAGMan per file."""
    log = Path(f"{file}.dagman.log")
    Path(f"{file}.lock").touch(exist_ok=False)
    write_event(log, job, "000", f"Job submitted from {HOST}")
    write_event(log, job, "001", f"Job executing on {HOST}")
    code = max(nodes(job, Path(file)), default=0)
    Path(f"{file}.lock").unlink()
    if read_request(job) == RM:
        write_event(log, job, "009", "Job was aborted.\n\tvia condor_rm (by user user)\n")
    else:
        write_event(log, job, "005", f"Job terminated.\n\t(1) Normal termination (return value {code})\n{USAGE}")


def nodes(job: str, file: Path) -> Iterator[int]:
    """Run the nodes; yields 1 for each that fails."""
    lines = [line.split() for line in file.read_text().splitlines() if line and line[0] != "#"]
    settings_of = {(words[0], words[1]): words[2:] for words in lines if words[0] != "PARENT"}
    arrows = [words[1:] for words in lines if words[0] == "PARENT"]
    needs = {
        (a, b) for words in arrows for a in words[: words.index("CHILD")] for b in words[words.index("CHILD") + 1 :]
    }
    left, running, home = {name for word, name in settings_of if word == "JOB"}, {}, Path.cwd()
    tries = dict.fromkeys(left, 0)
    while (
        ready := {name for name in left if not read_request(job) and not any(child == name for _, child in needs)}
        or running
    ):
        for name in ready - running.keys():
            submit_file, *folder = settings_of["JOB", name]
            os.chdir(home.joinpath(*folder[1:]))
            [running[name]] = submit(Path(submit_file), shlex.split(" ".join(settings_of.get(("VARS", name), []))))
            left, tries[name] = left - {name}, tries[name] + 1
        time.sleep(0.1)
        for name, process in [
            (name, process) for name, process in running.items() if (FOLDER / f"{process}.ended").exists()
        ]:
            code, many, *unless = (FOLDER / f"{process}.ended").read_text(), *settings_of.get(("RETRY", name), ["0"])
            del running[name]
            if code == "0":
                needs = {pair for pair in needs if pair[0] != name}
            elif tries[name] <= int(many) and code not in unless:
                left = left | {name}
            else:
                yield 1
        condor_rm(*running.values() if read_request(job) == RM else ())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
