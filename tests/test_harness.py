"""The test harness itself: reports of tests that pass, fail, hang, raise or crash on some of their ranks."""

from __future__ import annotations

import mmap
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ranks import check_collective, mpiexec, mpiexec_path, processes_of, run_command, start_process, sweep_shared_memory

SAMPLE = """
import os, signal
import pytest
from mpi4py import MPI
from ranks import check_collective

@pytest.fixture
def size(world):
    return world.size

@pytest.mark.ranks(1, 3)
def test_passes(world, size):
    check_collective(world, size == len(world.comm.allgather(None)))
    print(f"in a launch of {MPI.COMM_WORLD.size}")

@pytest.mark.ranks(2, 3, exact=True)
def test_is_all_there_is(world):
    check_collective(world, MPI.COMM_WORLD.size == world.size)

@pytest.mark.ranks(2, timeout=2)
def test_hangs_while_others_sleep(world):
    if world.rank == 0:
        world.barrier()

@pytest.mark.ranks(2)
def test_fails_while_others_sleep(world):
    check_collective(world, world.rank)

@pytest.mark.ranks(3)
def test_false_on_one(world):
    print(f"rank {world.rank} was here")
    check_collective(world, world.rank != 1, "as it should be")

@pytest.mark.ranks(3)
def test_raises_on_one(world):
    if world.rank == 2:
        raise ValueError("only here")
    world.barrier()

@pytest.mark.ranks(3)
def test_dies_on_one(world):
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    world.barrier()

@pytest.mark.ranks(3, timeout=2)
def test_hangs_on_one(world):
    if world.rank == 0:
        world.barrier()

@pytest.mark.ranks(3)
def test_skips(world):
    pytest.skip("not today")

@pytest.mark.ranks(3)
def test_skips_on_one(world):
    if world.rank == 0:
        pytest.skip("not here")

@pytest.mark.ranks(3)
@pytest.mark.xfail(strict=True)
def test_is_expected_to_fail(world):
    check_collective(world, False)

@pytest.mark.ranks(3)
def test_passes_after_all_that(world):
    check_collective(world, True)
"""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tests above, set up like this one."""
    here, folder = Path(__file__).parent, tmp_path_factory.mktemp("sample")
    (folder / "conftest.py").write_text((here / "conftest.py").read_text())
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {here}\nmarkers = ranks: sample\n")
    (folder / "test_sample.py").write_text(SAMPLE)
    return folder


def _run(sample: Path, *selection: str) -> dict[str, tuple[str, str]]:
    """The outcome and the text of each test; all processes must have ended when pytest has."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--junitxml=result.xml",
        "-o",
        "junit_logging=all",
        *selection,
    ]
    with start_process(*command, cwd=sample, stdout=None, stderr=None) as process:
        process.wait(100)
        assert processes_of(process) == {}
    result = {}
    for case in ElementTree.parse(sample / "result.xml").iter("testcase"):
        outcome = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        text = "" if outcome is None else f"{outcome.get('message')}\n{outcome.text}"
        output = "".join(child.text or "" for child in case if child.tag == "system-out")
        result[case.attrib["name"]] = ("passed" if outcome is None else outcome.tag, text + output)
    return result


@pytest.fixture(scope="module")
def results(sample: Path) -> Iterator[dict[str, tuple[str, str]]]:
    return _run(sample)


@pytest.mark.parametrize("name", ["passes[ranks=1]", "passes[ranks=3]", "passes_after_all_that[ranks=3]"])
def test_harness_pass_on_all_ranks_is_a_pass(results: dict[str, tuple[str, str]], name: str) -> None:
    assert results[f"test_{name}"][0] == "passed"


def test_harness_failure_on_one_rank_fails_and_is_named(results: dict[str, tuple[str, str]]) -> None:
    outcome, text = results["test_false_on_one[ranks=3]"]
    assert outcome == "failure"
    assert "failed on ranks 0, 1, 2 of 3: AssertionError: false on rank 1 of 3: as it should be" in text
    assert all(f"rank {rank} was here" in text for rank in range(3))


def test_harness_exception_on_one_rank_ends_the_others(results: dict[str, tuple[str, str]]) -> None:
    outcome, text = results["test_raises_on_one[ranks=3]"]
    assert outcome == "failure"
    assert "failed on rank 2 of 3: ValueError: only here" in text
    assert "no word from ranks 0, 1 of 3" in text


def test_harness_crashed_rank_fails_its_test(results: dict[str, tuple[str, str]]) -> None:
    outcome, text = results["test_dies_on_one[ranks=3]"]
    assert outcome == "failure"
    assert re.match("mpiexec ended with status (9|137)\n", text)  # the status after SIGKILL of MPICH and of Open MPI


def test_harness_hang_ends_at_its_limit_and_shows_stacks(results: dict[str, tuple[str, str]]) -> None:
    outcome, text = results["test_hangs_on_one[ranks=3]"]
    assert outcome == "failure"
    assert "no word from rank 0 of 3\nhung: not finished after 2 s\nrank 0 at that time:" in text
    assert "in test_hangs_on_one" in text


