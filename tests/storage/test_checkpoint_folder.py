"""Which files are kept and which are removed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ranks import check_collective
from storage.samples import checkpoints, declare, fill, write

from anyrank.storage import checkpoint_folder


def steps(folder) -> list[int]:
    return [checkpoint_folder.step_of(path) for path in checkpoint_folder.checkpoint_files(folder)]


@pytest.mark.ranks(1, 2)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_rotate_keeps_the_last_and_the_marked_checkpoints(world, tmp_path, count):
    state = declare(world)
    writer = checkpoints(tmp_path, state, keep=count)
    for step in (10, 20, 30, 40, 50):
        fill(state, step)
        writer.begin()
        assert not writer.finish().error
        if step == 20 and world.rank == 0:
            checkpoint_folder.mark_of(checkpoint_folder.path_of(tmp_path, 20)).touch()
        world.barrier()
    expected = [*[50, 40, 30][:count], 20]
    check_collective(world, steps(tmp_path) == expected)
    if world.rank == 0:
        checkpoint_folder.mark_of(checkpoint_folder.path_of(tmp_path, 20)).unlink()
    fill(state, 60)
    writer.begin()
    writer.finish()
    check_collective(world, steps(tmp_path) == [60, 50, 40][:count])


@pytest.mark.ranks(2)
def test_checkpoint_of_a_step_written_twice_is_the_second(world, tmp_path):
    state = declare(world)
    write(tmp_path, state, 4)
    state.hits = -5
    writer = checkpoints(tmp_path, state)
    writer.begin(finished=True)
    writer.finish()
    world.barrier()
    other = declare(world)
    restored = checkpoints(tmp_path, other).restore()
    assert restored.finished and other.hits == -5 and steps(tmp_path) == [4]


def test_rotate_keeps_later_files_and_other_files(tmp_path):
    for step in (1, 2, 3, 9):
        checkpoint_folder.path_of(tmp_path, step).touch()
    strangers = [tmp_path / name for name in ("step-x.h5", "notes.txt", "step-000000000001.h5.bak")]
    for path in strangers:
        path.touch()
    checkpoint_folder.rotate(tmp_path, checkpoint_folder.path_of(tmp_path, 3), 1)
    assert steps(tmp_path) == [9, 3] and all(path.exists() for path in strangers)
    checkpoint_folder.rotate(
        tmp_path, checkpoint_folder.path_of(tmp_path, 3), 1, [checkpoint_folder.path_of(tmp_path, 3)]
    )
    assert steps(tmp_path) == [9, 3], "what was just written stays, whatever its name was before"


@pytest.mark.ranks(1, 2)
def test_sweep_removes_only_files_of_dead_writers(world, tmp_path):
    writer = checkpoints(tmp_path, declare(world))
    assert writer.sweep() == []
    dead = world.bcast(dead_process() if world.rank == 0 else 0)
    here = socket.gethostname()
    stale = [f".step-000000000007.h5.{here}.{dead}.tmp", ".step-000000000008.h5.elsewhere.host.12.tmp"]
    stay = [
        f".step-000000000007.h5.{here}.1.tmp",
        ".step-000000000009.h5.elsewhere.12.tmp",
        ".step-nothing.tmp",
        "step-000000000001.h5",
    ]
    if world.rank == 0:
        for name in [*stale, *stay]:
            (tmp_path / name).write_text("x")
        old = time.time() - checkpoint_folder.SILENCE - 60
        os.utime(tmp_path / stale[1], (old, old))
    world.barrier()
    assert sorted(writer.sweep()) == sorted(stale)
    world.barrier()
    check_collective(world, sorted(path.name for path in tmp_path.iterdir()) == sorted(stay))


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_sweep_removes_the_file_of_a_zombie(tmp_path):
    """The parent of a killed rank may not have waited for it yet: the rank has a process id, but does not run."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    while Path(f"/proc/{dead.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    stale = tmp_path / f".step-000000000003.h5.{socket.gethostname()}.{dead.pid}.tmp"
    stale.touch()
    assert checkpoint_folder.sweep(tmp_path) == [stale.name] and not stale.exists()
    dead.wait()
