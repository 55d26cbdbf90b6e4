"""A damaged checkpoint is refused, for any kind of damage, and the one before is used."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ranks import check_collective
from storage.samples import SHAPES, checkpoints, declare, holds, write

from anyrank.errors import CheckpointError
from anyrank.storage import checkpoint_folder, read
from anyrank.storage.seal import check_seal

pytestmark = pytest.mark.ranks(1, 2)


class Newest:
    """Two checkpoints, of steps 1 and 2; each test damages the newer one."""

    def __init__(self, world, folder: Path):
        self.world, self.folder = world, folder
        self.state = declare(world, "rows")
        self.path = write(folder, self.state, 1, 2).path
        self.good = self.path.read_bytes()
        world.barrier()

    def refused_as(self, data: bytes) -> str:
        """The message about the newest checkpoint with these bytes, after the one before has been restored."""
        if self.world.rank == 0:
            self.path.write_bytes(data)
        self.world.barrier()
        restored = checkpoints(self.folder, self.state).restore()
        assert restored is not None
        assert restored.step == 1 and len(restored.refused) == 1, restored
        assert holds(self.state, 1)
        assert str(self.path) in restored.refused[0]
        return restored.refused[0]


@pytest.fixture
def newest(world, tmp_path):
    return Newest(world, tmp_path)


def test_restore_undamaged_checkpoint(newest):
    restored = checkpoints(newest.folder, newest.state).restore()
    assert (restored.step, restored.refused) == (2, []) and holds(newest.state, 2)


@pytest.mark.ranks(1)
def test_restore_file_truncated_at_any_length_is_refused(newest):
    size = len(newest.good)
    lengths = {0, 1, 7, 8, 100, size // 2, *range(0, size, size // 40), *range(size - 200, size)}
    for length in sorted(lengths):
        assert "cut short" in newest.refused_as(newest.good[:length])


def test_restore_longer_file_or_missing_bytes_are_refused(newest):
    assert "cut short" in newest.refused_as(newest.good + b"\0")
    assert "damaged" in newest.refused_as(newest.good[:3000] + newest.good[3001:])
    assert "damaged" in newest.refused_as(newest.good[:3000] + b"x" + newest.good[3000:])


def test_restore_flipped_bit_in_a_dataset_is_named(newest):
    with h5py.File(newest.path, "r", locking=False) as file:
        places = {f"fields/{name}": file[f"fields/{name}"].id.get_offset() for name in SHAPES}
        sizes = {place: file[place].id.get_storage_size() for place in places}
    newest.world.barrier()
    for place, offset in places.items():
        for at in (0, sizes[place] // 2, sizes[place] - 1):
            message = newest.refused_as(flip_bit(newest.good, offset + at, 3))
            assert place.partition("/")[2] in message and "digest" in message


@pytest.mark.ranks(1)
@settings(max_examples=300)
@given(st.integers(0, 2**40), st.integers(0, 7))
@example(0, 0)
@example(12, 7)
@example(2**40 - 1, 0)
def test_restore_flipped_bit_anywhere_is_refused(newest, place, bit):
    newest.refused_as(flip_bit(newest.good, place % len(newest.good), bit))


def flip_bit(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def test_restore_page_of_zeros_is_refused(newest):
    for at in range(0, len(newest.good), 4096):
        page = newest.good[at : at + 4096]
        if any(page):
            newest.refused_as(newest.good[:at] + bytes(len(page)) + newest.good[at + 4096 :])


def test_restore_file_without_its_seal_is_refused(newest):
    """The state of the file between the last rank's last byte and the seal, and after h5repack."""
    assert "seal" in newest.refused_as(newest.good[: newest.good.rindex(b"[[")])


TEXTS = {
    "no hash": lambda good: good[:-65] + b" " * 64 + b"\n",
    "one word": lambda good: good[:-88] + b"anyrank-seal".ljust(87) + b"\n",
    "no number": lambda good: good[: -65 - 9] + b"\xc2\xb2      " + good[-66:],
    "infinite": lambda good: with_extents(good, b"[[Infinity, 1]]"),
    "nested": lambda good: with_extents(good, b"[" * 20_000),
}


def with_extents(good, extents):
    """The file with other extents in its seal."""
    length = int(good[-65 - 9 : -66])
    rest = good[: -65 - 23 - length]
    return rest + extents + b" anyrank-seal %08d " % len(extents) + b"0" * 64 + b"\n"


@pytest.mark.parametrize("damage", TEXTS)
def test_restore_seal_with_bad_text_is_refused(newest, damage):
    data = TEXTS[damage](newest.good)
    assert data != newest.good
    message = newest.refused_as(data)
    assert "seal" in message, message