def test_harness_skips_and_xfails_are_reported_as_such(results: dict[str, tuple[str, str]]) -> None:
    assert results["test_skips[ranks=3]"][0] == "skipped"
    assert "not today" in results["test_skips[ranks=3]"][1]
    assert results["test_is_expected_to_fail[ranks=3]"][0] == "skipped"
    assert results["test_skips_on_one[ranks=3]"][0] == "failure"
    assert "skipped on rank 0 of 3 only" in results["test_skips_on_one[ranks=3]"][1]


def test_harness_launch_serves_tests_of_fewer_ranks(results: dict[str, tuple[str, str]]) -> None:
    for name in ("test_passes[ranks=1]", "test_passes[ranks=3]"):
        assert "in a launch of 3\n" in results[name][1]


@pytest.mark.parametrize("ranks", [2, 3])
def test_harness_exact_launch_has_only_the_tests_ranks(results: dict[str, tuple[str, str]], ranks: int) -> None:
    assert results[f"test_is_all_there_is[ranks={ranks}]"][0] == "passed"


def test_harness_sleeping_ranks_are_not_blamed(results: dict[str, tuple[str, str]]) -> None:
    outcome, text = results["test_hangs_while_others_sleep[ranks=2]"]
    assert outcome == "failure" and "no word from rank 0 of 2\nhung: not finished after 2 s\nrank 0 at that" in text
    outcome, text = results["test_fails_while_others_sleep[ranks=2]"]
    assert outcome == "failure" and "failed on ranks 0, 1 of 2: AssertionError: false on rank 0 of 2" in text


@pytest.mark.parametrize("ranks", [1, 3])
def test_harness_node_id_selects_one_test(sample: Path, ranks: int) -> None:
    ((name, (outcome, text)),) = _run(sample, f"test_sample.py::test_passes[ranks={ranks}]").items()
    assert (name, outcome) == (f"test_passes[ranks={ranks}]", "passed") and f"in a launch of {ranks}\n" in text


@pytest.mark.parametrize("body", ["def test_it(world): pass", "@pytest.mark.ranks(2)\ndef test_it(): pass"])
def test_harness_mark_and_fixture_need_each_other(sample: Path, body: str) -> None:
    (sample / "lonely.py").write_text(f"import pytest\n{body}\n")
    result = run_command(sys.executable, "-m", "pytest", "-q", "lonely.py", cwd=sample)
    assert result.returncode == 2
    assert "lonely.py::test_it: the fixture `world` and @pytest.mark.ranks(…) need each other" in result.stdout


@pytest.mark.ranks(1, 2, 3, 4)
def test_harness_world_has_the_ranks_of_the_mark(world, request: pytest.FixtureRequest) -> None:
    check_collective(world, world.size == world.node_size == request.node.callspec.params["world"])
    assert world.comm.allgather(world.rank) == list(range(world.size))


@pytest.mark.ranks(3)
@pytest.mark.parametrize("text", ["a", "b"])
def test_harness_tmp_path_is_one_new_folder_for_all_ranks(world, tmp_path: Path, text: str) -> None:
    check_collective(world, list(tmp_path.iterdir()) == [])
    world.barrier()
    (tmp_path / f"{world.rank}").write_text(text)
    world.barrier()
    check_collective(world, [path.read_text() for path in tmp_path.iterdir()] == [text] * 3)


@pytest.mark.ranks(3)
@given(number=st.integers(), values=st.lists(st.floats()))
def test_harness_hypothesis_draws_the_same_on_all_ranks(world, number: int, values: list[float]) -> None:
    drawn = world.comm.allgather((number, np.array(values).tobytes()))
    check_collective(world, drawn.count(drawn[0]) == 3)


def test_completed_command_beyond_its_timeout_is_killed() -> None:
    nap = "import mpi4py.MPI, time; print('asleep', flush=True); time.sleep(60)"
    with pytest.raises(AssertionError, match=r"(?s)hung: not finished after 3 s.*asleep"):
        mpiexec(2, sys.executable, "-c", nap, timeout=3)


def test_sweep_shared_memory_removes_only_that_of_dead_jobs() -> None:
    before = time.time() - 1
    segments = {name: Path(f"/dev/shm/mpich_shm_{os.getpid()}_{name}") for name in ("dead", "mapped", "new", "older")}
    try:
        for name, segment in segments.items():
            segment.write_bytes(bytes(4096))
            age = {"new": 0, "older": 100}.get(name, 10)
            os.utime(segment, (time.time() - age,) * 2)
        with segments["mapped"].open("r+b") as file, mmap.mmap(file.fileno(), 4096):
            sweep_shared_memory(since=before - 50)
        assert [name for name, segment in segments.items() if segment.exists()] == ["mapped", "new", "older"]
    finally:
        for segment in segments.values():
            segment.unlink(missing_ok=True)


def test_processes_of_finds_ranks_that_can_be_killed() -> None:
    nap = "import mpi4py.MPI, time; print('asleep', flush=True); time.sleep(60)"
    with start_process(mpiexec_path(), "-n", 2, sys.executable, "-c", nap) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("asleep")
        program = [sys.executable, "-c", nap]
        ranks = [pid for pid, command in processes_of(process).items() if command == program]
        assert len(ranks) == 2
        os.kill(ranks[0], signal.SIGKILL)
        assert process.wait(20) != 0
    deadline = time.monotonic() + 5
    while processes_of(process) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes_of(process) == {}
