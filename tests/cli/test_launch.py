"""Which process starts ranks: a single process, also in a shell under a launcher; one process of several is a rank."""

from __future__ import annotations

import json
import re

import pytest
from ranks import anyrank_command, mpiexec, run_anyrank

from anyrank.launcher import rank_command, words_of

#: Environments of shells that look like a launch of one task; the first lacks the connection to its launcher.
SHELLS = {
    "PMI": {"PMI_SIZE": "1", "PMI_RANK": "0"},
    "PMI with a descriptor": {"PMI_SIZE": "1", "PMI_RANK": "0", "PMI_FD": "99", "PMI_JOBID": "7.0"},
    "Open MPI": {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"},
    "srun --pty": {"SLURM_NTASKS": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
}


@pytest.mark.parametrize("shell", SHELLS)
def test_run_in_a_shell_of_one_task_starts_ranks(tmp_path, shell):
    done = run_anyrank("run", "pi", "--points", 100, "--out", tmp_path / "run", ranks=2, env=SHELLS[shell])
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/summary.json").read_text())["ranks"] == 2


@pytest.mark.parametrize("words", [(), ("-n", 1)])
def test_run_under_mpiexec_of_one_task_is_a_rank(tmp_path, words):
    done = mpiexec(1, *anyrank_command("run", "pi", "--points", 100, "--out", tmp_path / "run", *words))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/summary.json").read_text())["ranks"] == 1


def test_resume_under_mpiexec_of_one_task_is_a_rank(tmp_path):
    """A launch of one rank has one rank, although the run had two."""
    stopped = run_anyrank("run", "weather", "--steps", 4, "--out", tmp_path / "run", "--stop-at", 1, ranks=2)
    assert stopped.returncode == 75, stopped.stderr
    assert mpiexec(1, *anyrank_command("resume", tmp_path / "run")).returncode == 0
    assert json.loads((tmp_path / "run/summary.json").read_text())["ranks"] == 1


@pytest.mark.parametrize("verb", ["verify", "scale", "restarts"])
def test_verbs_in_a_shell_of_one_task_start_ranks(tmp_path, verb):
    words = {
        "verify": ("verify", "pi", "--points", 100, "--quick", "--ranks", "2"),
        "scale": ("scale", "strong", "weather", "--steps", 3, "--ranks", "2", "--repeat", 1),
        "restarts": ("run", "pi", "--points", 100, "-n", 2, "--max-restarts", 1),
    }
    done = run_anyrank(*words[verb], "--out", tmp_path / "out", env=SHELLS["PMI"])
    assert done.returncode == 0, done.stdout + done.stderr


TEXTS = {"colon": ":", "empty": "", "lines": "a\nb\n", "letters": "κ Δt ☃", "signs": "%3A '\"$HOME `*`\\", "flag": "-n"}
SAID = """
from anyrank import Program, State, param


class Said(Program):
    steps: int = param(1, "steps")
    note: str = param("", "a text")

    def declare(self, state: State) -> None:
        state.scalar("x", 0)

    def step(self, state: State) -> None:
        state.x += 1

    def result(self, state: State) -> dict:
        return {"note": self.note}
"""


@pytest.mark.parametrize("case", TEXTS)
def test_rank_words_of_any_text_reach_the_ranks(tmp_path, case):
    (tmp_path / "said.py").write_text(SAID)
    done = run_anyrank("run", "said.py", f"--note={TEXTS[case]}", "--out", tmp_path / ":", ranks=2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / ":/result.json").read_text()) == {"note": TEXTS[case]}
    assert json.loads((tmp_path / ":/events.jsonl").read_text().splitlines()[0])["warnings"] == []


def test_rank_words_of_a_single_colon_reach_the_ranks(tmp_path):
    (tmp_path / "said.py").write_text(SAID)
    done = run_anyrank("run", "said.py", "--note", ":", "--out", ":", ranks=2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / ":/result.json").read_text()) == {"note": ":"}
    done = run_anyrank("verify", "said.py", "--note", ":", "--quick", "--ranks", "1,2", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    study = ("scale", "strong", "said.py", "--note", ":", "--steps", 3, "--ranks", "2", "--repeat", 1, "--out", "of:")
    assert run_anyrank(*study, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("words", [["run", "pi", "--out", "runs/a-1"], ["a", "", ":", "%", "%3A", "κ\n"], []])
def test_rank_command_words_are_parsed_to_the_same(words):
    command = rank_command(words)
    assert not any(":" in word or not word for word in command[1:])
    assert words_of(command[3:]) == words
    assert (command[3:] == words) == all(re.fullmatch(r"[\w/.=-]+", word, re.ASCII) for word in words)
