"""Measurements that two ranks take in turn inside one launch of `mpiexec -n 2 python benchmarks/two_ranks.py`.

    two_ranks.py weather SIDE STEPS ROUNDS           triad and 1 rank (rank 0 alone), then 2 ranks, and 2 triads
    two_ranks.py checkpoint BYTES ROUNDS FOLDER      plain pwrite and fsync, then a checkpoint, of as much

The moods of a shared machine and of its disk last for seconds; what is compared here is milliseconds apart.
Prints one JSON object of lists, a value per round.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI
from triad import triad

from anyrank.programs.weather import Weather
from anyrank.state import State
from anyrank.storage.checkpoints import Checkpoints
from anyrank.world import World

GIGA = 1e9


def stepper(world: World, side: int, steps: int, halo_steps: int = 1):
    """Return a function that advances the weather on a world and returns its cell-steps per second."""
    program, state = Weather(rows=side, columns=side), State(world, halo_steps=halo_steps)
    program.declare(state)
    program.setup(state)

    def rate() -> float:
        world.barrier()
        before = time.perf_counter()
        for _ in range(steps):
            program.step(state)
            state.step += 1
        world.barrier()
        return side * side * steps / (time.perf_counter() - before)

    return rate


def weather(world: World, side: int, steps: int, rounds: int) -> dict[str, list[float]]:
    """Call the actions in turn; the first round, which touches memory for the first time, is left out."""
    alone = World(MPI.COMM_SELF)
    one = stepper(alone, side, steps) if world.rank == 0 else None
    two = stepper(world, side, steps)
    found: dict[str, list[float]] = {"triad": [], "one": [], "two": [], "two_triads": []}
    for _ in range(rounds + 1):
        if one is not None:
            found["triad"].append(triad(3 * 8 * side * side))
            found["one"].append(one())
        wait_idly(world)
        found["two"].append(two())
        rates = world.comm.gather(triad(3 * 4 * side * side))
        found["two_triads"].append(sum(rates or []))
    return {name: values[1:] for name, values in found.items()}


def wait_idly(world: World) -> None:
    """Wait for the other rank without using memory bandwidth: MPI's own barrier waits in a loop."""
    request = world.comm.Ibarrier()
    while not request.Test():
        time.sleep(0.002)


def checkpoint(world: World, total: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Return GB/s of both; each file is deleted after its turn, so that both use the same blocks of the disk.

    The first round is left out: blocks that were never written are slow on a disk that grows on demand.
    """
    side = int((total / 8) ** 0.5)
    state = State(world)
    state.field("x", (side, side), halo=1)
    state.x[...] = np.random.default_rng(world.rank).random(state.x.layout.local_shape)
    checkpoints = Checkpoints(folder, state, "bench", {})
    mine = np.ascontiguousarray(state.x.local).reshape(-1).view(np.uint8).data
    at = state.x.layout.start[0] * side * 8
    found: dict[str, list[float]] = {"plain": [], "checkpoint": []}
    for number in range(rounds + 1):
        found["plain"].append(total / plain(world, folder / "plain", mine, at) / GIGA)
        state.step = number
        checkpoints.begin()
        saved = checkpoints.finish()
        assert saved is not None and not saved.error, saved
        found["checkpoint"].append(saved.bytes / saved.seconds / GIGA)
        clear(world, saved.path)
    return {name: values[1:] for name, values in found.items()}


def plain(world: World, path: Path, data: memoryview, at: int) -> float:
    """Return the seconds in which all ranks write their part of one file and sync it."""
    if world.rank == 0:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    world.barrier()
    before = time.perf_counter()
    file = os.open(path, os.O_WRONLY)
    while data:
        written = os.pwrite(file, data, at)
        data, at = data[written:], at + written
    os.fsync(file)
    os.close(file)
    world.barrier()
    seconds = time.perf_counter() - before
    clear(world, path)
    return seconds


def clear(world: World, path: Path) -> None:
    """Delete a file and let the disk finish with it."""
    if world.rank == 0:
        path.unlink()
        os.sync()
        time.sleep(0.3)
    world.barrier()


def main() -> None:
    """Measure what the command line asks for; rank 0 prints."""
    world, (what, *words) = World(), sys.argv[1:]
    if what == "weather":
        found = weather(world, *(int(word) for word in words))
    else:
        found = checkpoint(world, int(words[0]), int(words[1]), Path(words[2]))
    if world.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
