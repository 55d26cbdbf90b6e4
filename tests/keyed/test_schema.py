"""Columns that differ between ranks: they are unified before rows are sent, or all ranks refuse them."""

from __future__ import annotations

import csv

import h5py
import numpy as np
import pytest
from mpi4py import MPI
from ranks import check_collective

from anyrank.errors import AnyrankError, UsageError
from anyrank.exchange.shuffle import Shuffle
from anyrank.keyed.order import head, ordered
from anyrank.keyed.rows import Text, take
from anyrank.keyed.schema import join_masks, split_masks, unify_columns
from anyrank.keyed.sorting import Sorter, sort
from anyrank.keyed.table import Table
from anyrank.keyed.write import write_csv, write_hdf5
from anyrank.world import World

N = 60
NUMBERS = np.random.default_rng(3).integers(0, 9, N)
NAMES = np.array([b"n%d" % n + b"-long" * (n == 8) for n in NUMBERS.tolist()])


def mine(world, odd):
    """This rank's rows, masked and of other widths as rank `odd` sees them, and no rows on the last rank."""
    rows = np.arange(N)[world.rank :: max(1, world.size - 1)] if world.rank < max(1, world.size - 1) else slice(0)
    x = np.ma.masked_equal(NUMBERS[rows], 4) if world.rank == odd else NUMBERS[rows]
    names = NAMES[rows].tolist()
    return {"x": x, "name": np.array(names), "row": np.arange(N)[rows], "word": Text.of(names)}


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize("odd", [0, 1, 2])
def test_unify_columns_gives_one_type_and_mask_on_all_ranks(world, odd):
    columns = unify_columns(world, mine(world, odd))
    kinds = [(str(x.dtype), isinstance(x, np.ma.MaskedArray)) for x in columns.values() if isinstance(x, np.ndarray)]
    check_collective(world, len({*map(repr, world.comm.allgather(kinds))}) == 1, str(kinds))
    check_collective(world, isinstance(columns["x"], np.ma.MaskedArray) == (odd < world.size))
    check_collective(world, isinstance(columns["word"], Text) and len(columns["x"]) == len(columns["word"]))


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"a": np.zeros(1)}, r"column 'a' is int64 on rank 0 and float64 on rank 1"),
        ({"a": Text.of(["x"])}, r"column 'a' is int64 on rank 0 and text on rank 1"),
        ({"a": np.zeros((1, 2), np.int64)}, r"column 'a' is int64 on rank 0 and int64\[2\] on rank 1"),
        ({"b": np.zeros(1, np.int64)}, r"columns are \['a'\] on rank 0 and \['b'\] on rank 1"),
        ({}, r"columns are \['a'\] on rank 0 and \[\] on rank 1"),
    ],
)
def test_unify_columns_of_two_types_are_refused_by_all_ranks(world, tmp_path, other, message):
    columns = other if world.rank == 1 else {"a": np.zeros(1, np.int64)}
    for call in (
        lambda: unify_columns(world, columns),
        lambda: ordered(world, columns, ["a"]),
        lambda: sort(world, np.arange(1), columns),
        lambda: write_csv(world, tmp_path / "a.csv", columns),
        lambda: write_hdf5(world, tmp_path / "a.h5", columns),
    ):
        with pytest.raises(UsageError, match=message) as refused:
            call()
        check_collective(world, refused.value.collective)


@pytest.mark.ranks(2)
def test_unify_columns_rank_without_rows_gets_the_type(world):
    columns = {"a": np.arange(3, dtype=np.int32), "b": Text.of("xyz"), "c": np.zeros((3, 2))}
    empty = {"a": np.empty(0), "b": np.empty(0), "c": np.empty(0)}
    result = unify_columns(world, columns if world.rank else empty)
    check_collective(world, (result["a"].dtype, type(result["b"]), result["c"].shape[1:]) == (np.int32, Text, (2,)))


def test_split_masks_sets_hidden_values_to_zero():
    columns = {"a": np.ma.MaskedArray([5, 6], [True, False]), "b": np.arange(2)}
    apart = split_masks(columns)
    assert {name: x.tolist() for name, x in apart.items()} == {"\0a": [True, False], "a": [0, 6], "b": [0, 1]}
    assert join_masks(apart)["a"].tolist() == [None, 6]


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize("by", [["x", "row"], ["-x", "row"], ["name"]])
def test_ordered_masks_of_one_rank_are_kept_and_come_last(world, by):
    result = ordered(world, mine(world, 0), by)
    rows = head(world, result, N)
    alone = World(MPI.COMM_SELF)
    columns = [mine_of(rank, world.size) for rank in range(world.size)]
    whole = {name: np.ma.concatenate([np.ma.asarray(c[name]) for c in columns]) for name in ("x", "name", "row")}
    right = head(alone, ordered(alone, whole, by), N)
    alone.close()
    check_collective(world, [rows[name] for name in right] == [*right.values()])
    if "x" in by[0]:
        nulls = [value is None for value in rows["x"]]
        check_collective(world, any(nulls) and nulls == sorted(nulls))


