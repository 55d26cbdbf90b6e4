"""Rows sorted over all ranks by columns of any type, and written to files that do not depend on the ranks."""

from __future__ import annotations

import csv
import math

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ranks import check_collective

from anyrank.errors import AnyrankError
from anyrank.keyed.hdf5_layout import PADDED
from anyrank.keyed.order import head, ordered, text_ranks
from anyrank.keyed.rows import Text, take
from anyrank.keyed.write import write_csv, write_hdf5

RANDOM = np.random.default_rng(9)
N = 900
WORDS = [b"%d" % n + b"," * (n % 3 == 0) + b'"\n' * (n % 7 == 0) for n in RANDOM.integers(0, 300, N).tolist()]
NUMBERS = RANDOM.integers(0, 5, N)
FLOATS = RANDOM.choice([-0.0, 0.0, 1.5, -2.25, np.inf, -np.inf, np.nan, 1e-320, 0.1], N)


def part(world, skewed=False):
    """This rank's rows: an unsorted part, or all rows on the last rank."""
    to = np.full(N, world.size - 1) if skewed else np.random.default_rng(1).integers(0, world.size, N)
    columns = {"n": NUMBERS, "word": Text.of(WORDS), "x": FLOATS}
    return take(columns, to == world.rank)


@given(st.lists(st.one_of(st.binary(max_size=20), st.sampled_from([b"a" * n for n in (7, 8, 9, 127, 128, 129, 300)]))))
def test_text_ranks_are_those_of_sorted_bytes(words):
    order = sorted(words)
    assert text_ranks(Text.of(words)).tolist() == [order.index(word) for word in words]


@pytest.mark.ranks(1, 2, 3, 4, 7)
@pytest.mark.parametrize("skewed", [False, True])
def test_ordered_rows_have_one_order(world, skewed):
    result = ordered(world, part(world, skewed), ["-n", "word"])
    rows = [
        row
        for part in world.comm.allgather([*zip(result["n"].tolist(), result["word"].tolist(), strict=True)])
        for row in part
    ]
    check_collective(world, rows == sorted(zip(NUMBERS.tolist(), WORDS, strict=True), key=lambda r: (-r[0], r[1])))
    first = head(world, result, 3)
    check_collective(world, [*zip(first["n"], first["word"], strict=True)] == [(n, w.decode()) for n, w in rows[:3]])


@pytest.mark.ranks(1, 2, 3)
def test_ordered_files_have_the_same_bytes_on_any_ranks(world, tmp_path):
    columns = ordered(world, part(world), ["x", "word"])
    columns["day"] = columns["n"].astype("M8[D]")
    columns["some"] = np.ma.masked_equal(columns["n"], 3)
    path = write_csv(world, tmp_path / "rows.csv", columns)
    with path.open(newline="") as file:
        names, *rows = csv.reader(file)
    check_collective(world, names == ["n", "word", "x", "day", "some"] and len(rows) == N)
    expected = sorted(
        zip(NUMBERS, WORDS, FLOATS, strict=True),
        key=lambda r: (
            math.isnan(r[2]),
            np.nan_to_num(r[2], posinf=math.inf, neginf=-math.inf),
            math.copysign(1, r[2]),
            r[1],
            r[0],
        ),
    )
    check_collective(world, [(int(r[0]), r[1].encode()) for r in rows] == [r[:2] for r in expected], "CSV's rows")
    check_collective(
        world, np.array([float(r[2]) for r in rows]).tobytes() == np.array([r[2] for r in expected]).tobytes()
    )
    check_collective(world, (rows[0][3][:9], {r[4] for r in rows}) == ("1970-01-0", {"0", "1", "2", "", "4"}))
    with h5py.File(write_hdf5(world, tmp_path / "rows.h5", columns, made_by="a test"), "r") as file:
        words = file["word"].asstr()[:].tolist()
        check_collective(world, words == [r[1].decode() for r in expected] and file.attrs["made_by"] == "a test")
        check_collective(world, np.isnan(file["some"][:]).sum() == (NUMBERS == 3).sum())


@pytest.mark.ranks(1, 3)
def test_write_hdf5_long_text_is_stored_as_bytes_and_sizes(world, tmp_path):
    words = [b"w" * (PADDED + 1), b"", b"x"] if world.rank == world.size - 1 else []
    with h5py.File(write_hdf5(world, tmp_path / "rows.h5", {"word": Text.of(words)}), "r") as file:
        check_collective(world, file["word_size"][:].tolist() == [PADDED + 1, 0, 1])
        check_collective(world, file["word"][:].tobytes() == b"w" * (PADDED + 1) + b"x")


@pytest.mark.ranks(1, 2)
@pytest.mark.parametrize("write", [write_csv, write_hdf5])
def test_write_on_a_full_disk_keeps_the_old_file(world, tmp_path, write, monkeypatch):
    path = tmp_path / "rows"
    path.write_text("before")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    if world.rank == world.size - 1:
        monkeypatch.setattr("anyrank.storage.durable.write_all", full)
    with pytest.raises(AnyrankError, match=r"was not written: .*No space left") as refused:
        write(world, path, {"n": np.arange(3)})
    check_collective(
        world, refused.value.collective and [*tmp_path.iterdir()] == [path] and path.read_text() == "before"
    )


@pytest.mark.ranks(1, 2)
def test_ordered_numbers_of_any_type_are_sorted(world):
    for dtype in ("g", "f2", "?", "i1", "M8[s]"):
        column = np.array([3, 0, 2, 1, 1] if world.rank == 0 else [2, 0]).astype(dtype)
        parts = world.comm.allgather(ordered(world, {"x": column}, ["x"])["x"])
        expected = np.sort(np.concatenate(world.comm.allgather(column)))
        check_collective(world, np.array_equal(np.concatenate(parts), expected), dtype)
