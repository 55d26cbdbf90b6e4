"""Writing: concurrent with the steps, and with errors of the file system."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from ranks import check_collective
from storage.samples import checkpoints, declare, fill, holds, write

from anyrank.state import State
from anyrank.storage import checkpoint_folder, writers
from anyrank.storage.checkpoints import Checkpoints
from anyrank.world import World


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize("split", ["rows", "columns"])
def test_checkpoint_is_unchanged_by_later_steps(world, tmp_path, monkeypatch, split):
    gate, real = threading.Event(), os.pwrite

    def late(*arguments):
        gate.wait(60)
        return real(*arguments)

    state = declare(world, split)
    fill(state, 3)
    digests = state.digests()
    writer = checkpoints(tmp_path, state)
    monkeypatch.setattr(os, "pwrite", late)
    assert not writer.pending and not writer.working() and writer.proceed() is None
    writer.begin()
    check_collective(world, writer.pending and writer.working(), "begin must not wait for pwrite")
    fill(state, 4)
    with pytest.raises(RuntimeError, match="pending"):
        writer.begin()
    assert not checkpoint_folder.checkpoint_files(tmp_path)
    world.barrier()
    gate.set()
    assert writer.proceed() is None and writer.pending, "the seal comes in a phase of its own"
    saved = writer.proceed()
    assert saved is not None and not saved.error and not writer.pending and not writer.working()
    assert (saved.step, saved.path, saved.digests) == (3, checkpoint_folder.path_of(tmp_path, 3), digests)
    assert saved.bytes == saved.path.stat().st_size
    assert 0 <= saved.hidden <= 1 and saved.blocked > 0
    check_collective(world, holds(state, 4))
    other = declare(world, "bricks")
    assert checkpoints(tmp_path, other).restore().step == 3
    check_collective(world, holds(other, 3))


@pytest.mark.ranks(1, 2)
def test_checkpoint_time_hidden_by_steps_is_counted(world, tmp_path, monkeypatch):
    state = declare(world)
    writer = checkpoints(tmp_path, state)
    real = os.fsync
    slow = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda descriptor: (slow.wait(0.2), real(descriptor)))
    writer.begin()
    while writer.pending:
        while writer.working():
            slow.wait(0.01)
        world.barrier()
        beside = writer.proceed()
    assert beside.seconds >= 0.4
    writer.begin()
    assert writer.finish().hidden < beside.hidden


@pytest.mark.ranks(1, 2)
def test_checkpoint_with_short_writes_is_complete(world, tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: real(descriptor, data[:7], offset))
    write(tmp_path, declare(world, "rows"), 2)
    state = declare(world)
    assert checkpoints(tmp_path, state).restore().step == 2
    check_collective(world, holds(state, 2))


@contextmanager
def largest_file(size: int):
    """Limit the size of files of this process to `size` bytes: writing beyond it fails with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def check_failure_and_recovery(world, folder: Path, trouble, words: str, io: str = "pwrite") -> None:
    """Within `trouble` writing fails on all ranks alike and damages nothing; afterwards it works."""
    state = State(world, "rows")
    state.field("u", (40_000,))
    state.u[...] = state.u.layout.linear
    writer = checkpoints(folder, state, io=io)
    state.step = 1
    writer.begin()
    assert not writer.finish().error
    before = checkpoint_folder.path_of(folder, 1).read_bytes()
    world.barrier()
    with trouble:
        state.step = 2
        writer.begin()
        saved = writer.finish()
    check_collective(world, words.lower() in saved.error.lower() and str(saved.path) in saved.error, saved.error)
    assert len({*world.comm.allgather(saved)}) == 1 if saved.digests else not saved.digests
    names = sorted(path.name for path in folder.iterdir() if "step" in path.name)
    check_collective(world, names == ["step-000000000001.h5"], str(names))
    assert checkpoint_folder.path_of(folder, 1).read_bytes() == before
    world.barrier()
    writer.begin()
    assert not writer.finish().error
    other = State(world, "rows")
    other.field("u", (40_000,))
    restored = checkpoints(folder, other).restore()
    assert restored.step == 2 and not restored.refused
    check_collective(world, np.array_equal(other.u.local, state.u.local))


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("io", ["pwrite", "gather"])
@pytest.mark.parametrize("rank", [0, 1])
def test_checkpoint_file_size_limit_on_one_rank_fails_on_all(world, tmp_path, io, rank):
    if io == "gather" and rank == 1:
        rank = 0
    trouble = largest_file(100_000) if world.rank == rank else largest_file(resource.RLIM_INFINITY)
    check_failure_and_recovery(world, tmp_path, trouble, "File too large", io)


