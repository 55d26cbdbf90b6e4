"""Functions for farms in tests: good and bad ones."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from anyrank import farm

PREPARED = []
BUSY = []


def prepare():
    PREPARED.append(1)


def square(x, power=2):
    return x**power


def prepared(x):
    return len(PREPARED)


def draw(x):
    time.sleep(0.03)
    return x + float(farm.task().random.random())


async def raise_timeout(x):
    raise TimeoutError("no answer")


class RaisingTextError(Exception):
    def __str__(self):
        return str(sys.exit(3))


class Unpicklable:
    def __reduce__(self):
        raise RaisingTextError


class Unreadable:
    def __reduce__(self):
        return load_nothing, ()


def load_nothing():
    raise ValueError("cannot load")


def return_unreadable():
    return Unreadable()


def by_position(x, /, power=2):
    return x**power


def all_by_position(*numbers):
    return len(numbers)


def return_odd(n):
    return [Unreadable(), 10**5000, {"b", "a"}][n]


def return_or_raise_text(x):
    if x == 1:
        raise RaisingTextError
    return Unpicklable() if x == 2 else x


def describe(x):
    task = farm.task()
    return {"n": x, "half": x / 2, "who": f"{task.id}/{task.attempt}", "big": 2**70 if x == 1 else x}


def misbehave(x):
    """Task 1 raises, 2 returns what cannot be stored, 3 exits, 4 hangs, 5 forks, 6 is killed, 7 fills the memory …"""
    print("hello", x)
    if x == 1:
        raise ValueError("one")
    if x == 2:
        return lambda: 1
    if x == 3:
        os._exit(2)
    if x == 4:
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        time.sleep(600)
    if x == 5:
        os.fork()
    if x == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    if x == 7:
        kept = []
        while True:
            kept.append(bytearray(5_000_000))
    if x == 8:
        sys.exit("eight")
    return x


class UnpicklableError(Exception):
    def __init__(self, a, b):
        super().__init__(a)


def raise_unpicklable(x):
    raise UnpicklableError(x, 1)


def second_time(x, folder):
    """Fails at the first attempt."""
    file = Path(folder, f"tried-{x}")
    if not file.exists():
        file.touch()
        raise OSError("not yet")
    return farm.task().attempt


def dies_once(x, folder):
    file = Path(folder, f"died-{x}")
    if not file.exists():
        file.touch()
        os._exit(9)
    return farm.task().attempt


def short_or_deadly(x):
    """Every hundredth task kills its worker, after others that took microseconds."""
    if x % 100 == 99:
        os._exit(3)
    return x


def large(x):
    return bytes(x * 10_000_000)


def write_order(id, folder):
    with Path(folder, "order").open("a") as file:
        file.write(f"{id}\n")
    if id == "bad":
        raise ValueError("bad")
    return id


def wait(x):
    time.sleep(0.25)
    return x


async def wait_async(x):
    await asyncio.sleep(0.25 if x != 3 else 100)
    return x


NOT_A_FUNCTION = 3


def look(x, grid):
    """An element of a shared array, and how its memory is mapped."""
    time.sleep(0.03)
    mapped = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "anyrank-farm-grid" in line]
    try:
        grid[0] = 1
    except ValueError:
        writing = "refused"
    else:
        writing = "possible"
    return {
        "value": float(grid[x]),
        "worker": os.getpid(),
        "maps": len(mapped),
        "permissions": mapped[0][1],
        "inode": mapped[0][4],
        "writing": writing,
    }


def look_slowly(x, grid):
    time.sleep(0.03)
    return float(grid[x])


async def look_async(x, grid):
    await asyncio.sleep(0.03)
    return float(grid[x])


def add_slowly(x, grid):
    total = float(grid.sum())
    time.sleep(0.5)
    return total


def add_needed(id, folder):
    """Return the sum of the values of the tasks that this one needs, and its own number; task d fails once."""
    mark = Path(folder, "failed")
    if id == "d" and not mark.exists():
        mark.touch()
        raise ValueError("once")
    return len(id) + sum(farm.task().needed.values())


def of_kind(kind):
    """Take long or not, or end the worker; returns when the task ended."""
    if kind == "deadly" and farm.task().attempt == 1:
        time.sleep(0.5)
        os._exit(1)
    time.sleep({"long": 6, "short": 0.004}.get(kind, 0))
    return time.time()


def exit_among_others(x):
    """Task 3 kills its worker, and task 5 takes much memory, while others wait."""
    kept = bytearray(400_000_000) if x == 5 else b""
    time.sleep(0.1 if x == 3 else 0.5)
    if x == 3:
        os._exit(2)
    return x + len(kept)


async def raise_exits(x):
    await asyncio.sleep(0)
    if x == 1:
        raise SystemExit(3)
    if x == 2:
        raise KeyboardInterrupt
    if x == 3:
        await asyncio.gather(asyncio.create_task(exit_later()))
    await asyncio.sleep(0.2)
    return x


async def exit_later():
    raise SystemExit(4)


def fail_at_begin(id):
    if id == "bad":
        raise ValueError("no input")
    time.sleep(0.5 if id == "slow" else 0)
    return id


def take_memory(x):
    kept = bytearray(300_000_000)
    time.sleep(5)
    return len(kept)


def keep_one_host_busy(x, host, seconds):
    """The first task on this host computes without a pause for many seconds; all others take 0.02 s."""
    if os.uname().nodename == host and not BUSY:
        BUSY.append(x)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
    else:
        time.sleep(0.02)
    return x


def host_slowly(x):
    time.sleep(0.05)
    return x, os.uname().nodename
