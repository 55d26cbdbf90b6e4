"""Sorting over ranks: one stable order and exact blocks, for any keys, ranks and memory."""

from __future__ import annotations

import errno
import os
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from ranks import check_collective

from anyrank.errors import AnyrankError, UsageError
from anyrank.keyed.rows import Text
from anyrank.keyed.sort_keys import decode, encode
from anyrank.keyed.sorting import Sorter, sort
from anyrank.keyed.spill import SAMPLE, ScratchFile, SortedInMemory
from anyrank.layout import even_cuts

SIZE = 2000


def floats(rng, n, dtype):
    """Numbers with zeros of both signs, infinities, and NaNs with several bit patterns."""
    keys = rng.standard_normal(n).astype(dtype).round(1)
    bits = keys.view(f"u{keys.itemsize}")
    bits[::7] |= np.array(np.nan, dtype).view(bits.dtype)
    keys[::11] = rng.choice(np.array([0.0, -0.0, np.inf, -np.inf], dtype), len(keys[::11]))
    bits[::5] ^= bits[::5] << bits.dtype.type(8 * bits.itemsize - 1)
    return keys


KEYS = {
    "int64": lambda rng, n: rng.integers(-(1 << 63), (1 << 63) - 1, n),
    "int32": lambda rng, n: rng.integers(-9, 9, n).astype(np.int32),
    "uint64": lambda rng, n: rng.integers(0, 1 << 64, n, np.uint64),
    "uint32": lambda rng, n: np.full(n, 5, np.uint32),
    "float64": lambda rng, n: floats(rng, n, np.float64),
    "float32": lambda rng, n: floats(rng, n, np.float32),
    "S5": lambda rng, n: rng.integers(0, 3, (n, 5), np.uint8).view("S5").ravel(),
    "S9": lambda rng, n: rng.integers(0, 3, (n, 9), np.uint8).view("S9").ravel(),
}


def order_of(keys):
    """NumPy's stable order, with −0 before 0; NumPy treats all NaNs as equal, we order them by their bits."""
    if keys.dtype.kind != "f":
        return np.argsort(keys, kind="stable")
    bits = keys.view(f"i{keys.itemsize}")
    nan, negative = np.isnan(keys), np.signbit(keys)
    magnitude = bits & np.iinfo(bits.dtype).max
    third = np.where(nan & negative, -magnitude, magnitude)
    return np.lexsort([third, np.where(nan, negative, ~negative), np.where(nan, 0, keys), nan])


def table(name, size):
    rng = np.random.default_rng(size)
    keys = KEYS[name](rng, size)
    rows = np.arange(size)
    return keys, {"row": rows, "pair": np.stack([rows, -rows], 1), "record": rows.astype([("a", "u1"), ("b", "<f4")])}


