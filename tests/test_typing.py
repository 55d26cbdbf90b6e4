"""Types for users: programs that use the public names pass `mypy --strict`, and mistakes in them are found."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import anyrank
from anyrank import Field, Program, Scalar, State, World

SOURCE = Path(anyrank.__file__).parents[1]
#: A line that ends with a comment of this form must have an error with this code, and no other line may have one.
EXPECTED = r"^.*# error: ([\w-]+)$"
PROGRAM = """
from typing import Any

import numpy as np

import anyrank
import anyrank.exact
from anyrank import Callback, Field, Kernel, Program, State, Table, advance, exact, param
from anyrank.elementary import sin


class Plate(State):
    T: Field
    hits: int
    words: Table


def diffuse(new: np.ndarray, T: np.ndarray, nu: float) -> None:
    new[...] = T[1:-1] + nu * (T[:-2] - 2 * T[1:-1] + T[2:])


DIFFUSE = Kernel(diffuse)


class Watch(Callback):
    def after_step(self, state: State) -> None:
        print(state.step, state.T)


class Heat(Program[Plate]):
    n: int = param(64, "points", ge=1)

    def declare(self, state: Plate) -> None:
        state.field("T", (self.n,), halo=1)
        state.scalar("hits", 0)
        state.add(Table("words", state.world, {"word": "text"}))

    def step(self, state: Plate) -> None:
        state.T.advance(DIFFUSE, 0.1)
        advance([state.T], DIFFUSE, 0.1)
        state.hits += state.world.sum(1)
        state.hits = "many"  # error: assignment
        state.T.advence(DIFFUSE)  # error: attr-defined

    def result(self, state: Plate) -> dict[str, Any]:
        warmest: float = exact.max(state.T)
        wave: np.ndarray = sin(0.5)
        total: str = anyrank.exact.sum(state.T)  # error: assignment
        rows: str = state.words.rows  # error: assignment
        return {"warmest": warmest, "rows": rows, "hits": state.hits}


class Plain(Program):
    def declare(self, state: State) -> None:
        state.field("u", (8,))

    def step(self, state: State) -> None:
        state.u[...] = state.u[...] / 2


run = anyrank.run(Heat(n=8), ranks=1)
digest: int = run.digest  # error: assignment
anyrank.run(Plain())
"""


def test_types_of_public_names_accept_programs_and_find_mistakes(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    # anyrank is found at its source, as in an editable installation, but its own files are not reported.
    settings = "[mypy]\nstrict = True\n[mypy-anyrank.*]\nfollow_imports = silent\n"
    (tmp_path / "mypy.ini").write_text(f"{settings}[mypy-mpi4py.*,h5py.*,scipy.*]\nignore_missing_imports = True\n")
    words = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "program.py"]
    done = subprocess.run(words, cwd=tmp_path, env={"MYPYPATH": str(SOURCE)}, capture_output=True, text=True)
    found = re.findall(r"^program\.py:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.M)
    lines = enumerate(PROGRAM.splitlines(), 1)
    assert found == [(str(n), match[1]) for n, line in lines if (match := re.match(EXPECTED, line))], done.stdout


def test_package_is_marked_as_typed():
    assert (SOURCE / "anyrank" / "py.typed").exists() and find_spec("anyrank")


def test_program_with_a_state_class_gets_an_instance_of_it():
    class Plate(State):
        T: Field

        def total(self) -> float:
            return float(self.T.local.sum())

    class Heat(Program[Plate]):
        pass

    class Hotter(Heat):
        pass

    assert Hotter.state_type is Heat.state_type is Plate and Program.state_type is State
    state = Heat.state_type(World())
    state.field("T", (4,))
    state.T[...] = 2.0
    assert state.total() == 8.0 and isinstance(state.T, Field)
    assert isinstance(state.scalar("hits", 1), Scalar)