def test_restore_file_that_is_no_checkpoint_is_refused(newest):
    for data in (b"", b"hello\n", bytes(9000), b" anyrank-seal 00000002 " + b"0" * 64 + b"\n"):
        newest.refused_as(data)


def test_restore_file_edited_with_h5py_is_refused(newest):
    """HDF5 drops the bytes after its end when it writes, so the seal is lost."""
    if newest.world.rank == 0:
        newest.path.write_bytes(newest.good)
        with h5py.File(newest.path, "r+", locking=False) as file:
            file.attrs["step"] = 99
        data = newest.path.read_bytes()
    assert "seal" in newest.refused_as(newest.world.bcast(data if newest.world.rank == 0 else None))


def test_restore_values_of_another_step_are_refused(newest):
    """All bytes were written by some rank, and the seal holds, but one Field is an old one."""
    with h5py.File(checkpoint_folder.path_of(newest.folder, 1), "r", locking=False) as file:
        old = file["fields/T"][...].tobytes()
    with h5py.File(newest.path, "r", locking=False) as file:
        offset = file["fields/T"].id.get_offset()
    newest.world.barrier()
    mixed = newest.good[:offset] + old + newest.good[offset + len(old) :]
    assert "T is damaged" in newest.refused_as(mixed)


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("fails", ["open", "read"])
def test_restore_unreadable_on_the_last_rank_is_refused(newest, monkeypatch, fails):
    file, block, last = h5py.File, read.read_block, newest.world.size - 1

    def at_first(call, path_of):
        def broken(first, *others, **options):
            if newest.world.rank == last and path_of(first) == str(newest.path):
                raise OSError(5, "Input/output error")
            return call(first, *others, **options)

        return broken

    if fails == "open":
        monkeypatch.setattr(h5py, "File", at_first(file, str))
    else:
        monkeypatch.setattr(read, "read_block", at_first(block, lambda dataset: dataset.file.filename))
    message = newest.refused_as(newest.good)
    assert f"rank {last} cannot read it" in message and "Input/output error" in message


def test_restore_with_all_checkpoints_damaged_fails(newest):
    for step in (1, 2):
        path = checkpoint_folder.path_of(newest.folder, step)
        if newest.world.rank == 0:
            os.truncate(path, 5000)
    newest.world.barrier()
    with pytest.raises(CheckpointError) as raised:
        checkpoints(newest.folder, newest.state).restore()
    for step in (1, 2):
        assert str(checkpoint_folder.path_of(newest.folder, step)) in str(raised.value)
    assert raised.value.status == 1


def test_rotate_does_not_count_a_refused_checkpoint(newest):
    """The run continues from step 1 and skips the damaged step 2: step 1 must not be removed."""
    newest.refused_as(newest.good[:-1])
    writer = checkpoints(newest.folder, newest.state, keep=2)
    assert writer.restore().step == 1
    save_step(writer, 3)
    check_collective(newest.world, steps(newest) == [3, 1])


def test_rotate_counts_a_refused_checkpoint_written_again(newest):
    newest.refused_as(newest.good[:-1])
    writer = checkpoints(newest.folder, newest.state, keep=2)
    assert writer.restore().step == 1
    save_step(writer, 2)
    check_collective(newest.world, steps(newest) == [2, 1])
    save_step(writer, 3)
    check_collective(newest.world, steps(newest) == [3, 2])


def save_step(writer, step: int) -> None:
    writer.state.step = step
    writer.begin()
    assert not writer.finish().error


def steps(newest) -> list[int]:
    newest.world.barrier()
    return [checkpoint_folder.step_of(path) for path in checkpoint_folder.checkpoint_files(newest.folder)]


def test_check_seal_holds_only_for_its_own_file(world, tmp_path):
    saved = write(tmp_path, declare(world), 1)
    check_seal(saved.path)
    copied = tmp_path / f"copy-{world.rank}.h5"
    shutil.copy(saved.path, copied)
    check_seal(copied)
    if shutil.which("h5repack"):
        again = tmp_path / f"again-{world.rank}.h5"
        subprocess.run(["h5repack", copied, again], check=True)
        with pytest.raises(CheckpointError, match="seal"):
            check_seal(again)


def test_checkpoint_file_has_the_digests_of_the_state(world, tmp_path):
    state = declare(world)
    saved = write(tmp_path, state, 6)
    digests = state.digests()
    with h5py.File(saved.path, "r", locking=False) as file:
        for name, value in digests.items():
            group = "fields" if name in SHAPES else "scalars"
            assert int(file[group][name].attrs["digest"], 16) == value == saved.digests[name]
        assert int(file.attrs["digest"], 16) == saved.digest == state.digest()
        assert file.attrs["complete"] == np.True_