@pytest.mark.ranks(1, 3)
@pytest.mark.parametrize("call", ["fsync", "pwrite"])
def test_checkpoint_io_error_on_the_last_rank_fails_on_all(world, tmp_path, monkeypatch, call):
    def broken(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    @contextmanager
    def trouble():
        with monkeypatch.context() as patch:
            if world.rank == world.size - 1:
                patch.setattr(os, call, broken)
            yield

    check_failure_and_recovery(world, tmp_path, trouble(), f"rank {world.size - 1}: OSError: [Errno 5]")


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("rank", [0, 1])
def test_checkpoint_gather_without_memory_fails_on_all_ranks(world, tmp_path, monkeypatch, rank):
    def broken(*arguments):
        raise MemoryError("no room")

    @contextmanager
    def trouble():
        with monkeypatch.context() as patch:
            if world.rank == rank:
                patch.setattr(writers, "fetch", broken)
            yield

    check_failure_and_recovery(world, tmp_path, trouble(), f"rank {rank}: MemoryError: no room", "gather")


@pytest.mark.ranks(1, 2)
@pytest.mark.parametrize("io", ["pwrite", "gather"])
@pytest.mark.parametrize("bytes_left", [0, 4096, 50_000, 300_000], ids=lambda n: f"{n} bytes left")
def test_checkpoint_on_a_full_disk_fails_and_recovers(world, tmp_path, io, bytes_left):
    disk = tmp_path / "disk"
    mounted = world.rank == 0 and mount(disk)
    if not world.bcast(mounted):
        pytest.skip("mounting a small file system needs root")

    @contextmanager
    def trouble():
        if world.rank == 0:
            used = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize - bytes_left
            (disk / "other").write_bytes(bytes(used))
        world.barrier()
        yield
        if world.rank == 0:
            (disk / "other").unlink()
        world.barrier()

    try:
        check_failure_and_recovery(world, disk, trouble(), "No space left on device", io)
    finally:
        world.barrier()
        if world.rank == 0:
            subprocess.run(["umount", disk], check=True)


def mount(disk: Path) -> bool:
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.ranks(1, 2)
def test_checkpoint_folder_that_cannot_be_made_is_an_error(world, tmp_path):
    if world.rank == 0:
        (tmp_path / "file").write_text("")
    world.barrier()
    state = declare(world)
    writer = checkpoints(tmp_path / "file" / "checkpoints", state)
    writer.begin()
    assert writer.pending and not writer.working()
    saved = writer.finish()
    assert "Not a directory" in saved.error and saved.digests == {}


STUCK = """
import os, sys, threading
from pathlib import Path
import numpy as np
os.pwrite = lambda *arguments: threading.Event().wait()
from anyrank.storage.checkpoints import Checkpoints
from anyrank.state import State
from anyrank.world import World
state = State(World())
state.field("u", (9,))
writer = Checkpoints(Path(sys.argv[1]), state, "stuck", {})
writer.begin()
print("begun", writer.working(), flush=True)
sys.exit(3)
"""


def test_checkpoint_on_a_stuck_disk_does_not_delay_the_exit(tmp_path):
    command = [sys.executable, "-c", STUCK, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("begun True\n", 3), done.stderr


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from anyrank.storage.checkpoints import Checkpoints
from anyrank.state import State
from anyrank.world import World
state = State(World())
state.field("u", (300, 300))
writer = Checkpoints(Path(sys.argv[1]), state, "killed", {})
writer.sweep()
writer.restore()
first = state.step
threading.Timer(float(sys.argv[2]), os.kill, (os.getpid(), signal.SIGKILL)).start()
while True:
    state.step += 1
    state.u[...] = state.step
    writer.begin()
    saved = writer.finish()
    if saved.error: sys.exit(saved.error)
    print(state.step, flush=True)
"""


def test_checkpoint_survives_a_kill_at_any_moment(tmp_path):
    """Each process starts from the last step that the killed one knew to be safe."""
    last = 0
    for milliseconds in (3, 11, 17, 29, 41):
        command = [sys.executable, "-c", KILLED, tmp_path, str(milliseconds / 1000 + 0.05)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == -9, done.stderr
        last = int(done.stdout.split()[-1]) if done.stdout.split() else last
        state = State(World())
        state.field("u", (300, 300))
        restored = Checkpoints(tmp_path, state, "killed", {}).restore()
        assert restored is None or not restored.refused
        assert state.step in (last, last + 1) and (state.u.local == state.step).all()
        last = state.step
        assert len(list(tmp_path.glob(".*.tmp"))) <= 1, "each start sweeps what the one before left"
