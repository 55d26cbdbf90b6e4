"""Tables: the same rows, bits and digests for any distribution of the input, in checkpoints, on any number of ranks."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from mpi4py import MPI
from ranks import check_collective

from anyrank.errors import UsageError
from anyrank.kernel import Kernel
from anyrank.kernels.keys.reference import hash_of
from anyrank.keyed.aggregate import rounded
from anyrank.keyed.keymap import KeyMap, owners_of
from anyrank.keyed.rows import Text
from anyrank.keyed.table import Table
from anyrank.state import State
from anyrank.storage.checkpoints import Checkpoints
from anyrank.world import World

QUOTIENT = Kernel("group", "quotient")
RANDOM = np.random.default_rng(5)
WORDS = [b"w%d" % n + b"-of-a-long-word" * (n % 5 == 0) for n in (RANDOM.zipf(1.3, 4000) % 700).tolist()]
USERS = RANDOM.integers(-50, 50, 4000)
X = np.where(RANDOM.random(4000) < 0.01, 2.0**60, 1.0) * RANDOM.standard_normal(4000)
N = RANDOM.integers(-(2**40), 2**40, 4000)
VALUES = {
    "total": ("int64", "sum"),
    "low": ("float64", "min"),
    "high": ("int64", "max"),
    "sum": ("float64", "exact"),
    "square": ("float64", "squares"),
}


def declare_state(world) -> State:
    state = State(world)
    state.add(Table("words", world, {"word": "text"}))
    state.add(Table("visits", world, {"user": "int64", "word": "text", "day": "i4", "place": "text"}, VALUES))
    return state


def add(state, rows):
    """Add these rows; each rank adds those that a draw assigns to it."""
    mine = rows[np.random.default_rng(len(rows)).integers(0, state.world.size, len(rows)) == state.world.rank]
    words = Text.of(WORDS)[mine]
    state.words.add(words)
    facts = {"total": N[mine], "low": X[mine], "high": N[mine], "sum": X[mine], "square": X[mine]}
    state.visits.add(USERS[mine], words, USERS[mine] % 3, words[: len(words)], **facts)


def gather_rows(world, columns) -> dict:
    """All rows of all ranks, on all ranks, as lists by column."""
    parts = world.comm.allgather({name: x.tolist() for name, x in columns.items()})
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}


@pytest.mark.ranks(1, 2, 3, 4, 7)
def test_table_counts_words_and_owners_follow_the_hash(world):
    state = declare_state(world)
    add(state, np.arange(1500))
    state.words.settle()
    add(state, np.arange(1500, 4000))
    result = gather_rows(world, state.words.columns)
    check_collective(world, dict(zip(result["word"], result["count"], strict=True)) == Counter(WORDS), "counts")
    hashes = [hash_of(word) for word in result["word"]]
    check_collective(world, hashes == sorted(hashes), "order")
    check_collective(world, state.words.rows == len(hashes), "rows")


@pytest.mark.ranks(1, 2, 3, 4)
def test_table_values_of_compound_keys_are_exact(world):
    state = declare_state(world)
    add(state, np.arange(4000))
    result = gather_rows(world, state.visits.columns)
    key = (result["user"], result["word"], result["day"], result["place"])
    x: dict = {}
    for row, (user, word) in enumerate(zip(USERS.tolist(), WORDS, strict=True)):
        x.setdefault((user, word, user % 3, word), []).append(row)
    check_collective(world, [*zip(*key, strict=True)].sort() == [*x].sort() and len(x) == len(key[0]), "keys")
    rows = [x[key_of_row] for key_of_row in zip(*key, strict=True)]
    check_collective(world, result["count"] == [len(r) for r in rows], "count")
    check_collective(world, result["total"] == [int(N[r].sum()) for r in rows], "sum")
    check_collective(world, result["low"] == [X[r].min() for r in rows], "min")
    check_collective(world, result["high"] == [N[r].max() for r in rows], "max")
    window = state.visits._combined["sum"].window
    sums = QUOTIENT(
        np.array(result["sum"]), np.ones(len(rows), np.int64), window.origin, np.array(result["sum_special"], np.uint8)
    )
    check_collective(world, sums.tolist() == [math.fsum(X[r]) for r in rows], "exact sum")
    units = [
        sum(word << 64 * k for k, word in enumerate(np.array(s).view(np.uint64).tolist())) for s in result["square"]
    ]
    unit = Fraction(2) ** state.visits._combined["square"].window.origin
    check_collective(
        world, [n * unit for n in units] == [sum(Fraction(v) ** 2 for v in X[r].tolist()) for r in rows], "squares"
    )


@pytest.mark.ranks(1, 2, 3, 4, 7)
def test_table_checkpoint_on_other_ranks_has_the_same_digests(world, tmp_path):
    straight = declare_state(world)
    add(straight, np.arange(4000))
    state = declare_state(world)
    add(state, np.arange(1000))
    checkpoints = Checkpoints(tmp_path, state, "t", {}, keep=9)
    checkpoints.begin()
    add(state, np.arange(1000, 4000))  # while the first is written
    first = checkpoints.finish()
    check_collective(world, not first.error, first.error)
    other = declare_state(world)
    check_collective(world, Checkpoints(tmp_path, other, "t", {}).restore().step == 0)
    check_collective(world, other.digests() == first.digests, "restored")
    add(other, np.arange(1000, 4000))
    check_collective(world, other.digest() == straight.digest() == state.digest(), "went on")
    alone = declare_state(World(MPI.COMM_SELF))
    add(alone, np.arange(4000))
    check_collective(world, alone.digests() == straight.digests(), "one rank")


@pytest.mark.ranks(1, 3)
@pytest.mark.parametrize("io", ["pwrite", "gather"])
def test_table_without_rows_is_saved_and_restored(world, tmp_path, io):
    state = declare_state(world)
    checkpoints = Checkpoints(tmp_path, state, "t", {}, io=io)
    checkpoints.begin()
    check_collective(world, not checkpoints.finish().error)
    other = declare_state(world)
    Checkpoints(tmp_path, other, "t", {}, io=io).restore()
    check_collective(world, (len(other.words), other.digest()) == (0, state.digest()))


@pytest.mark.ranks(1)
def test_table_bad_declarations_are_refused(world):
    state = State(world)
    for keys, values, message in [
        ({}, {}, "need a key"),
        ({"a": "text"}, {"a": ("int64", "sum")}, "need a key and distinct identifiers"),
        ({"a": object}, {}, "fixed size"),
        ({"a": "text"}, {"b": ("int64", "median")}, "must be one of sum, min, max, min_wide, max_wide, exact"),
        ({"a": "text"}, {"b": ("float64", "sum")}, "depends on the order"),
        ({"a": "text"}, {"b": ("float32", "min")}, "must be int64, uint64 or float64"),
    ]:
        with pytest.raises(UsageError, match=message):
            state.add(Table("t", world, keys, values))
    table = state.add(Table("t", world, {"a": "text"}, {"b": ("int64", "sum")}))
    for arguments, values in [((), {}), (([b"x"],), {}), (([b"x"],), {"b": np.arange(2)})]:
        with pytest.raises(TypeError, match="of one length"):
            table.add(*arguments, **values)
    with pytest.raises(AttributeError, match=r"t is a Table: write its values with state.t.add"):
        state.t = 1


def test_owners_of_hashes_are_even_parts():
    hashes = np.array([0, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)
    assert owners_of(hashes, 1).tolist() == [0, 0, 0, 0]
    assert owners_of(hashes, 2).tolist() == [0, 0, 1, 1]
    assert owners_of(hashes, 3).tolist() == [0, 1, 1, 2]
    assert owners_of(np.array([2**64 // 3, 2**64 // 3 + 1], np.uint64), 3).tolist() == [0, 1]


@pytest.mark.ranks(1, 2, 3, 4, 7)
@pytest.mark.parametrize("groups", [10, 1 << 17])
def test_table_gather_gives_the_same_as_add(world, groups):
    """Few groups are combined locally; of many groups each row is sent first, except those of heavy hitters."""
    n = 140_000 // world.size
    keys = np.random.default_rng(world.rank).integers(0, groups, n)
    keys[::10] = 7
    x = np.ma.masked_less(np.random.default_rng(world.rank + 9).standard_normal(n), -1)
    digests = []
    for way in ("add", "gather"):
        state = State(world)
        table = state.add(Table("t", world, {"key": "int64"}, {"low": ("float64", "min"), "sum": ("float64", "exact")}))
        for rows in (slice(n // 3), slice(n // 3, None)):
            getattr(table, way)(keys[rows], low=x[rows], sum=x[rows])
            largest = int(world.allreduce(np.array([len(table)]), "max")[0])
        digests.append(state.digests())
        if groups > 10 and way == "gather":
            check_collective(world, largest < 1.3 * table.rows / world.size + 100, "rows are where they belong")
    check_collective(world, digests[0] == digests[1], "digests")
    everyone = Counter(k for part in world.comm.allgather(keys.tolist()) for k in part)
    result = gather_rows(world, table.columns)
    check_collective(world, dict(zip(result["key"], result["count"], strict=True)) == everyone, "counts")


@pytest.mark.ranks(1, 3)
def test_table_gather_of_no_rows_or_rows_of_one_rank(world):
    table = Table("t", world, {"key": "int64", "word": "text"}, {"sum": ("float64", "exact")})
    table.gather(np.empty(0, np.int64), [], sum=np.empty(0))
    check_collective(world, table.rows == 0, "nothing")
    mine = np.arange(70_000 if world.rank == world.size - 1 else 0)
    table.gather(mine, Text.of(b"%d" % (n % 7) for n in mine.tolist()), sum=mine.astype(float))
    check_collective(world, table.rows == 70_000, "one rank has all")


def test_table_key_that_is_too_long_is_refused(monkeypatch):
    monkeypatch.setattr("anyrank.keyed.keymap.MAX_KEY_BYTES", 8)
    keys = KeyMap()
    keys.add(Text.of(["12345678", "1234"]))
    with pytest.raises(UsageError, match="a key has 9 bytes; at most 8 are possible"):
        keys.add(Text.of(["1234", "123456789"]))
    with pytest.raises(UsageError, match="a key has 9 bytes"):
        keys.add(np.zeros((2, 9), np.uint8))
    assert len(keys) == 2


def test_rounded_sums_are_those_of_fractions():
    table = Table("t", World(), {"k": "int64"}, {"x": ("float64", "exact"), "n": ("int64", "sum")})
    random = np.random.default_rng(1)
    keys, x = random.integers(0, 9, 500), random.standard_normal(500) * 1e9
    table.add(keys, x=x, n=keys)
    for key, total, mean in zip(table.columns["k"], rounded(table, "x"), rounded(table, "x", mean=True), strict=True):
        whole = sum(map(Fraction, x[keys == key].tolist()))
        assert (total, mean) == (float(whole), float(whole / int((keys == key).sum())))
    with pytest.raises(UsageError, match=r"table t has no exact sum 'n'\. It has x\."):
        rounded(table, "n")
