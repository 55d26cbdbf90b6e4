"""A scheduler and a folder for tests that submit runs and look at the results."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from ranks import TAG, run_anyrank, run_command, start_process
from slurm import wait_until

GATED = Path(__file__).with_name("gated.py")
STORM = ("--rows", 12, "--columns", 8, "--steps", 200, "--no-picture")


def digest_of_storm(folder: Path) -> str:
    """The digest of an uninterrupted run of the storm."""
    assert run_anyrank("run", f"{GATED}:Storm", *STORM, "--out", folder).returncode == 0
    return str(json.loads((folder / "summary.json").read_text())["digest"])


class Cluster:
    """`environment` holds the variables that let a process use the scheduler; `on` is the scheduler's name."""

    def __init__(self, on: str, folder: Path, environment: Mapping[str, str]):
        self.on, self.folder, self.environment = on, folder, environment
        self.keeper: Any = None

    def gate(self, name: str) -> Path:
        """A file that delays runs until it is removed."""
        path = self.folder / f"{name}.gate"
        path.touch()
        return path

    def open(self, gate: Path, *runs: Path) -> None:
        """Remove the gate once the first attempt of each run has ended; returns at once."""

        def wait() -> None:
            wait_until(lambda: all(self.attempts(run)[:1] not in ([], ["…"]) for run in runs), 120, lambda: f"{runs}")
            gate.unlink()

        Thread(target=wait, daemon=True).start()

    def anyrank(self, *words: Any, status: int = 0) -> str:
        """What `anyrank` prints; the exit status must be `status`."""
        done = run_anyrank(*words, env=self.environment, cwd=self.folder)
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stderr if status else done.stdout

    def run(self, *words: Any) -> str:
        """What a command prints; its exit status must be 0."""
        done = run_command(*words, env=self.environment, cwd=self.folder)
        assert done.returncode == 0, f"{words}: {done.returncode} {done.stdout}{done.stderr}"
        return str(done.stdout).strip()

    def submit(self, *words: Any) -> str:
        return self.anyrank("submit", *words, "--on", self.on)

    def storm(self, out: str, *words: Any, gate: Path | None = None) -> Path:
        """Submit a storm and return its folder."""
        self.submit(f"{GATED}:Storm", *STORM, *(("--gate", gate) if gate else ()), *words, "--out", out)
        return self.folder / out

    def study(self, name: str, text: str, *words: Any, **values: Any) -> Path:
        """Submit a study and return its folder; `{out}`, `{program}` and other values are filled into the text."""
        file = self.folder / f"{name}.toml"
        file.write_text(text.format(out=name, program=GATED, **values))
        self.submit(file.name, *words)
        return self.folder / name

    def job(self, run: Path) -> str:
        return (run / "job" / "id").read_text().split()[0]

    def attempts(self, run: Path) -> list[str]:
        """The exit statuses of the attempts, `…` for one that still runs."""
        file = run / "job" / "attempts"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        result = {line[0]: "…" for line in lines} | {line[0]: line[2] for line in lines if line[1] == "ended"}
        return list(result.values())

    def standing(self, run: Path) -> dict[str, dict[str, Any]]:
        return {status["name"]: status for status in json.loads(self.anyrank("status", run, "--json"))}

    def summary(self, run: Path, timeout: float = 120) -> dict[str, Any]:
        """Wait until the run has finished and return its summary."""
        file = run / "summary.json"
        wait_until(
            lambda: file.exists() and '"finished": true' in file.read_text(), timeout, lambda: self.log_text(run)
        )
        return json.loads(file.read_text())

    def finished(self, run: Path, timeout: float = 120) -> dict[str, Any]:
        """The same, after its job script has recorded the end."""
        wait_until(lambda: self.attempts(run)[-1:] == ["0"], timeout, lambda: self.log_text(run))
        return self.summary(run)

    def wait_until_started(self, run: Path, attempt: int = 1, timeout: float = 120) -> None:
        """Wait until an attempt has made a step."""

        def has_steps() -> bool:
            events = run / "events.jsonl"
            return events.exists() and events.read_text().count('"event": "start"') >= attempt

        wait_until(has_steps, timeout, lambda: self.log_text(run))

    def tried(self, run: Path, *statuses: str, timeout: float = 120) -> None:
        """Wait until the attempts have ended with these exit statuses."""
        wait_until(
            lambda: self.attempts(run) == list(statuses), timeout, lambda: f"not {statuses}: {self.log_text(run)}"
        )

    def log_text(self, run: Path) -> str:
        """The contents of the run's files, for messages."""
        files = [file for file in (*run.glob("job/*"), *run.glob("events.jsonl")) if file.is_file()]
        return "\n".join(f"--- {file}\n{file.read_text(errors='replace')}" for file in files)


class Pbs(Cluster):
    """The PBS of fake_pbs.py, state in the folder `pbs`; jobs find its commands on the PATH of their login shell."""

    def __init__(self, folder: Path, tag: str):
        self.state = folder / "pbs"
        (self.state / "home").mkdir(parents=True)
        (self.state / "home" / ".profile").write_text(f"PATH={self.state}/bin:$PATH\n")
        commands = ("qsub", "qstat", "qdel", "qrls", "qsig", "qrerun")
        path = _make(self.state, commands, f"{TAG}={tag} FAKE_PBS={self.state} {sys.executable} -S {_fake('pbs')}")
        super().__init__("pbs", folder, {"PATH": path})

    def gone(self, job: str) -> None:
        """Wait until the server has forgotten a job."""
        asked = ("sh", "-c", f"qstat {job} 2>&1; true")
        wait_until(lambda: f"Unknown Job Id {job}" in self.run(*asked), 30, lambda: job, 0.3)


class Condor(Cluster):
    """The HTCondor of fake_condor.py, with its state in the folder `condor`."""

    def __init__(self, folder: Path, tag: str):
        state = folder / "condor"
        commands = ("condor_submit", "condor_submit_dag", "condor_rm", "condor_vacate_job")
        path = _make(state, commands, f"{TAG}={tag} FAKE_CONDOR={state} {sys.executable} {_fake('condor')}")
        super().__init__("htcondor", folder, {"PATH": path, "HOME": str(folder)})

    def running(self, log: Path) -> str:
        """The id of the job that a log shows as started last."""
        begun = re.findall(r"^001 \((\d+)\.(\d+)", log.read_text(), re.MULTILINE)
        return ".".join(str(int(number)) for number in begun[-1])


@contextmanager
def run_fake(kind: type[Pbs] | type[Condor], folder: Path) -> Iterator[Any]:
    """Make one of the fakes; its processes and jobs carry the tag of a process, and end with the block."""
    with start_process("sleep", "infinity") as keeper:
        cluster = kind(folder, keeper.tag)
        cluster.keeper = keeper
        yield cluster


def _fake(name: str) -> Path:
    return Path(__file__).with_name(f"fake_{name}.py")


def _make(state: Path, commands: tuple[str, ...], words: str) -> str:
    """Write commands into a folder that call the given words; return a PATH that includes the folder."""
    (state / "bin").mkdir(parents=True)
    for name in commands:
        (state / "bin" / name).write_text(f'#!/bin/sh\nexec env {words} {name} "$@"\n')
        (state / "bin" / name).chmod(0o755)
    return f"{state}/bin:/usr/bin:/bin"
