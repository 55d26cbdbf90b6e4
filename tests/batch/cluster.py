"""A scheduler and a folder in which tests submit runs to it, and look at what came of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ranks import run_anyrank
from slurm import wait_until

GATED = Path(__file__).with_name("gated.py")
STORM = ("--rows", 12, "--columns", 8, "--steps", 200, "--no-picture")


def digest_of_storm(folder: Path) -> str:
    """The digest of the storm that nothing interrupts."""
    assert run_anyrank("run", f"{GATED}:Storm", *STORM, "--out", folder).returncode == 0
    return str(json.loads((folder / "summary.json").read_text())["digest"])


class Cluster:
    """Its `environment` is what a process needs to meet the scheduler, whose name is `on`."""

    def __init__(self, on: str, folder: Path, environment: Mapping[str, str]):
        self.on, self.folder, self.environment = on, folder, environment
        self.gates: list[Path] = []

    def gate(self, name: str) -> Path:
        """A file that holds runs up until it is removed, at the latest by the end."""
        path = self.folder / f"{name}.gate"
        path.touch()
        self.gates.append(path)
        return path

    def open(self) -> None:
        """Remove what holds runs up."""
        for gate in self.gates:
            gate.unlink(missing_ok=True)

    def anyrank(self, *words: Any, status: int = 0) -> str:
        """What `anyrank` prints; it must end with that status."""
        done = run_anyrank(*words, env=self.environment, cwd=self.folder)
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stderr if status else done.stdout

    def submit(self, *words: Any) -> str:
        return self.anyrank("submit", *words, "--on", self.on)

    def storm(self, out: str, *words: Any, gate: Path | None = None) -> Path:
        """Submit a storm; its folder."""
        self.submit(f"{GATED}:Storm", *STORM, *(("--gate", gate) if gate else ()), *words, "--out", out)
        return self.folder / out

    def study(self, name: str, text: str, *words: Any, **values: Any) -> Path:
        """Submit a study, in whose text `{out}`, `{program}` and other values are filled in; its folder."""
        file = self.folder / f"{name}.toml"
        file.write_text(text.format(out=name, program=GATED, **values))
        self.submit(file.name, *words)
        return self.folder / name

    def job(self, run: Path) -> str:
        return (run / "job" / "id").read_text().split()[0]

    def attempts(self, run: Path) -> list[str]:
        """The exit statuses of the attempts that have ended, and `…` for one that has not."""
        file = run / "job" / "attempts"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        found = {line[0]: "…" for line in lines} | {line[0]: line[2] for line in lines if line[1] == "ended"}
        return list(found.values())

    def standing(self, run: Path) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in json.loads(self.anyrank("status", run, "--json"))}

    def finished(self, run: Path, timeout: float = 60) -> dict[str, Any]:
        """The summary of a run, when it is finished and its script has seen that."""

        def done() -> bool:
            file = run / "summary.json"
            return self.attempts(run)[-1:] == ["0"] and json.loads(file.read_text())["finished"]

        wait_until(done, timeout, lambda: self.told(run))
        return json.loads((run / "summary.json").read_text())

    def started(self, run: Path, attempt: int = 1, timeout: float = 60) -> None:
        """Wait until an attempt has begun to make steps."""

        def there() -> bool:
            events = run / "events.jsonl"
            return events.exists() and events.read_text().count('"event": "start"') >= attempt

        wait_until(there, timeout, lambda: self.told(run))

    def tried(self, run: Path, *statuses: str, timeout: float = 60) -> None:
        """Wait until so many attempts have ended, with these exit statuses."""
        wait_until(lambda: self.attempts(run) == list(statuses), timeout, lambda: f"not {statuses}: {self.told(run)}")

    def told(self, run: Path) -> str:
        """What the run's files tell."""
        files = [file for file in (*run.glob("job/*"), *run.glob("events.jsonl")) if file.is_file()]
        return "\n".join(f"--- {file}\n{file.read_text(errors='replace')}" for file in files)
