"""A checkpoint of any layout is read on any other layout with the same bits."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ranks import check_collective
from storage.samples import SHAPES, checkpoints, declare, fill, first_ranks, holds, whole, write

from anyrank.layout import Layout
from anyrank.numerics import strided
from anyrank.numerics.strided import extents
from anyrank.state import State
from anyrank.storage import staging
from anyrank.storage.staging import writing_layout

SPLITS = ("rows", "columns", "bricks")


@pytest.mark.ranks(1, 2, 3, 4)
def test_checkpoint_of_any_layout_is_read_on_any_other(world, tmp_path):
    """Each is read by all numbers of ranks, each time with another split: on 3 and 4 ranks, with all splits."""
    for first, written in enumerate(SPLITS):
        saved = write(tmp_path / written, declare(world, written), 5)
        for count in range(1, world.size + 1):
            read = SPLITS[(first + count + world.size) % len(SPLITS)]
            few = first_ranks(world, count)
            good = True
            if few is not None:
                state = declare(few, read)
                restored = checkpoints(tmp_path / written, state).restore()
                good = restored is not None and (restored.step, restored.refused) == (5, [])
                good = good and holds(state, 5) and state.digests() == saved.digests
                good = good and state.digest() == saved.digest
            check_collective(world, good, f"written as {written}, read by {count} as {read}")


@pytest.mark.ranks(1, 2, 3, 4)
def test_checkpoint_of_few_ranks_is_read_by_many(world, tmp_path):
    for count in range(1, world.size):
        few = first_ranks(world, count)
        if few is not None:
            write(tmp_path / str(count), declare(few, "bricks"), 3)
        world.barrier()
        state = declare(world, "columns")
        restored = checkpoints(tmp_path / str(count), state).restore()
        check_collective(world, restored is not None and holds(state, 3), f"{count} wrote")


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("short", [0, 1 << 40], ids=["each its runs", "exchanged for rows"])
@pytest.mark.parametrize("piece", [1, 100, 1 << 24])
def test_checkpoint_file_does_not_depend_on_the_writing_layout(world, tmp_path, monkeypatch, short, piece):
    monkeypatch.setattr(staging, "SHORT_EXTENT", short)
    monkeypatch.setattr(strided, "PIECE", piece)
    # Over the numbers of ranks, all splits are used.
    split = SPLITS[(piece.bit_length() + bool(short) + world.size) % len(SPLITS)]
    saved = write(tmp_path, declare(world, split), 2)
    with h5py.File(saved.path, "r", locking=False) as file:
        for name in SHAPES:
            check_collective(world, np.array_equal(file[f"fields/{name}"][...], whole(name, 2)), name)


@pytest.mark.ranks(2, 4)
@pytest.mark.parametrize("width", [4, 301])
def test_checkpoint_block_is_written_without_its_halo(world, tmp_path, monkeypatch, width):
    monkeypatch.setattr(staging, "SHORT_EXTENT", 1 << 40)
    state = State(world, "columns")
    state.field("u", (8, width * world.size), halo=2)
    # Long rows start at cache lines, with gaps between them, which must not get into the file.
    check_collective(world, (state.u.storage.strides[0] == (width + 4) * 8) == (width == 4))
    state.u.storage[...] = -1.0  # a ghost cell in the file would be detected
    state.u[...] = state.u.layout.linear
    writer = checkpoints(tmp_path, state)
    writer.begin()
    saved = writer.finish()
    with h5py.File(saved.path, "r", locking=False) as file:
        expected = np.arange(8 * width * world.size, dtype=float).reshape(8, -1)
        check_collective(world, np.array_equal(file["fields/u"][...], expected))


@pytest.mark.ranks(3)
def test_writing_layout_uses_rows_for_short_runs_only(world):
    thin, thick = Layout.bricks((6, 3), world, "columns"), Layout.bricks((6, 3 << 13), world, "columns")
    few_rows = Layout.bricks((2, 9), world, "columns")
    assert writing_layout(thin, 8).grid == (3, 1)
    assert writing_layout(thick, 8) is thick
    assert writing_layout(few_rows, 8) is few_rows


@st.composite
def bricks(draw):
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    start = [draw(st.integers(0, n)) for n in shape]
    stop = [draw(st.integers(a, n)) for a, n in zip(start, shape, strict=True)]
    return tuple(shape), tuple(start), tuple(stop)


@given(bricks(), st.sampled_from(["u1", "f8", "c16"]))
def test_runs_put_every_element_at_its_offset_only(brick, dtype):
    shape, start, stop = brick
    slices = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    everything = np.arange(1, np.prod(shape) + 1).astype(dtype).reshape(shape)
    result = bytearray(everything.nbytes)
    part = np.ascontiguousarray(everything[slices])
    pieces = list(extents(part, shape, start))
    for offset, data in pieces:
        result[offset : offset + len(data)] = data
    expected = np.zeros(shape, dtype)
    expected[slices] = part
    assert bytes(result) == expected.tobytes()
    assert sum(len(data) for _, data in pieces) == part.nbytes
    offsets = [offset for offset, _ in pieces]
    assert all(a + len(pieces[0][1]) < b for a, b in pairwise(offsets)), "runs that touch"


@pytest.mark.ranks(1, 3)
def test_checkpoint_of_scalars_only_is_restored(world, tmp_path):
    state = State(world)
    state.scalar("hits", 2**62)
    state.scalar("nan", float("nan"))
    writer = checkpoints(tmp_path, state)
    writer.begin()
    assert not writer.finish().error
    other = State(world)
    other.scalar("hits", 0)
    other.scalar("nan", 0.0)
    assert checkpoints(tmp_path, other).restore().step == 0
    check_collective(world, other.hits == 2**62 and other.digests() == state.digests())


@pytest.mark.ranks(1, 2)
def test_restore_without_a_checkpoint_keeps_the_state(world, tmp_path: Path):
    state = declare(world)
    fill(state, 4)
    assert checkpoints(tmp_path / "nowhere", state).restore() is None
    check_collective(world, holds(state, 4))
