"""Placement of ranks: their cores and threads, in plans and on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ranks import anyrank_command, mpiexec, run_command

from anyrank.runtime.placement import VARIABLES, choose_cores, plan_threads, shares

SHOWING = Path(__file__).with_name("showing.py")
HERE = sorted(os.sched_getaffinity(0))
#: A batch job that is not mistaken for a launcher.
JOB = {"_CONDOR_JOB_AD": "/dev/null"}
needs_two = pytest.mark.skipif(len(HERE) < 2, reason="needs two cores")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """The tests themselves may run in a batch job or with a number of threads, and Open MPI binds ranks."""
    for name in (*VARIABLES, "SLURM_JOB_ID", "PBS_JOBID", "_CONDOR_JOB_AD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PRTE_MCA_hwloc_default_binding_policy", "none")


@pytest.mark.parametrize(
    ("asked", "environment", "threads", "changed"),
    [
        (None, {}, 1, dict.fromkeys(VARIABLES, "1")),
        (None, {"OMP_NUM_THREADS": "4,2"}, 4, dict.fromkeys(VARIABLES[1:], "4")),
        (None, {"OMP_NUM_THREADS": "many"}, 1, dict.fromkeys(VARIABLES[1:], "1")),
        (None, dict.fromkeys(VARIABLES, "3"), 3, {}),
        (3, {}, 3, dict.fromkeys(VARIABLES, "3")),
        (3, {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "3"}, 3, dict.fromkeys((*VARIABLES[:2], VARIABLES[3]), "3")),
    ],
)
def test_plan_threads_as_requested_or_as_set_or_one(asked, environment, threads, changed):
    assert plan_threads(asked, environment) == (threads, changed)


def cores(*parts):
    return [frozenset(part) for part in parts]


ONE, TWO = cores(range(8))[0], cores(range(2))[0]
FLAT = {cpu: (0, cpu) for cpu in range(8)}
SOCKETS = {cpu: (cpu // 4, cpu % 4) for cpu in range(8)}
#: The numbering of Linux: 0 and 4 are the hyperthreads of one core.
SIBLINGS = {cpu: (0, cpu % 4) for cpu in range(8)}


@pytest.mark.parametrize(
    ("masks", "threads", "where", "expected"),
    [
        ([TWO] * 2, 1, FLAT, cores({0}, {1})),
        ([TWO] * 3, 1, FLAT, None),
        ([TWO] * 2, 2, FLAT, None),
        ([ONE] * 3, 2, FLAT, cores({0, 1}, {2, 3, 4}, {5, 6, 7})),
        ([ONE] * 2, 1, SOCKETS, cores({0, 1, 2, 3}, {4, 5, 6, 7})),
        ([ONE] * 3, 2, SOCKETS, cores({0, 1}, {2, 3}, {5, 6, 7})),
        ([ONE] * 1, 6, SOCKETS, cores(range(8))),
        ([ONE] * 2, 1, SIBLINGS, cores({0, 4, 1, 5}, {2, 6, 3, 7})),
        ([ONE] * 3, 1, SIBLINGS, cores({0, 4}, {1, 5}, {2, 6, 3, 7})),
        ([ONE] * 5, 1, SIBLINGS, cores({0}, {4, 1}, {5}, {2, 6}, {3, 7})),
        (cores({0, 1, 2, 4, 5, 6}) * 2, 3, SIBLINGS, cores({0, 4, 1}, {5, 2, 6}) ),
        (cores({7, 3}, {7, 3}, {5}), 1, FLAT, cores({3}, {7}, {5})),
        (cores({0, 1}, {1, 2}), 1, FLAT, None),
    ],
)  # fmt: skip
def test_shares_are_equal_parts_of_whole_cores_of_a_socket(masks, threads, where, expected):
    assert shares(masks, threads, where.__getitem__) == expected


SLURM, HALF = {"SLURM_JOB_ID": "7"}, cores(range(4))[0]


@pytest.mark.parametrize(
    ("bind", "masks", "online", "environment", "how"),
    [
        ("auto", [HALF] * 2, 4, {}, "not bound: no batch job"),
        ("none", [HALF] * 2, 8, SLURM, "not bound: --bind none"),
        ("auto", [HALF], 8, SLURM, "not bound: alone on its node"),
        ("auto", [HALF] * 5, 8, SLURM, "not bound: no cores for each rank"),
        ("core", [HALF] * 5, 8, {}, "not bound: no cores for each rank"),
        ("auto", cores({0, 1}, {1, 2}), 8, SLURM, "not bound: no cores for each rank"),
        ("auto", [HALF] * 2, 4, SLURM, "not bound: other jobs may have the same cores"),
        ("auto", [HALF] * 2, 4, {**SLURM, "SLURM_CPUS_ON_NODE": "2"}, "not bound: other jobs may have the same cores"),
        ("auto", [HALF] * 2, 4, {**SLURM, "SLURM_CPUS_ON_NODE": "4"}, "bound by anyrank"),
        ("auto", [HALF] * 2, 4, {"PBS_JOBID": "7.x", "NCPUS": "4"}, "bound by anyrank"),
        ("auto", [HALF] * 2, 8, {"PBS_JOBID": "7.x", "NCPUS": "4"}, "bound by anyrank"),
        ("auto", [HALF] * 4, 4, SLURM, "bound by anyrank"),
        ("core", [HALF] * 2, 4, {}, "bound by anyrank"),
        ("auto", cores({0, 1}, {2, 3}), 8, SLURM, "bound by the launcher"),
        ("core", cores({0, 1}, {2, 3}), 8, SLURM, "bound by the launcher"),
    ],
)
def test_choose_binds_only_if_no_other_job_can_use_the_cores(bind, masks, online, environment, how):
    places = [choose_cores(bind, 1, masks, rank, online, environment) for rank in range(len(masks))]
    assert {output for _, output in places} == {how}
    mine = [cores_of_rank for cores_of_rank, _ in places]
    if how == "bound by anyrank":
        assert sum(map(len, mine)) == len(HALF) and frozenset().union(*mine) == HALF
    else:
        assert mine == masks


def command(folder: Path, *options) -> list[str]:
    folder.mkdir()
    return anyrank_command("run", SHOWING, "--folder", folder, "--out", folder / "run", "--quiet", *options)


def run_on(cores_, *words, **env):
    """Run a command that may use only these cores."""
    return run_command("taskset", "-c", ",".join(map(str, cores_)), *words, env=env)


def records(folder: Path) -> list[dict]:
    """The records of all ranks."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("[0-9].json"))]


