"""The recorder of --check: collective calls that differ between ranks raise an error instead of a hang."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ranks import check_collective, run_anyrank

from anyrank import recorder
from anyrank.errors import AnyrankError, as_ranges
from anyrank.exchange.halo import halo_of
from anyrank.state import State
from anyrank.world import World

from mpi4py import MPI  # isort: skip  (after anyrank.world, which chooses how MPI is initialized)

PLAIN = MPI.COMM_WORLD


@pytest.fixture
def checked_world(world):
    """A World that checks, besides the test's World, which does not; MPI.COMM_WORLD too if it has no more ranks."""
    checked_world = World(None if world.size == PLAIN.size else world.comm, check=True)
    yield checked_world
    checked_world.close()
    assert MPI.COMM_WORLD is PLAIN


def test_spans_of_ranks_as_text():
    assert as_ranges([0, 1, 2, 3, 7, 9, 8]) == "0-3,7-9" and as_ranges([4]) == "4" and as_ranges([]) == ""


def test_recorder_wraps_collectives_and_messages():
    assert {"Create_cart", "Idup", "Split_type", "Free", "Ireduce_scatter_block", "alltoall"} < {
        *vars(recorder.Checked)
    }
    assert not {"Create_group", "Create_keyval", "Get_rank", "iprobe", "Abort", "Send_init"} & {*vars(recorder.Checked)}


@pytest.mark.ranks(1)
def test_recorder_is_off_by_default(world):
    assert world.recorder is None
    assert type(world.comm) is MPI.Intracomm and type(MPI.COMM_WORLD) is MPI.Intracomm


@pytest.mark.ranks(1, 2, 3, 4)
def test_recorder_matching_collectives_give_their_results(checked_world):
    comm, rank, n = checked_world.comm, checked_world.rank, checked_world.size
    ranks = np.arange(n)
    mine, received = np.array([rank]), np.zeros(1, int)
    assert comm.bcast(rank, root=n - 1) == n - 1
    assert comm.allgather(rank) == [*range(n)] and comm.alltoall([rank] * n) == [*range(n)]
    assert (
        comm.gather(rank) == (None if rank else [*range(n)]) and comm.scatter([*range(n)] if not rank else None) == rank
    )
    assert comm.allreduce(rank, op=MPI.MAX) == comm.allreduce(rank, max) == n - 1
    assert comm.scan(1) == rank + 1 and (comm.exscan(1) or 0) == rank
    assert comm.reduce(1, root=n - 1) == (n if rank == n - 1 else None)
    comm.Allreduce(mine, received, op=MPI.SUM)
    assert received == sum(range(n))
    comm.Scan(mine, received)
    assert received == sum(range(rank + 1))
    comm.Barrier() if rank else comm.barrier()
    requests = [comm.Ibcast(received, root=0), comm.Ibarrier()]
    requests[0].Wait()
    while not requests[1].Test():
        pass
    assert received == 0
    assert np.array_equal(ranks, _allgather(comm, mine, n))
    assert checked_world.all(True) and checked_world.sum(1) == n


def _allgather(comm, mine, n):
    whole = np.empty(n, int)
    comm.Iallgather(mine, whole).Wait()
    return whole


