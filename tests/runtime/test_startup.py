"""Differences between ranks are reported with values and ranks before any work."""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace

import pytest
from ranks import anyrank_command, check_collective, mpiexec, run_anyrank

from anyrank import launcher
from anyrank.errors import UsageError
from anyrank.kernel import BODIES
from anyrank.keyed import Table
from anyrank.programs.pi import Pi
from anyrank.provenance import provenance, remember
from anyrank.runtime import startup
from anyrank.runtime.options import Options
from anyrank.runtime.startup import LISTED, Rank, check_ranks, check_state
from anyrank.state import State


def change_last_rank(world, monkeypatch, **facts):
    """Set the first value of each fact on all ranks except the last, and the second on the last."""

    def remembered(world, **gathered):
        last = world.rank == world.size - 1
        known = {**remember(world, **gathered), **{name: values[last] for name, values in facts.items()}}
        return {name: fact for name, fact in known.items() if fact is not None}

    monkeypatch.setattr(startup, "remember", remembered)


def warnings_of(world) -> list[str]:
    result = check_ranks(world, Pi(), "pi", Options())
    check_collective(world, result == world.bcast(result), "the warnings are the same on all ranks")
    return result


def refusal_of(world, program: Pi | None = None, **options) -> str:
    with pytest.raises(UsageError) as caught:
        check_ranks(world, program or Pi(), "pi", Options(**options))
    text = str(caught.value)
    check_collective(world, caught.value.collective and text == world.bcast(text), text)
    return text


@pytest.mark.ranks(1, 3, exact=True)
def test_check_ranks_alike_gives_nothing(world, monkeypatch):
    calls = []
    for name in ("allreduce", "gather", "bcast", "barrier"):
        call = getattr(world, name)
        monkeypatch.setattr(world, name, lambda *a, call=call, name=name: (calls.append(name), call(*a))[1])
    result = check_ranks(world, Pi(), "pi", Options())
    monkeypatch.undo()
    check_collective(world, result == [])
    once = ["gather"] if world.size == 1 else ["gather", "barrier", "allreduce"]
    check_collective(world, calls == once, f"{calls}: the hosts, the clocks, and one comparison of all else")
    hosts = provenance(world, "anyrank run pi").get("hosts")
    whole = {os.uname().nodename: "0" if world.size == 1 else "0-2"}
    check_collective(world, hosts == (whole if world.rank == 0 else None))


@pytest.mark.ranks(3)
@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"numpy": ("2.1.3", "1.26.4")}, "numpy: 2.1 on ranks 0-1, 1.26 on rank 2"),
        ({"numba": ("0.60.0", "0.61.0")}, "numba: 0.60 on ranks 0-1, 0.61 on rank 2"),
        ({"cupy": ("13.6.0", "14.2.0")}, "cupy: 13.6 on ranks 0-1, 14.2 on rank 2"),
        ({"python": ("3.11.7", "3.9.1")}, "python: 3.11 on ranks 0-1, 3.9 on rank 2"),
        ({"implementation": ("CPython", "PyPy")}, "implementation: CPython on ranks 0-1, PyPy on rank 2"),
        ({"mpi": ("Open MPI v5, by a", "Open MPI v4, by b")}, "mpi: Open MPI v5 on ranks 0-1, Open MPI v4 on rank 2"),
        ({"anyrank_hash": ("feed" * 16, "beef" * 16)}, "anyrank's files: feedfeedfeed on ranks 0-1, beef"),
        ({"program_hash": ("feed" * 16, "beef" * 16)}, "program file: feedfeedfeed on ranks 0-1, beef"),
    ],
)
def test_check_ranks_version_differences_are_refused(world, monkeypatch, facts, line):
    change_last_rank(world, monkeypatch, **facts, host=("n1", "n2"))
    text = refusal_of(world)
    check_collective(world, f":\n  {line}" in text and "\n  host: n1 on ranks 0-1, n2 on rank 2\n" in text, text)


