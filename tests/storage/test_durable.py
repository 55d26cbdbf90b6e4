"""Durable files: old or new after any failure, and written by all ranks as one."""

from __future__ import annotations

import errno
import os
from itertools import chain
from pathlib import Path

import pytest
from ranks import check_collective

from anyrank.errors import AnyrankError
from anyrank.storage import durable


@pytest.fixture
def calls(monkeypatch):
    """The calls to the file system, in order."""
    recorded, fsync, replace = [], os.fsync, Path.replace

    def record_fsync(descriptor):
        recorded.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def record_rename(path, target):
        recorded.append(("rename", target.name))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_rename)
    return recorded


@pytest.mark.parametrize("content", ["α\n", b"\xff\x00"])
def test_write_atomically_syncs_file_renames_syncs_folder(tmp_path, calls, content):
    path = tmp_path / "facts.json"
    path.write_text("before")
    durable.write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert calls == [("fsync", ".facts.json.tmp"), ("rename", "facts.json"), ("fsync", tmp_path.name)]
    assert [*tmp_path.iterdir()] == [path]


def test_write_atomically_refused_leaves_old_content(tmp_path, monkeypatch):
    path = tmp_path / "facts.json"
    path.write_text("before")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        durable.write_atomically(path, "after")
    assert path.read_text() == "before" and [*tmp_path.iterdir()] == [path]


def test_write_all_after_a_short_write_continues(tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: real(descriptor, data[:3], offset))
    (tmp_path / "file").write_bytes(b"0123456789")
    with durable.open_for_writing(tmp_path / "file") as descriptor:
        durable.write_all(descriptor, memoryview(b"abcdefg"), 2)
    assert (tmp_path / "file").read_bytes() == b"01abcdefg9"


def test_write_all_without_progress_raises_oserror(monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: 0)
    with pytest.raises(OSError, match="takes no more bytes") as caught:
        durable.write_all(0, memoryview(b"abc"), 0)
    assert caught.value.errno == errno.EIO


def test_make_folder_syncs_the_parent_folder(tmp_path, calls):
    durable.make_folder(tmp_path / "checkpoints")
    durable.make_folder(tmp_path / "checkpoints")
    assert calls == [("fsync", tmp_path.name)] and (tmp_path / "checkpoints").is_dir()


def test_temporary_name_is_hidden_and_has_the_marks():
    path = Path("runs/step-1.h5")
    assert durable.temporary_of(path) == Path("runs/.step-1.h5.tmp")
    assert durable.temporary_of(path, "node7", "123") == Path("runs/.step-1.h5.node7.123.tmp")


def number(rank):
    return lambda laid_out: [(laid_out + rank, memoryview(bytes([48 + rank])))]


def write(world, path, lay_out, pieces):
    """Write a file on all ranks; `pieces` takes what `lay_out` returns."""
    with durable.open_collectively(world, path, lay_out) as (laid_out, put):
        put(chain.from_iterable(map(pieces, [laid_out])))  # `pieces` is called by `put`
    return path


@pytest.mark.ranks(1, 2, 3)
def test_open_collectively_joins_the_pieces_of_all_ranks(world, tmp_path):
    def lay_out(temporary):
        return temporary.write_bytes(b"ranks:")

    path = write(world, tmp_path / "file", lay_out, number(world.rank))
    check_collective(world, path.read_bytes() == b"ranks:" + b"0123"[: world.size])
    check_collective(world, [*tmp_path.iterdir()] == [path])


@pytest.mark.ranks(1, 2)
@pytest.mark.parametrize("step", ["lay_out", "pieces", "publish"])
def test_open_collectively_refused_leaves_old_file(world, tmp_path, monkeypatch, step):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    if world.rank == 0:
        path.write_text("before")
    world.barrier()
    if step == "publish":
        monkeypatch.setattr(durable, "publish", refuse)
    lay_out = refuse if step == "lay_out" else lambda temporary: temporary.write_bytes(b"")
    last = world.rank == world.size - 1
    pieces = refuse if step == "pieces" and last else number(world.rank)
    with pytest.raises(AnyrankError, match=r"file was not written: rank \d: OSError: .*No space left") as caught:
        write(world, path, lay_out, pieces)
    world.barrier()
    check_collective(world, caught.value.collective and [*tmp_path.iterdir()] == [path])
    check_collective(world, path.read_text() == "before")


@pytest.mark.ranks(2, 3)
def test_open_collectively_own_error_of_one_rank_ends_all(world, tmp_path):
    def refuse(laid_out):
        raise AnyrankError("gone")

    pieces = refuse if world.rank == world.size - 1 else number(world.rank)
    with pytest.raises(AnyrankError, match=r"file was not written: gone$"):
        write(world, tmp_path / "file", lambda temporary: temporary.write_bytes(b""), pieces)
    world.barrier()
    check_collective(world, not [*tmp_path.iterdir()])