@pytest.mark.ranks(1, 2, 3, 4)
def test_recorder_allows_arguments_that_may_differ(checked_world):
    """Counts by rank, objects, buffers of the root, and communicators of some ranks."""
    comm, rank, n = checked_world.comm, checked_world.rank, checked_world.size
    if rank == 0:
        assert comm.bcast("from one line") == "from one line"
    else:
        assert comm.bcast(None) == "from one line"
    # Counts by rank, and pickled objects of any size.
    whole = np.empty(n * (n + 1) // 2)
    counts = np.arange(1, n + 1)
    comm.Allgatherv(np.full(rank + 1, float(rank)), [whole, counts])
    assert np.array_equal(whole, np.repeat(np.arange(n), counts))
    comm.Gatherv(np.full(rank + 1, 1.0), [whole, counts] if rank == 0 else None)
    comm.Scatterv([whole, counts] if rank == 0 else None, np.empty(rank + 1))
    comm.Alltoallv([np.zeros(n), [1] * n], [np.zeros(n), [1] * n])
    assert comm.allgather("x" * rank)[rank] == "x" * rank
    # The root's other buffer and MPI.IN_PLACE; another way to write the same call.
    table = np.full((n, 3), -1.0)
    table[rank] = rank
    comm.Gather(MPI.IN_PLACE if rank == 0 else table[rank], table if rank == 0 else None)
    comm.Scatter(table if rank == 0 else None, MPI.IN_PLACE if rank == 0 else table[rank])
    comm.Allgather(MPI.IN_PLACE, table)
    assert np.array_equal(table[:, 0], np.arange(n))
    comm.Allreduce(MPI.IN_PLACE if rank == 0 else table.copy(), table)
    column = MPI.DOUBLE.Create_vector(3, 1, 2).Commit()
    pairs = MPI.DOUBLE.Create_contiguous(2).Commit()
    data = np.arange(6.0)
    comm.Bcast([data, 1, column] if rank == 0 else [data[:3], [data, 3, "d"], (data, (3, None), MPI.DOUBLE)][rank % 3])
    comm.Bcast([data, pairs] if rank == 0 else data)
    comm.Bcast(bytearray(8) if rank == 0 else [data, 8, MPI.BYTE])
    # A communicator of a group, and ranks that proceed only while the others' collective is under way.
    part = comm.Split(rank % 2)
    if rank % 2:
        assert part.allreduce(1) == n // 2
    part.Free()
    copy = comm.Dup()
    copy.Free()
    request = comm.Ibarrier() if rank == 0 else None
    comm.sendrecv(rank, (rank + 1) % n, source=(rank - 1) % n)
    (request or comm.Ibarrier()).Wait()
    struct = MPI.Datatype.Create_struct([1, 1], [0, 8], [MPI.INT, column]).Commit()
    comm.Bcast([data, 1, struct])
    for kind in (column, pairs, struct):
        kind.Free()


def _poll(request):
    while not request.Test():
        pass


MISMATCHES = {
    "operation": (
        lambda w: w.comm.allreduce(1),
        lambda w: w.comm.bcast(1),
        ("allreduce(sum)", "bcast(root 0)"),
    ),
    "type": (
        lambda w: w.comm.Bcast(np.zeros(3)),
        lambda w: w.comm.Bcast([np.zeros(3, np.int64), MPI.INT64_T], 0),
        ("Bcast(3 float64, root 0)", "Bcast(3 int64, root 0)"),
    ),
    "count": (
        lambda w: w.comm.Allreduce(np.zeros(3), np.zeros(3)),
        lambda w: w.comm.Allreduce(sendbuf=np.zeros(4), recvbuf=np.zeros(4)),
        ("Allreduce(sum of 3 float64)", "Allreduce(sum of 4 float64)"),
    ),
    "root": (
        lambda w: w.comm.gather(1),
        lambda w: w.comm.gather(1, root=1),
        ("gather(root 0)", "gather(root 1)"),
    ),
    "reduction": (
        lambda w: w.allreduce(np.ones(1, np.int32), "max"),
        lambda w: w.allreduce(np.ones(1, np.int32), "min"),
        ("Allreduce(max of 1 int32)", "Allreduce(min of 1 int32)"),
    ),
    "pickled or not": (
        lambda w: w.comm.Reduce(np.ones(1), None, MPI.PROD, 1),
        lambda w: w.comm.reduce(1, MPI.PROD, 1),
        ("Reduce(prod of 1 float64, root 1)", "reduce(prod, root 1)"),
    ),
    "own reductions": (
        lambda w: w.comm.Allreduce(np.ones(1), np.ones(1), MPI.Op.Create(max)),
        lambda w: w.comm.allreduce(1, abs),
        ("Allreduce(its own operation of 1 float64)", "allreduce(abs)"),
    ),
    "no buffer": (
        lambda w: w.comm.Bcast("text"),
        lambda w: w.comm.Bcast(None),
        ("Bcast(a str, root 0)", "Bcast(0 uint8, root 0)"),
    ),
    "non-blocking": (
        lambda w: _poll(w.comm.Ibarrier()),
        lambda w: w.comm.Iallreduce(np.ones(1), np.ones(1)).Wait(),
        ("Ibarrier()", "Iallreduce(sum of 1 float64)"),
    ),
    "missing": (
        lambda w: (w.comm.Ibarrier(), w.barrier()),
        lambda w: w.recorder.close(),
        ("Ibarrier()", "the end of the run"),
    ),
}


@pytest.mark.parametrize("case", MISMATCHES)
@pytest.mark.ranks(2, 3)
def test_recorder_mismatch_shows_both_lines_on_all_ranks(world, checked_world, case):
    _check_mismatch(world, checked_world, *MISMATCHES[case])


@pytest.mark.ranks(4, exact=True)
def test_recorder_another_communicator_is_a_mismatch(world, checked_world):
    calls = (
        lambda w: w.barrier(),
        lambda w: MPI.COMM_WORLD.Barrier(),
    )
    _check_mismatch(world, checked_world, *calls, ("Barrier()", "Barrier() on MPI.COMM_WORLD"))


def _check_mismatch(world, checked_world, first, other, words):
    with pytest.raises(AnyrankError, match=r"^collective calls differ at call 2:\n") as caught:
        checked_world.barrier()
        (other if checked_world.rank else first)(checked_world)
    check_collective(world, len({*world.comm.allgather(str(caught.value))}) == 1 and caught.value.collective)
    _, mine, others, *rule = str(caught.value).splitlines()
    lines = [
        f"test_recorder.py:{function.__code__.co_firstlineno} in <lambda>: lambda w: " for function in (first, other)
    ]
    assert mine.startswith(f"rank 0: {words[0]} at {lines[0]}")
    those = "rank 1" if world.size == 2 else f"ranks 1-{world.size - 1}"
    assert others.startswith(f"{those}: {words[1]} at {lines[1]}")
    assert rule[0].startswith("All ranks must make the same calls") and rule[1].startswith("Look for")
    # A rank that continues gets the same error, and makes no call that hangs.
    with pytest.raises(AnyrankError) as again, checked_world.raise_on_all_ranks():
        pass
    assert again.value is caught.value


@pytest.mark.ranks(4)
def test_recorder_exchange_against_reduction_names_the_ranks(world, checked_world, monkeypatch):
    state = State(checked_world)
    for name in "Tu":
        state.field(name, (8, 8), halo=1)
    state.T.exchange()
    with pytest.raises(AnyrankError) as caught:
        halo_of([state.T, state.u]).start() if world.rank in (0, 3) else checked_world.all(True)
    assert "\nranks 0,3: the halo exchange of T, u at test_recorder.py:" in str(caught.value)
    assert "\nranks 1-2: Allreduce(min of 1 int32) at test_recorder.py:" in str(caught.value)


@pytest.mark.ranks(2)
def test_recorder_raise_on_all_ranks_shows_the_callers_line(checked_world):
    with pytest.raises(AnyrankError) as caught:
        if checked_world.rank:
            checked_world.barrier()
        with checked_world.raise_on_all_ranks():
            pass
    assert "\nrank 0: Allreduce(max of 1 int64) at test_recorder.py:" in str(caught.value)


@pytest.mark.ranks(4)
def test_recorder_many_groups_of_calls_are_cut_short(checked_world, monkeypatch):
    monkeypatch.setattr(recorder, "SHOWN", 2)
    with pytest.raises(AnyrankError, match=r"\nrank 0: .*\nrank 1: .*\nand 2 calls more\nAll ranks"):
        checked_world.comm.Bcast(np.zeros(checked_world.rank))


@pytest.mark.ranks(2)
def test_recorder_keeps_the_last_calls_and_messages(checked_world):
    other = 1 - checked_world.rank
    for _ in range(recorder.KEPT):
        checked_world.barrier()
    checked_world.comm.sendrecv(1, other)
    checked_world.comm.Isend(np.zeros(2), dest=other).Wait()
    checked_world.comm.Recv(np.zeros(2), source=other)
    *before, paired, sent, received = checked_world.recorder.recent()
    assert len(before) == recorder.KEPT - 3
    assert before[0].startswith("4: Barrier() at test_recorder.py:")
    assert paired.startswith(f"20: sendrecv(dest {other}, source {MPI.ANY_SOURCE}) at test_recorder.py:")
    assert sent.startswith(f"20: Isend(2 float64, dest {other}) at test_recorder.py:")
    assert received.startswith(f"20: Recv(2 float64, source {other}) at test_recorder.py:")


PROGRAM = """
from mpi4py import MPI
from anyrank import Program, param

comm = MPI.COMM_WORLD


class Lonely(Program):
    steps: int = param(9, "steps")

    def declare(self, state):
        state.scalar("n", 0)

    def step(self, state):
        if state.step == 5 and comm.rank < 2:
            state.n = comm.allreduce(state.n)
"""


def test_check_run_ends_with_one_message_instead_of_a_hang(tmp_path):
    """The message covers the runtime's own calls, too."""
    program = tmp_path / "lonely.py"
    program.write_text(PROGRAM)
    done = run_anyrank("run", program, "--check", "--out", tmp_path / "run", ranks=4)
    assert done.returncode == 1
    line = 1 + PROGRAM.splitlines().index("            state.n = comm.allreduce(state.n)")
    error, first, second, *_ = [text.strip() for text in done.stderr[done.stderr.index("anyrank: ") :].splitlines()]
    assert error.startswith("anyrank: collective calls differ at call ") and error.endswith(" (steps 5-6):")
    assert (
        first
        == f"ranks 0-1: allreduce(sum) on MPI.COMM_WORLD at lonely.py:{line} in step: state.n = comm.allreduce(state.n)"
    )
    assert second.startswith("ranks 2-3: the agreement at the end of a step at agreement.py:")
    assert done.stderr.count("collective calls differ") == 1 and "Traceback" not in done.stderr


def test_check_run_has_the_same_digest(tmp_path):
    digests = []
    for ranks, how in ((1, []), (3, ["--check", "--checkpoint-io", "gather", "--checkpoint-every", 7])):
        out = tmp_path / str(ranks)
        done = run_anyrank(
            "run",
            "weather",
            "--rows",
            32,
            "--columns",
            32,
            "--steps",
            20,
            "--body",
            "reference",
            *how,
            "--out",
            out,
            ranks=ranks,
        )
        assert done.returncode == 0, done.stderr
        digests.append(json.loads((out / "summary.json").read_text())["digest"])
    assert digests[0] == digests[1]