@pytest.mark.ranks(3)
def test_check_ranks_other_parameters_or_machines_are_refused(world, monkeypatch):
    text = refusal_of(world, Pi(points=1000 + (world.rank == 0)))
    check_collective(world, "\n  --points: 1001 on rank 0, 1000 on ranks 1-2\n" in text, text)
    if world.rank == 1:
        here = os.uname()
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="ppc64", nodename=here.nodename))
        monkeypatch.setattr(startup, "sys", SimpleNamespace(byteorder="big", argv=sys.argv))
    text = refusal_of(world)
    check_collective(world, "  byte order: little on ranks 0,2, big on rank 1\n  architecture: " in text, text)
    check_collective(world, "on ranks 0,2, ppc64 on rank 1\nStart all ranks with the same" in text, text)


@pytest.mark.ranks(2, exact=True)
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"stop_at": 3}, "--stop-at: 3 on rank 0, None on rank 1"),
        ({"checkpoint_every": "7"}, "--checkpoint-every: '7' on rank 0, 'auto' on rank 1"),
        ({"checkpoint_io": "gather"}, "--checkpoint-io: 'gather' on rank 0, 'pwrite' on rank 1"),
        ({"picture": False}, "--picture: False on rank 0, True on rank 1"),
    ],
)
def test_check_ranks_options_that_decide_calls_are_compared(world, options, line):
    text = refusal_of(world, **({} if world.rank else options))
    check_collective(world, f"\n  {line}\nStart all ranks with the same parameters, options" in text, text)


@pytest.mark.ranks(2)
def test_check_ranks_launchers_other_count_is_refused(world, monkeypatch):
    monkeypatch.setattr(launcher, "tasks", lambda: 7)
    text = refusal_of(world)
    check_collective(world, "  the launcher counts: 7 tasks, MPI 2 on ranks 0-1\n" in text, text)
    monkeypatch.setattr(launcher, "tasks", lambda: 0)
    check_collective(world, warnings_of(world) == [], "nobody counted")


@pytest.mark.ranks(3)
@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"numpy": ("2.1.0", "2.1.3")}, "numpy: 2.1.0 on ranks 0-1, 2.1.3 on rank 2"),
        ({"python": ("3.11.2", "3.11.7")}, "python: 3.11.2 on ranks 0-1, 3.11.7 on rank 2"),
        ({"numba": ("0.60.0", None)}, "numba: 0.60.0 on ranks 0-1, missing on rank 2"),
        ({"h5py": ("3.16.0", "3.10.0")}, "h5py: 3.16.0 on ranks 0-1, 3.10.0 on rank 2"),
        ({"libc": ("glibc 2.36", "glibc 2.41")}, "libc: glibc 2.36 on ranks 0-1, glibc 2.41 on rank 2"),
    ],
)
def test_check_ranks_patch_versions_give_warnings(world, monkeypatch, facts, line):
    change_last_rank(world, monkeypatch, **facts)
    check_collective(world, warnings_of(world) == [line])


