"""Tables that do not fit into memory: the same rows, bits and digests as in memory, on any number of ranks."""

from __future__ import annotations

import errno
from functools import partial

import numpy as np
import pytest
from mpi4py import MPI
from ranks import check_collective

from anyrank.errors import AnyrankError
from anyrank.keyed.order import ordered, ordered_on_disk
from anyrank.keyed.rows import Text, concat, take
from anyrank.keyed.table import Table
from anyrank.state import State
from anyrank.storage.checkpoints import Checkpoints
from anyrank.storage.on_disk import DiskArray
from anyrank.world import World

BUDGET = 1 << 18
RANDOM = np.random.default_rng(7)
ROWS = 24_000
KEYS = RANDOM.integers(0, 9_000, ROWS)
#: The windows of the exact sums become wider with the rows.
X = RANDOM.standard_normal(ROWS) * 2.0 ** (np.arange(ROWS) // 8_000 * 40 - 40)
WORDS = Text.of(b"w%d" % n + b"-of-a-long-word" * (n % 5 == 0) for n in (KEYS % 777).tolist())
VALUES = {
    "total": ("int64", "sum"),
    "low": ("float64", "min"),
    "sum": ("float64", "exact"),
    "square": ("float64", "squares"),
}


def declare(world, folder, budget=BUDGET) -> State:
    state = State(world)
    state.add(Table("texts", world, {"word": "text", "key": "int64", "other": "text"}, VALUES))
    state.add(Table("numbers", world, {"key": "int64"}, VALUES))
    keep_within(state, folder, budget)
    return state


def keep_within(state, folder, budget):
    for table in (state.texts, state.numbers):
        if budget:
            table.keep_within(budget, folder)


def add(state, folder, first, last, budget=BUDGET, step=3_000):
    """Add rows, each on one of the ranks."""
    for start in range(first, last, step):
        rows = np.arange(start, start + step)
        rows = rows[rows % state.world.size == state.world.rank]
        values = {"total": KEYS[rows], "low": X[rows], "sum": X[rows], "square": X[rows]}
        state.texts.gather(WORDS[rows], KEYS[rows], WORDS[rows], **values)
        state.numbers.gather(KEYS[rows], **values)
        keep_within(state, folder, budget)


@pytest.fixture(scope="module")
def in_memory():
    """The digests of all rows, and of those of a checkpoint."""
    world, digests = World(MPI.COMM_SELF), []
    for last in (ROWS // 2, ROWS):
        state = declare(world, None, 0)
        add(state, None, 0, last, 0)
        assert not state.texts.on_disk
        digests.append(state.digests())
    yield digests
    world.close()


@pytest.mark.ranks(1, 2, 3)
def test_table_on_disk_has_the_digests_of_one_in_memory(world, tmp_path, in_memory):
    state = declare(world, tmp_path)
    add(state, tmp_path, 0, ROWS)
    check_collective(world, state.texts.on_disk and state.numbers.on_disk)
    check_collective(world, len(state.numbers._disk.runs) > 3 and state.numbers.nbytes <= BUDGET)
    check_collective(world, state.digests() == in_memory[1])
    check_collective(world, state.digests() == in_memory[1], "again")
    check_collective(world, [*tmp_path.iterdir()] == [], "the file has no name")


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize("io", ["pwrite", "gather"])
def test_table_on_disk_continues_from_checkpoint(world, tmp_path, in_memory, io):
    state = declare(world, tmp_path)
    add(state, tmp_path, 0, ROWS // 2)
    checkpoints = Checkpoints(tmp_path, state, "t", {}, io=io)
    checkpoints.begin()
    add(state, tmp_path, ROWS // 2, ROWS)  # while it is written
    state.texts.settle()
    saved = checkpoints.finish()
    check_collective(world, not saved.error and saved.digests == in_memory[0], saved.error)
    alone = World(MPI.COMM_SELF)
    for here, budget in ((world, BUDGET), (world, 0), (alone, BUDGET)):
        other = declare(here, tmp_path, budget)
        check_collective(world, Checkpoints(tmp_path, other, "t", {}).restore().step == 0)
        check_collective(world, other.texts.on_disk == (budget > 0))
        check_collective(world, other.digests() == in_memory[0], "restored")
        add(other, tmp_path, ROWS // 2, ROWS, budget)
        check_collective(world, other.digests() == in_memory[1], "went on")
    world.barrier()


@pytest.mark.ranks(1, 3)
@pytest.mark.parametrize("budget", [BUDGET, 0])
def test_table_parts_are_its_rows_in_order(world, tmp_path, budget):
    state = declare(world, tmp_path, budget)
    add(state, tmp_path, 0, ROWS, budget)
    whole = state.texts.columns
    parts = [state.texts.part(number, 7).columns for number in range(7)]
    for name, column in whole.items():
        joined = concat([part[name] for part in parts])
        check_collective(world, np.array_equal(getattr(joined, "data", joined), getattr(column, "data", column)), name)
    check_collective(world, max(len(part["key"]) for part in parts) < 1.3 * len(whole["key"]) / 7 + 50, "even")


@pytest.mark.ranks(1, 3)
def test_table_cleared_on_one_rank_still_settles(world, tmp_path):
    state = declare(world, tmp_path)
    add(state, tmp_path, 0, ROWS)
    if world.rank == 0:
        state.numbers.clear()
    check_collective(world, state.numbers.rows == world.sum(len(state.numbers.columns["key"])))


@pytest.mark.ranks(1, 2)
def test_table_full_disk_is_refused_on_all_ranks(world, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    state = declare(world, tmp_path)
    if world.rank == world.size - 1:
        monkeypatch.setattr("anyrank.keyed.spill.write_all", full)
    with pytest.raises(AnyrankError, match=r"--scratch .* cannot take \d+ bytes more.*No space left on device"):
        add(state, tmp_path, 0, ROWS)


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize("by", [["-word", "key"], ["x", "key"], ["-key"]])
def test_ordered_on_disk_is_that_in_memory(world, tmp_path, by):
    mine = np.arange(5_000) * world.size + world.rank
    keys = np.random.default_rng(1).permutation(5_000 * world.size)[mine]
    columns = {"key": keys, "word": Text.of(b"%d" % (k % 90) for k in keys.tolist())}
    columns |= {"x": np.ma.masked_less(keys % 50, 3), "pair": np.stack([keys, -keys], axis=1)}
    parts = [take(columns, slice(first, first + 500)) for first in range(0, 5_000, 500)]
    blocks = ordered_on_disk(world, lambda: iter(parts), by, 5_000, 1 << 18, tmp_path)
    whole = ordered(world, columns, by, unique=True)
    for _ in range(2):
        ranks = [[world.comm.allgather(block) for block in blocks()], [world.comm.allgather(whole)]]
        check_collective(world, len(ranks[0]) > 3, "blocks")
        for name in columns:
            rows = [[row for block in one for part in block for row in part[name].tolist()] for one in ranks]
            check_collective(world, rows[0] == rows[1], name)


def test_ordered_on_disk_error_of_a_part_is_raised(tmp_path):
    def parts():
        yield {"x": np.arange(3)}
        raise AnyrankError("a part cannot be computed")

    with pytest.raises(AnyrankError, match="a part cannot be computed"):
        ordered_on_disk(World(), parts, ["x"], 6, 1 << 20, tmp_path)


def test_disk_array_slices_are_those_of_the_whole():
    whole, parts = np.arange(60).reshape(20, 3), [0, 5, 0, 11, 4]
    starts = np.cumsum([0, *parts])

    def read(start, first, last):
        return whole[start + first : start + last]

    array = DiskArray(whole.dtype, (3,), [(n, partial(read, start)) for n, start in zip(parts, starts, strict=False)])
    assert (array.shape, array.size, array.nbytes, len(array)) == ((20, 3), 60, 480, 20)
    for first in range(21):
        for last in range(first, 22):
            assert np.array_equal(array[first:last], whole[first:last])
