"""Measure on two ranks within one launch: mpiexec -n 2 python benchmarks/two_ranks.py WHAT ARGUMENTS.

    two_ranks.py weather SIDE STEPS ROUNDS           triad and weather on rank 0 alone, then weather and triad on both
    two_ranks.py checkpoint BYTES ROUNDS FOLDER      plain pwrite and fsync, then a checkpoint with as many bytes
    two_ranks.py frames SIDE FRAMES ROUNDS FOLDER    plain pwrite and fsync, then frames with as many bytes

The speed of a shared machine and of its disk changes within seconds. Here the quantities of a round are measured
milliseconds apart. Rank 0 prints one JSON object of lists, with one value per round.
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

from anyrank.output.frame_writer import FrameWriter
from anyrank.output.frames_file import Plan
from anyrank.output.variables import variables_of
from anyrank.programs.weather import Weather
from anyrank.state import State
from anyrank.storage.checkpoints import Checkpoints
from anyrank.storage.format import Identity
from anyrank.world import World

GIGA = 1e9


def weather_rate(world: World, side: int, steps: int, halo_steps: int = 1):
    """Return a function that advances the weather on these ranks and returns its rate, in cell-steps per second."""
    program, state = Weather(rows=side, columns=side), State(world, halo_steps=halo_steps)
    program.declare(state)
    program.setup(state)

    def rate() -> float:
        world.barrier()
        start = time.perf_counter()
        for _ in range(steps):
            program.step(state)
            state.step += 1
        world.barrier()
        return side * side * steps / (time.perf_counter() - start)

    return rate


def weather(world: World, side: int, steps: int, rounds: int) -> dict[str, list[float]]:
    """Measure the rates of the weather and of the triad, without the first round, which touches memory first."""
    single = World(MPI.COMM_SELF)
    one_rank = weather_rate(single, side, steps) if world.rank == 0 else None
    two_ranks = weather_rate(world, side, steps)
    rates: dict[str, list[float]] = {"triad": [], "one": [], "two": [], "two_triads": []}
    for _ in range(rounds + 1):
        if one_rank is not None:
            rates["triad"].append(triad(3 * 8 * side * side))
            rates["one"].append(one_rank())
        idle_barrier(world)
        rates["two"].append(two_ranks())
        both = world.comm.gather(triad(3 * 4 * side * side))
        rates["two_triads"].append(sum(both or []))
    return {name: values[1:] for name, values in rates.items()}


def idle_barrier(world: World) -> None:
    """Wait for all ranks by sleeping. MPI's own barrier waits in a busy loop, which would slow down the other rank."""
    request = world.comm.Ibarrier()
    while not request.Test():
        time.sleep(0.002)


def checkpoint(world: World, total: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Measure GB/s of plain writes and of checkpoints.

    Each file is deleted after its turn, so that both use the same blocks of the disk. The first round is left out,
    because blocks that were never written are slow on a disk that grows on demand.
    """
    side = int((total / 8) ** 0.5)
    state = State(world)
    state.field("x", (side, side), halo=1)
    state.x[...] = np.random.default_rng(world.rank).random(state.x.layout.local_shape)
    checkpoints = Checkpoints(folder, state, "bench", {})
    own_bytes = np.ascontiguousarray(state.x.local).reshape(-1).view(np.uint8).data
    offset = state.x.layout.start[0] * side * 8
    rates: dict[str, list[float]] = {"plain": [], "checkpoint": []}
    for number in range(rounds + 1):
        rates["plain"].append(total / plain_write(world, folder / "plain", own_bytes, offset) / GIGA)
        state.step = number
        checkpoints.begin()
        saved = checkpoints.finish()
        assert saved is not None and not saved.error, saved
        rates["checkpoint"].append(saved.bytes / saved.seconds / GIGA)
        delete_file(world, saved.path)
    return {name: values[1:] for name, values in rates.items()}


def frames(world: World, side: int, count: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Measure GB/s of plain writes, each with its fsync, and of frames without steps between them.

    A round has `count` plain writes of one frame into one file, and as many frames.
    """
    state = State(world)
    state.field("T", (side, side), halo=1)
    state.T[...] = np.random.default_rng(world.rank).random(state.T.layout.local_shape)
    plan = Plan(tuple(variables_of(state, "T", 1, "")), 1, Identity.of("bench", {}, 0))
    data = np.ascontiguousarray(state.T.local).reshape(-1).view(np.uint8).data
    start, total = state.T.layout.start[0] * side * 8, 8 * side * side * count
    rates: dict[str, list[float]] = {"plain": [], "frames": []}
    for _ in range(rounds + 1):
        seconds = plain_write(world, folder / "plain", data, start, count, 8 * side * side)
        rates["plain"].append(total / seconds / GIGA)
        writer = FrameWriter(folder / "frames.nc", plan, state)
        writer.begin(None, [], count)
        world.barrier()
        began = time.perf_counter()
        for step in range(count):
            writer.start(step)
        writer.sync()
        world.barrier()
        rates["frames"].append(total / (time.perf_counter() - began) / GIGA)
        writer.close()
        delete_file(world, folder / "frames.nc")
    return {name: values[1:] for name, values in rates.items()}


def plain_write(world: World, path: Path, data: memoryview, offset: int, count: int = 1, distance: int = 0) -> float:
    """Return the seconds that all ranks take to write their parts of one file, `count` times, and sync each."""
    if world.rank == 0:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    world.barrier()
    start = time.perf_counter()
    file = os.open(path, os.O_WRONLY)
    for number in range(count):
        rest, position = data, offset + number * distance
        while rest:
            written = os.pwrite(file, rest, position)
            rest, position = rest[written:], position + written
        os.fsync(file)
    os.close(file)
    world.barrier()
    seconds = time.perf_counter() - start
    delete_file(world, path)
    return seconds


def delete_file(world: World, path: Path) -> None:
    """Delete a file, and wait until the disk is idle again."""
    if world.rank == 0:
        path.unlink()
        os.sync()
        time.sleep(0.3)
    world.barrier()


def main() -> None:
    """Do the measurement that the command line names; rank 0 prints it."""
    world, (what, *words) = World(), sys.argv[1:]
    if what == "weather":
        rates = weather(world, *(int(word) for word in words))
    elif what == "frames":
        rates = frames(world, *(int(word) for word in words[:3]), Path(words[3]))
    else:
        rates = checkpoint(world, int(words[0]), int(words[1]), Path(words[2]))
    if world.rank == 0:
        print(json.dumps(rates))


if __name__ == "__main__":
    main()
