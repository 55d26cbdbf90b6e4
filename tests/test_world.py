"""World: agreement between ranks."""

from __future__ import annotations

import numpy as np
import pytest
from ranks import check_collective

from anyrank import launcher
from anyrank.errors import AnyrankError, UsageError


@pytest.mark.ranks(1, 2, 3, 4)
def test_world_reductions_give_their_results(world):
    mine = np.array([world.rank, -world.rank], np.int64)
    n = world.size
    check_collective(world, world.allreduce(mine).tolist() == [n * (n - 1) // 2, -n * (n - 1) // 2])
    check_collective(world, world.allreduce(mine, "max").tolist() == [n - 1, 0])
    check_collective(world, world.sum(2**40) == n * 2**40)
    check_collective(world, not world.all(world.rank != n - 1) and world.all(True))
    check_collective(world, world.gather(world.rank) == (list(range(n)) if world.rank == 0 else None))
    check_collective(world, world.node_size == n and world.node_rank == world.rank)
    check_collective(world, world.node_gather(world.rank) == list(range(n)))


@pytest.mark.ranks(2)
def test_world_sum_of_floats_is_refused(world):
    with pytest.raises(TypeError, match=r"use exact\.sum"):
        world.allreduce(np.array([0.1]))


@pytest.mark.ranks(1, 2, 4)
def test_raise_on_all_ranks_raises_the_lowest_ranks_error(world):
    with world.raise_on_all_ranks():
        reached = True
    with pytest.raises(UsageError, match=f"^from {world.size // 2}$") as caught, world.raise_on_all_ranks():
        if world.rank >= world.size // 2:
            raise UsageError(f"from {world.rank}")
    check_collective(world, reached and caught.value.collective)
    with (
        pytest.raises(AnyrankError, match=f"^rank {world.size - 1}: ZeroDivisionError: nought$"),
        world.raise_on_all_ranks(ValueError, ZeroDivisionError),
    ):
        if world.rank == world.size - 1:
            raise ZeroDivisionError("nought")


@pytest.mark.ranks(1, 3)
def test_raise_on_all_ranks_error_of_all_is_agreed_on_once(world):
    """A rank that fails before the others reach a call for rank 0 ends that call, and all ranks raise together."""
    with pytest.raises(UsageError, match=r"^mine$"), world.raise_on_all_ranks():
        if world.rank == world.size - 1:
            raise UsageError("mine")
        world.on_root(lambda: 1)
    check_collective(world, world.all(True), "no call is left over")


@pytest.mark.ranks(1, 2)
def test_raise_on_all_ranks_other_kind_stays_on_its_rank(world):
    """Other kinds are defects of the program: the rank ends the run itself, and no message is sent."""
    with pytest.raises(OSError, match=r"^mine$"), world.raise_on_all_ranks(AnyrankError, ZeroDivisionError):
        raise OSError("mine")
    check_collective(world, world.all(True), "no rank waits for another")


@pytest.mark.ranks(1, 2, 3)
def test_on_root_returns_value_or_raises_on_all(world):
    calls = []
    value = world.on_root(lambda: calls.append(world.rank) or {"from": world.rank})
    check_collective(world, value == {"from": 0} and calls == [0] * (world.rank == 0))
    with pytest.raises(AnyrankError, match=r"^rank 0: KeyError: 'nothing'$") as caught:
        world.on_root(lambda: {}["nothing"])
    check_collective(world, caught.value.collective)
    with pytest.raises(UsageError, match=r"^ours$"):
        world.on_root(lambda: (_ for _ in ()).throw(UsageError("ours")))


@pytest.mark.ranks(4, exact=True)
def test_world_is_a_clone_with_its_own_tags(world):
    from mpi4py import MPI

    check_collective(world, MPI.Comm.Compare(world.comm, MPI.COMM_WORLD) == MPI.CONGRUENT)
    check_collective(world, world.tag() != world.tag())


def test_launcher_reads_rank_and_size_from_the_environment():
    assert launcher.tasks({}) == 0 and launcher.task({}) == 0
    assert launcher.tasks({"PMI_SIZE": "4", "PMI_RANK": "3"}) == 4
    assert launcher.task({"PMI_SIZE": "4", "PMI_RANK": "3"}) == 3
    assert launcher.tasks({"OMPI_COMM_WORLD_SIZE": "2"}) == 2
    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "5", "SLURM_PROCID": "4"}
    assert (launcher.tasks(step), launcher.task(step)) == (5, 4)
    assert launcher.tasks({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}) == 0, "a batch script is no task"
    shell = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    assert launcher.tasks(shell) == 0, "a shell under srun --pty may start ranks of its own"