def mine_of(rank, size):
    """The rows of `mine` of another rank."""
    return mine(type("Ranks", (), {"rank": rank, "size": size}), 0)


@pytest.mark.ranks(1, 2, 3)
def test_sort_keys_of_two_widths_get_the_larger(world):
    keys = mine(world, 0)["name"]
    result, _ = sort(world, keys)
    check_collective(world, [name for part in world.comm.allgather(result.tolist()) for name in part] == sorted(NAMES))


@pytest.mark.ranks(2)
def test_sorter_keys_of_two_types_are_refused_by_all_ranks(world, tmp_path):
    sorter = Sorter(world, 1 << 30, tmp_path)
    sorter.add(np.array([b"ab", b"c"]) if world.rank else np.array([b"abc", b"d"]), {})
    sorter.finish()
    with pytest.raises(UsageError, match=r"'key': '\|S3'} on rank 0 and {.*'key': '\|S2'} on rank 1"):
        next(sorter.blocks(0, 4))
    sorter.close()


@pytest.mark.ranks(1, 2, 3)
def test_write_has_the_masks_and_widths_of_all_ranks(world, tmp_path):
    columns = mine(world, 0)
    parts = [mine_of(rank, world.size) for rank in range(world.size)]
    x = [value for part in parts for value in part["x"].tolist()]
    names = [name for part in parts for name in part["name"].tolist()]
    with write_csv(world, tmp_path / "a.csv", columns).open(newline="") as file:
        lines = [*csv.reader(file)][1:]
    check_collective(world, [line[0] for line in lines] == ["" if v is None else str(v) for v in x])
    with h5py.File(write_hdf5(world, tmp_path / "a.h5", take(columns, slice(None))), "r") as file:
        check_collective(world, file["name"][...].tolist() == names and "-long" in str(names))
        check_collective(world, np.isnan(file["x"][...]).tolist() == [v is None for v in x])


@pytest.mark.ranks(2, 3)
def test_gather_takes_lists_weights_and_masks_of_one_rank(world):
    """The table determines the types, and all ranks send a column that one rank has: no rows mean no other type."""
    n, digests = 3000, []
    for way in ("add", "gather"):
        table = Table("t", world, {"key": "int64"}, {"most": ("int64", "max"), "sum": ("float64", "exact")})
        if world.rank == 0:
            keys = np.arange(n) * 7
            getattr(table, way)(keys, most=keys.tolist(), sum=[0.5] * n, count=np.full(n, 2))
        elif world.rank == 1:
            values = np.ma.MaskedArray(np.arange(n) - 9, np.arange(n) % 3 == 0)
            getattr(table, way)(np.arange(n), most=values, sum=np.arange(n))
        else:
            getattr(table, way)([], most=[], sum=[])
        digests.append(table.digest())
    check_collective(world, digests[0] == digests[1])


@pytest.mark.ranks(2)
def test_table_cleared_by_one_rank_alone_still_settles(world):
    table = Table("t", world, {"key": "int64"}, {"sum": ("float64", "exact")})
    table.add(np.arange(1 << 10), sum=np.full(1 << 10, 2.0**60))
    table.settle()
    if world.rank == 0:
        table.clear()
    table.add(np.arange(8), sum=np.full(8, 2.0**-70))
    check_collective(world, table.rows > 8)
    facts = world.comm.allgather(table.metadata["sum_window"].tolist())
    check_collective(world, facts[0] == facts[1], str(facts))


@pytest.mark.ranks(2)
def test_shuffle_rows_of_another_size_are_an_error_not_values(world):
    shuffle = Shuffle(world, [1, 1])
    wide = np.zeros(2, np.int64 if world.rank else np.int32)
    if world.rank:  # four bytes arrive instead of eight
        with pytest.raises(AnyrankError, match="rows of another size on rank 0: 4 bytes arrived, not 8"):
            shuffle(wide)
    else:
        with pytest.raises(MPI.Exception):
            shuffle(wide)
    world.barrier()