def logs(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted((folder / "run" / "log").iterdir())]


def digest(folder: Path) -> str:
    return json.loads((folder / "run" / "summary.json").read_text())["digest"]


@needs_two
def test_placement_in_a_job_each_rank_has_its_core(tmp_path):
    out = tmp_path / "job"
    assert run_on(HERE[:2], *command(out, "-n", 2), **JOB).returncode == 0
    ranks = records(out)
    assert sorted(rank["cores"] for rank in ranks) == [[[core]] for core in HERE[:2]]
    assert [rank["environment"] for rank in ranks] == [dict.fromkeys(VARIABLES, "1")] * 2
    for number, (rank, text) in enumerate(zip(ranks, logs(out), strict=True)):
        where = (
            f"number {number} of 2 on node {os.uname().nodename}, on core(s) {rank['cores'][0][0]} (bound by anyrank)"
        )
        assert f"rank {number} of 2: {where}, 1 thread(s) (OMP_NUM_THREADS=1), device " in text
        assert "oversubscribed" not in text


@needs_two
def test_placement_outside_jobs_or_bound_ranks_are_unchanged(tmp_path):
    free, bound = tmp_path / "free", tmp_path / "bound"
    assert run_on(HERE[:2], *command(free, "-n", 2)).returncode == 0
    assert [rank["cores"] for rank in records(free)] == [[HERE[:2]]] * 2
    assert all("(not bound: no batch job)" in text for text in logs(free))
    words = command(bound)
    first, second = (("taskset", "-c", core, *words) for core in HERE[1::-1])
    assert mpiexec(1, *first, ":", "-n", 1, *second, env=JOB).returncode == 0
    assert [rank["cores"] for rank in records(bound)] == [[[HERE[1]]], [[HERE[0]]]]
    assert all("(bound by the launcher)" in text for text in logs(bound))


def test_placement_too_many_threads_warn_and_bind_core_refuses(tmp_path):
    crowd, refused = tmp_path / "crowd", tmp_path / "refused"
    assert run_on(HERE[:1], *command(crowd, "-n", 2), **JOB).returncode == 0
    warning = f"WARNING oversubscribed: 2 rank(s) × 1 thread(s) on 1 core(s) of {os.uname().nodename}"
    assert all("(not bound: no cores for each rank)" in text and warning in text for text in logs(crowd))
    done = run_on(HERE[:2], *command(refused, "-n", 4, "--bind", "core"))
    assert done.returncode == 2 and done.stderr.count("--bind core: 4 rank(s) × 1 thread(s) on ") == 1
    assert "Use fewer ranks on a node or fewer --threads" in done.stderr and not (refused / "run").exists()


def test_blas_bits_do_not_depend_on_the_launcher(tmp_path):
    alone, ours, theirs = tmp_path / "alone", tmp_path / "ours", tmp_path / "theirs"
    assert run_command(*command(alone)).returncode == 0
    assert run_command(*command(ours, "-n", 3)).returncode == 0
    assert mpiexec(3, *command(theirs)).returncode == 0
    assert digest(alone) == digest(ours) == digest(theirs), "two threads add in another order"
    assert {rank["numba"] for folder in (alone, ours, theirs) for rank in records(folder)} == {1}


@needs_two
def test_threads_of_a_run_hold_at_resume(tmp_path):
    out = tmp_path / "two"
    assert run_on(HERE[:2], *command(out, "-n", 2, "--threads", 2, "--stop-at", 1)).returncode == 75
    assert [rank["numba"] for rank in records(out)] == [2, 2]
    assert run_on(HERE[:2], *anyrank_command("resume", out / "run", "-n", 1)).returncode == 0
    assert records(out)[0]["numba"] == 2 and "2 thread(s) (OMP_NUM_THREADS=2)" in logs(out)[0].splitlines()[-3]
