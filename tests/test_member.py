"""User-defined members: a State, checkpoints and start-up checks take any object with the methods of Member."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from ranks import check_collective

from anyrank.errors import CheckpointError, UsageError
from anyrank.field import Field
from anyrank.layout import Layout
from anyrank.runtime.memory import memory_usage
from anyrank.runtime.startup import check_state
from anyrank.state import State
from anyrank.storage.checkpoints import Checkpoints


class Tally:
    """Counts by bin: each rank has its own counts, and a checkpoint has the sums over all ranks."""

    description = "counts of all ranks"

    def __init__(self, name, world, bins):
        self.name, self.world = name, world
        self.mine = np.zeros(bins, np.int64)
        self.layout = Layout.blocks(bins, world)

    @property
    def nbytes(self):
        return self.mine.nbytes

    def describe(self):
        return f"tally of {len(self.mine)} bins"

    def kinds(self):
        return {self.name: f"<i8 ({len(self.mine)},)"}

    def stored(self):
        total = self.world.allreduce(self.mine)[self.layout.slices]
        return {self.name: Field.from_array(self.name, self.layout, total, ("bin",), self.description, "tallies")}

    def load(self, source):
        self.mine[:] = 0
        self.mine[self.layout.slices] = source.read(self.name, self.layout)

    def digest(self):
        return self.stored()[self.name].digest()

    def count(self, bin, times=1):
        self.mine[bin] += times


def declare_state(world, bins=5) -> State:
    state = State(world)
    state.field("T", (9,))
    state.scalar("n", 3)
    state.add(Tally("hits", world, bins))
    return state


def write_checkpoint(state, folder):
    checkpoints = Checkpoints(folder, state, "tally", {})
    checkpoints.begin()
    saved = checkpoints.finish()
    assert not saved.error, saved.error
    return saved


@pytest.mark.ranks(1, 2, 3)
def test_state_member_of_a_user_is_saved_and_restored(world, tmp_path):
    state = declare_state(world)
    state.T[...], state.n = 7.0, 11
    state.hits.count(world.rank, times=4)
    state.hits.count(4)
    saved = write_checkpoint(state, tmp_path)
    expected = [*([4] * world.size), *([0] * (5 - world.size))]
    expected[4] += world.size
    with h5py.File(saved.path, "r") as file:
        check_collective(world, file["tallies/hits"][...].tolist() == expected)
        check_collective(world, file["tallies/hits"].attrs["long_name"] == "counts of all ranks")
    check_collective(world, {*saved.digests} == {"T", "n", "hits"} and saved.digests == state.digests())
    other = declare_state(world)
    Checkpoints(tmp_path, other, "tally", {}).restore()
    check_collective(
        world, other.digest() == state.digest() and (other.n, other.hits.digest()) == (11, saved.digests["hits"])
    )
    check_collective(world, world.allreduce(other.hits.mine).tolist() == expected)


@pytest.mark.ranks(2)
def test_checkpoint_damaged_part_of_a_member_is_refused(world, tmp_path):
    state = declare_state(world)
    path = write_checkpoint(state, tmp_path).path
    if world.rank == 0:
        with h5py.File(path, "r") as file:
            offset = file["tallies/hits"].id.get_offset()
        with path.open("r+b") as plain:
            plain.seek(offset)
            plain.write(b"\1")
    world.barrier()
    with pytest.raises(CheckpointError, match="hits is damaged"):
        Checkpoints(tmp_path, declare_state(world), "tally", {}).restore()


@pytest.mark.ranks(1, 2)
def test_checkpoint_of_another_member_is_refused_by_name(world, tmp_path):
    write_checkpoint(declare_state(world), tmp_path)
    with pytest.raises(UsageError, match=r"hits is <i8 \(6,\) in the program's state and <i8 \(5,\) in .*\.h5"):
        Checkpoints(tmp_path, declare_state(world, bins=6), "tally", {}).restore()


@pytest.mark.ranks(2)
def test_check_state_compares_descriptions_of_members(world):
    with pytest.raises(UsageError, match=r"hits: tally of 5 bins on rank 0, tally of 6 bins on rank 1"):
        check_state(declare_state(world, bins=5 + world.rank))


@pytest.mark.ranks(1, 2)
def test_memory_usage_counts_every_member(world):
    before = memory_usage(declare_state(world))
    after = memory_usage(declare_state(world, bins=1005))
    check_collective(world, after["arrays"] == before["arrays"] + 8000)
    check_collective(world, after["staging"] == before["staging"] + 8000 // world.size)


@pytest.mark.ranks(1)
def test_state_add_of_no_member_is_refused(world):
    state = declare_state(world)
    for stranger in (np.zeros(3), object(), "words"):
        with pytest.raises(TypeError, match="takes a member of a State"):
            state.add(stranger)
    with pytest.raises(UsageError, match="'hits' is declared twice"):
        state.add(Tally("hits", world, 3))
    with pytest.raises(UsageError, match="'two words' cannot name a member"):
        state.add(Tally("two words", world, 3))
    with pytest.raises(AttributeError, match=r"hits is a Tally: write its values with state\.hits\.add"):
        state.hits = 1