@pytest.mark.ranks(3)
def test_check_ranks_settings_and_clocks_give_warnings(world, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if world.rank == 1:
        monkeypatch.setenv("OMP_NUM_THREADS", "8")
        monkeypatch.setattr(startup, "time", SimpleNamespace(time_ns=lambda: time.time_ns() + 7 * 10**9))
    result = warnings_of(world)
    expected = ["OMP_NUM_THREADS: unset on ranks 0,2, 8 on rank 1", "clock: +0 s on ranks 0,2, +7 s on rank 1"]
    check_collective(world, result == expected, str(result))


@pytest.mark.ranks(3)
def test_check_ranks_refused_or_missing_gpus_give_warnings(world, monkeypatch):
    card = "NVIDIA H200 0000:17:00.0"
    change_last_rank(world, monkeypatch, gpu=(card, None), host=("n1", "n1"), cupy=("14.2.0", None))
    if world.rank == 1:
        monkeypatch.setattr(BODIES.device, "refused", ("GPU 1 is lost",))
    expected = [
        "cupy: 14.2.0 on ranks 0-1, missing on rank 2",
        "another GPU was taken: GPU 1 is lost of n1 on rank 1",
        "GPU: one on ranks 0-1, none on rank 2",
    ]
    result = warnings_of(world)
    check_collective(world, result == expected, str(result))
    monkeypatch.undo()
    change_last_rank(world, monkeypatch, gpu=(card, card), host=("n1", "n2"))
    check_collective(world, warnings_of(world) == [], "sharing is not wrong")


def test_check_ranks_many_values_are_cut_short():
    ranks = [Rank({"--points": str(rank)}, {}, "n1", "", 0, 0) for rank in range(LISTED + 3)]
    line = startup._errors(ranks)[0]
    assert line.startswith("--points: 0 on rank 0, 1 on rank 1, ") and line.endswith(" on rank 7, 3 more")


@pytest.mark.ranks(1, 3)
def test_check_state_declarations_must_be_alike(world):
    def declared(names, halo=0, unit="m"):
        state = State(world)
        for name in names:
            state.field(name, (12,), halo=halo, unit=unit, boundary="fixed")
        state.scalar("hits", 0)
        return state

    check_state(declared("ab"))
    if world.size == 1:
        return
    odd = world.rank == 1
    for state, line in [
        (
            declared("ab", halo=int(odd)),
            "  b: field float64 (12,) (axis0_12) halo 0 fixed 0.0 split 3 m on ranks 0,2, ",
        ),
        (declared("ab", unit="mK"[odd]), "split 3 m on ranks 0,2, field float64 (12,) (axis0_12) halo 0 fixed 0.0 "),
        (declared("ab" if odd else "a"), "(12,) (axis0_12) halo 0 fixed 0.0 split 3 m on rank 1\nNothing in"),
        (declared("ba" if odd else "ab"), ":\n  order: a, b, hits on ranks 0,2, b, a, hits on rank 1\n"),
    ]:
        with pytest.raises(UsageError) as caught:
            check_state(state)
        check_collective(world, caught.value.collective and line in str(caught.value), str(caught.value))


@pytest.mark.ranks(2)
def test_check_state_other_tables_or_steps_are_refused(world):
    """Also the types of keys, and how values are combined: both determine the messages."""

    def declared(key="S3", how="min"):
        state = State(world)
        state.add(Table("t", world, {"k": key}, {"x": ("float64", how)}))
        return state

    check_state(declared(), 5)
    odd = world.rank == 1
    for state, steps, words in [
        (declared(key="S4" if odd else "S3"), 5, ("'k': '|S3'", "'k': '|S4'")),
        (declared(how="max" if odd else "min"), 5, ("combined by {'x': 'min'}", "combined by {'x': 'max'}")),
        (declared(), 6 if odd else 5, ("number of steps: 5 on rank 0, 6 on rank 1",)),
    ]:
        with pytest.raises(UsageError) as caught:
            check_state(state, steps)
        text = str(caught.value)
        check_collective(world, caught.value.collective and all(part in text for part in words), text)


def test_run_declare_that_differs_ends_once_and_makes_nothing(tmp_path):
    (tmp_path / "odd.py").write_text(
        "from anyrank import Program, param\n\n\nclass Odd(Program):\n    n: int = param(12, 'points')\n\n"
        "    def declare(self, state):\n"
        "        state.field('x', (self.n,), 'f4' if state.world.rank == 1 else 'f8')\n"
    )
    done = run_anyrank("run", "odd.py", "--out", "r", cwd=tmp_path, ranks=3)
    assert done.returncode == 2 and done.stderr.count("the ranks declare different states:") == 1, done.stderr
    assert "x: field float64 (12,)" in done.stderr and " on ranks 0,2, field float32 (12,)" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["odd.py"]


def test_run_other_parameters_or_files_on_ranks_end_once(tmp_path):
    text = "from anyrank import Program, param\n\n\nclass Same(Program):\n    n: int = param(1, 'n')\n"
    (tmp_path / "one.py").write_text(text)
    (tmp_path / "two.py").write_text(text + "\n    steps = 2\n")
    first, two = (anyrank_command("run", name, "--out", "r", "--n", n) for name, n in [("one.py", 1), ("two.py", 5)])
    done = mpiexec(2, *first, ":", "-n", 1, *two, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("the ranks differ in properties that affect the result:") == 1
    assert "--n: 1 on ranks 0-1, 5 on rank 2" in done.stderr and "program file: " in done.stderr, done.stderr
    assert "command line" not in done.stderr, "it is a warning, and there is an error"
    assert not (tmp_path / "r").exists()