def mine(world, size):
    """Uneven parts of the input; some are empty."""
    cuts = [0, *(size * (rank + 1) ** 2 // world.size**2 // (1 + rank % 2) for rank in range(world.size - 1)), size]
    cuts = np.maximum.accumulate(cuts)
    return slice(cuts[world.rank], cuts[world.rank + 1])


def block(world, size):
    cuts = even_cuts(size, world.size)
    return slice(cuts[world.rank], cuts[world.rank + 1])


@pytest.mark.ranks(7)
@pytest.mark.parametrize("size", [0, 1, SIZE])
def test_sort_of_few_rows_on_many_ranks_is_in_order(world, size):
    check_order(world, "float64", size)


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("name", KEYS)
def test_sort_rows_are_in_one_stable_order(world, name):
    check_order(world, name, SIZE)


def check_order(world, name, size):
    keys, columns = table(name, size)
    columns["text"] = Text.of(b"%d" % row for row in range(size))
    part, order = mine(world, size), order_of(keys)[block(world, size)]
    expected = keys[order].tobytes()
    for overwrite in (False, True):
        own_keys = keys[part].copy()
        alone, nothing = sort(world, own_keys, overwrite=overwrite)
        check_collective(world, alone.tobytes() == expected and not nothing, f"{name} alone")
        check_collective(world, overwrite or own_keys.tobytes() == keys[part].tobytes(), "the keys that came in")
    result, with_them = sort(world, keys[part], {name: column[part] for name, column in columns.items()})
    check_collective(world, result.tobytes() == expected and result.dtype == keys.dtype, name)
    check_collective(world, with_them.pop("text").tolist() == columns["text"][order].tolist(), "text")
    for column, rows in with_them.items():
        check_collective(world, np.array_equal(rows, columns[column][order]), column)


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("name", ["float32", "S9"])
@pytest.mark.parametrize("budget", [1 << 30, 5000])
def test_sorter_beyond_memory_merges_runs_on_disk(world, tmp_path, monkeypatch, name, budget):
    monkeypatch.setattr("anyrank.keyed.sorting._MIN_ROWS", 100)
    keys, columns = table(name, SIZE)
    del columns["pair"]  # rows on disk have one axis
    order, part = order_of(keys), mine(world, SIZE)
    for payload in ({}, columns):
        sorter, result = Sorter(world, budget, tmp_path), []
        for begin in range(part.start, max(part.stop, part.start + 1), 100):
            rows = slice(begin, min(begin + 100, part.stop))
            sorter.add(keys[rows].copy(), {name: column[rows] for name, column in payload.items()})
        sorter.finish()
        spilled = world.sum(sum(not isinstance(run, SortedInMemory) for run in sorter.runs))
        check_collective(world, spilled > 1 if budget < 1 << 20 else spilled == 0, f"{spilled} runs on disk")
        for first, last in ((0, 1), (1, SIZE)):
            for start, block_keys, others in sorter.blocks(first, last):
                rows = order[start : start + len(block_keys)]
                check_collective(world, block_keys.tobytes() == keys[rows].tobytes(), f"keys {first}")
                for other, column in others.items():
                    check_collective(world, np.array_equal(column, columns[other][rows]), other)
                result += [*range(start, start + len(rows))]
        check_collective(world, world.sum(len(result)) == SIZE == len({*chain(*world.comm.allgather(result))}), "rows")
        sorter.close()
        check_collective(world, list(tmp_path.iterdir()) == [], "nothing is left")


def test_sort_keys_are_one_to_one_and_keep_every_bit():
    for bits, kind in ((np.arange(0, 1 << 32, 65_521, np.uint64).astype(np.uint32), np.float32),):
        codes = encode(bits.view(kind))
        assert len(np.unique(codes)) == len(bits)
        np.testing.assert_array_equal(decode(codes, np.dtype(kind)).view(np.uint32), bits)
    nan = np.array([0x7FF8000000000000, 0xFFF0000000000001, 0xFFFFFFFFFFFFFFFF, 0x7FF0000000000001], np.uint64)
    numbers = np.array([-np.inf, -1.0, -5e-324, -0.0, 0.0, 5e-324, 1.0, np.inf])
    codes = encode(np.concatenate([numbers, nan.view(float)]))
    assert codes[0] == 0 and (np.diff(codes[:8].astype(object)) > 0).all() and codes[8:].min() > codes[7]
    swapped = numbers.astype(">f8")
    np.testing.assert_array_equal(encode(swapped), codes[:8])


@pytest.mark.ranks(1, 2)
def test_sort_keys_of_other_types_are_refused(world, tmp_path):
    for keys in (np.zeros(3, "c8"), np.zeros(3, "V4"), np.zeros(3, "g"), np.zeros((2, 2)), np.array([None])):
        with pytest.raises(UsageError, match=r"cannot be sorted. Use one axis of numbers"):
            sort(world, keys)
        with pytest.raises(UsageError, match=r"cannot be sorted. Use one axis of numbers"):
            Sorter(world, 1 << 20, tmp_path).add(keys, {})
    for descending in ([], [True, False, True]):
        with pytest.raises(UsageError, match=rf"{len(descending)} directions for 2 keys: give one for each key"):
            sort(world, [np.zeros(3), np.zeros(3)], descending=descending)


#: Key types with few distinct values, so that many rows have equal keys; NaN and NaT are among them.
TYPES = ("?", "i1", "i2", ">i4", "i8", "u1", "u2", "u4", ">u8", "f2", ">f4", "f8", "M8[D]", ">M8[ns]", "m8[s]")
TYPES += ("S3", "S11", "U2", ">U5")


def values(rng, n, dtype):
    """Return random keys of a type, with many equal ones."""
    dtype = np.dtype(dtype)
    if dtype.kind in "SU":
        return rng.choice(
            np.array(["", "a", "b", "ab", "a\0b", "zzz"] + ["äöü", "\U0001f600"] * (dtype.kind == "U")), n
        ).astype(dtype)
    numbers = rng.integers(0 if dtype.kind in "bu" else -4, 2 if dtype.kind == "b" else 4, n)
    keys = numbers.astype(dtype)
    if dtype.kind in "fmM":
        keys[rng.random(n) < 0.2] = np.array("nan" if dtype.kind == "f" else "nat").astype(dtype)
    return keys


def ranks_of(keys, descending):
    """Return numbers that sort like the keys: NaN and NaT last in both directions."""
    order, ranks = np.unique(keys, return_inverse=True)  # equal NaNs and NaTs are one value, the last
    missing = np.isnat(keys) if keys.dtype.kind in "mM" else keys != keys
    return np.where(missing, len(order), -ranks if descending else ranks)


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize("descending", [False, True])
def test_sort_each_type_and_direction_is_that_of_numpy(world, descending):
    rng = np.random.default_rng(3)
    for dtype in TYPES:
        keys, rows = values(rng, 300, dtype), np.arange(300)
        order = np.argsort(ranks_of(keys, descending), kind="stable")[block(world, 300)]
        part = mine(world, 300)
        result, columns = sort(world, keys[part], {"row": rows[part]}, descending=descending)
        check_collective(world, columns["row"].tolist() == rows[order].tolist(), dtype)
        native = keys[order].astype(keys.dtype.newbyteorder("="))
        check_collective(world, result.dtype == native.dtype and result.tobytes() == native.tobytes(), dtype)


@pytest.mark.ranks(1, 2, 3)
def test_sort_random_keys_and_directions_are_lexsorted(world, tmp_path, monkeypatch):
    monkeypatch.setattr("anyrank.keyed.sorting._MIN_ROWS", 100)
    rng, size = np.random.default_rng(5), 700
    for _ in range(12):
        types = rng.choice(TYPES, rng.integers(1, 5)).tolist()
        down = (rng.random(len(types)) < 0.5).tolist()
        keys, rows, text = (
            [values(rng, size, t) for t in types],
            np.arange(size),
            Text.of(b"%d" % k * k for k in range(size)),
        )
        order, part = np.lexsort([ranks_of(k, d) for k, d in zip(keys, down, strict=True)][::-1]), mine(world, size)
        what = f"{types} {down}"
        own, columns = sort(
            world, [key[part] for key in keys], {"row": rows[part], "text": text[part]}, descending=down
        )
        here = order[block(world, size)]
        check_collective(world, columns["row"].tolist() == here.tolist(), what)
        check_collective(world, columns["text"].tolist() == text[here].tolist(), what)
        for key, result in zip(keys, own, strict=True):
            check_collective(world, result.tolist() == key[here].tolist() or key.dtype.kind in "fmM", what)
        sorter = Sorter(world, 9000, tmp_path, down)
        for begin in range(part.start, max(part.stop, part.start + 1), 100):
            piece = slice(begin, min(begin + 100, part.stop))
            sorter.add([key[piece] for key in keys], {"row": rows[piece], "text": text[piece]})
        sorter.finish()
        check_collective(world, world.sum(len(sorter.runs)) > world.size, "nothing was spilled")
        for start, _, columns in sorter.blocks(0, size):
            here = order[start : start + len(columns["row"])]
            check_collective(world, columns["row"].tolist() == here.tolist(), f"{what} spilled")
            check_collective(world, columns["text"].tolist() == text[here].tolist(), f"{what} spilled")
        sorter.close()


@pytest.mark.ranks(1, 2, 3)
def test_sort_masked_keys_on_one_rank_are_last(world):
    keys = np.array([3, 1, 2]) if world.rank else np.ma.MaskedArray([5, 9, 1], [False, True, False])
    rows = np.arange(3) + 10 * world.rank
    for descending in (False, True):
        result, columns = sort(world, keys, {"row": np.ma.MaskedArray(rows)}, descending=descending)
        whole = [value for part in world.comm.allgather(result.tolist()) for value in part]
        numbers = sorted([5, 1] + [3, 1, 2] * (world.size - 1), reverse=descending)
        check_collective(world, whole == [*numbers, None], f"{whole}")
        last = world.comm.allgather(columns["row"].tolist())[-1][-1]
        check_collective(world, last == 1, f"{last}")


@pytest.mark.ranks(3)
def test_sort_equal_keys_of_several_columns_stay_balanced(world):
    keys = [np.full(1000 if world.rank == 1 else 0, 7), np.full(1000 if world.rank == 1 else 0, b"same")]
    (first, _), _ = sort(world, keys)
    check_collective(world, len(first) in (333, 334), f"{len(first)} rows")


@pytest.mark.parametrize("after", [0, 1])
def test_scratch_file_full_disk_is_refused_and_leaves_nothing(tmp_path, monkeypatch, after):
    write, calls = os.pwrite, []

    def full(*arguments):
        calls.append(1)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*arguments)

    monkeypatch.setattr(os, "pwrite", full)
    scratch = ScratchFile(tmp_path)
    with pytest.raises(AnyrankError, match=rf"--scratch {tmp_path} cannot take 8000 bytes more.*No space left"):
        scratch.spill(SortedInMemory({"": np.arange(500), "other": np.arange(500)}))
    assert list(tmp_path.iterdir()) == [] and scratch._file is None


def test_scratch_file_searchsorted_equals_that_in_memory():
    keys = np.sort(np.random.default_rng(1).integers(0, 900, 3 * SAMPLE + 5))
    scratch = ScratchFile(Path("/tmp"))
    run = scratch.spill(SortedInMemory({"": keys}))
    sought = np.array([-1, 0, 1, *keys[::100], keys[-1], 901])
    for side in ("left", "right"):
        assert run.keys.searchsorted(sought, side) == keys.searchsorted(sought, side).tolist()
    assert (run.keys[0], run.keys[-1], len(run.keys)) == (keys[0], keys[-1], len(keys))
    scratch.close()
