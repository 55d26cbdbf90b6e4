"""The child process that reads what a damaged file could crash: every way in which it dies gives one error."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from anyrank.errors import UsageError
from anyrank.keyed import reader_process
from anyrank.keyed.reader_process import call

FILE = [Path("a.h5"), Path("b.h5")]


def items(count, last=None):
    yield from range(count)
    if last is not None:
        last()


def abort():
    print("the heap is broken", file=sys.stderr, flush=True)
    os.abort()


def loop():
    while True:
        pass


def allocate():
    bytearray(1 << 40)


def fail():
    raise KeyError("x")


def fail_with_local_type():
    class LocalError(Exception):
        pass

    raise LocalError("of this function")


def test_reader_process_yields_items_and_is_used_again():
    assert [*call(FILE, items, 3)] == [0, 1, 2] and [*call(FILE, os.sched_getaffinity, 0)]
    (child,) = reader_process._idle
    first, second = call(FILE, items, 2), call(FILE, items, 2)
    assert [next(first), next(second), *first, *second] == [0, 0, 1, 1]  # two at a time
    assert child in reader_process._idle
    assert next(call(FILE, items, 1 << 20)) == 0  # the rest is not wanted
    assert [*call(FILE, items, 1)] == [0]


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (abort, r"a.h5 is damaged: its reader ended by SIGABRT \(the heap is broken\). Replace the file."),
        (allocate, "a.h5 is damaged: its reader needs more than [0-9]* bytes of memory"),
    ],
)
def test_reader_process_that_dies_is_one_error(end, message):
    with pytest.raises(UsageError, match=message):
        [*call(FILE, items, 0, end)]
    assert [*call(FILE, items, 1)] == [0]


def test_reader_process_names_the_file_of_the_item():
    with pytest.raises(UsageError, match=r"b.h5 is damaged"):
        [*call(FILE, items, 1, abort)]


def test_reader_process_that_loops_is_ended(monkeypatch):
    monkeypatch.setattr(reader_process, "CPU_SECONDS", 1)
    with pytest.raises(UsageError, match="its reader did not come to an end in 1 s"):
        [*call(FILE, items, 0, loop)]


def test_reader_process_that_sleeps_is_ended(monkeypatch):
    monkeypatch.setattr(reader_process, "SECONDS", 0.5)
    with pytest.raises(UsageError, match=r"its reader did not come to an end in 0.5 s"):
        [*call(FILE, time.sleep, 60)]


def test_reader_process_raises_errors_of_the_reader():
    for end, kind, text in ((fail, KeyError, "x"), (fail_with_local_type, OSError, "of this function")):
        with pytest.raises(kind, match=text):
            [*call(FILE, items, 0, end)]


def test_reader_process_that_was_killed_while_idle_is_replaced():
    [*call(FILE, items, 1)]
    for child in reader_process._idle:
        os.kill(child.process.pid, signal.SIGKILL)
        child.process.wait()
    assert [*call(FILE, items, 1)] == [0]


def test_reader_process_that_leaves_at_a_request_is_replaced(monkeypatch):
    """A child that was idle for long ends when the next request is on its way."""
    reader_process._end_all()
    reader_process._idle.clear()
    monkeypatch.setattr(reader_process, "_START", "import time; time.sleep(1)")
    reader_process.start()
    monkeypatch.undo()
    assert [*call(FILE, items, 2)] == [0, 1]


def test_reader_process_has_no_variables_of_the_launch(monkeypatch):
    monkeypatch.setenv("PMI_RANK", "0")
    reader_process._end_all()
    reader_process._idle.clear()
    assert "PMI_RANK" not in [*call(FILE, variables)] and [*call(FILE, mpi_has_started)] == [False]


def mpi_has_started():
    from mpi4py import MPI

    yield MPI.Is_initialized()


def variables():
    yield from os.environ
