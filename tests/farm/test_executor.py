"""The executor and `farm.map`, from Python."""

from __future__ import annotations

import concurrent.futures
import os
import pickle
from concurrent.futures.process import BrokenProcessPool

import farm.work as work
import pytest
from farm.leftovers import workers

from anyrank import AnyrankError, UsageError, farm


def test_executor_runs_functions_in_other_processes():
    with farm.Executor(2) as executor:
        assert [*executor.map(work.square, range(50))] == [x * x for x in range(50)]
        assert executor.submit(os.getpid).result() != os.getpid()
        done, _ = concurrent.futures.wait([executor.submit(work.square, 3, power=3)])
        assert {future.result() for future in done} == {27}
    assert not workers()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(work.square, 1)


def test_executor_bad_tasks_fail_alone():
    with farm.Executor(2, timeout=2) as executor:
        futures = [executor.submit(work.misbehave, x) for x in (0, 1, 2, 3, 4, 9)]
        errors = [future.exception() for future in futures]
    assert errors[0] is None and errors[5] is None
    assert isinstance(errors[1], ValueError) and "work.py" in str(errors[1].__cause__)
    assert "cannot be stored" in str(errors[2])
    assert isinstance(errors[3], BrokenProcessPool) and "exit status 2" in str(errors[3])
    assert isinstance(errors[4], TimeoutError)


def test_executor_value_that_cannot_be_read_fails_alone():
    with farm.Executor(1) as executor:
        bad, good = executor.submit(work.return_unreadable), executor.submit(work.square, 3)
        assert isinstance(bad.exception(60), ValueError) and good.result(60) == 9


def test_executor_cancelled_futures_do_not_run():
    with farm.Executor(1) as executor:
        futures = [executor.submit(work.wait, x) for x in range(10)]
        executor.shutdown(wait=False, cancel_futures=True)
    assert futures[-1].cancelled() and not workers()


@pytest.mark.parametrize("arguments", [{"workers": 0}, {"timeout": -1.0}])
def test_executor_bad_arguments_are_refused(arguments):
    with pytest.raises(UsageError, match="at least 1 worker"):
        farm.Executor(**arguments)


def test_map_returns_values_in_order():
    assert farm.map(work.square, range(20), ranks=2) == [x * x for x in range(20)]
    assert farm.map(work.square, [2, 3], [5, 2]) == [32, 9]


def test_map_raises_the_first_exception_or_returns_all():
    result = farm.map(work.misbehave, [0, 1, 9], return_exceptions=True)
    assert (result[0], str(result[1]), result[2]) == (0, "one", 9)
    with pytest.raises(ValueError, match="one"):
        farm.map(work.misbehave, [0, 1])
    with pytest.raises(UsageError, match="--attempts"):
        farm.map(work.square, [1], attempts=0)


def test_map_of_an_existing_folder_computes_what_is_missing(tmp_path):
    inputs = ([1, 2], [str(tmp_path)] * 2)
    with pytest.raises(OSError, match="not yet"):
        farm.map(work.second_time, *inputs, out=tmp_path / "run")
    assert farm.map(work.second_time, *inputs, out=tmp_path / "run") == [1, 1]
    assert farm.map(work.second_time, *inputs, out=tmp_path / "run") == [1, 1]


@pytest.mark.parametrize("inputs", [[1, 3], [1], [1, 2, 3], [1, [2, 3]]])
def test_map_of_a_folder_of_other_inputs_is_refused(tmp_path, inputs):
    assert farm.map(work.square, [1, 2], out=tmp_path / "run") == [1, 4]
    with pytest.raises(UsageError, match=r"inputs are not those that the run in .*run began with"):
        farm.map(work.square, inputs, out=tmp_path / "run")
    assert farm.map(work.square, [1, 2], out=tmp_path / "run") == [1, 4]


def test_map_of_equal_inputs_finds_its_folder(tmp_path):
    text = "ab"
    inputs = [[(text, text)], [("ab", "".join(["a", "b"]))]]  # pickled to different bytes
    assert pickle.dumps(inputs[0], 5) != pickle.dumps(inputs[1], 5)
    with pytest.raises(OSError, match="not yet"):
        farm.map(work.second_time, inputs[0], [str(tmp_path)], out=tmp_path / "run")
    assert farm.map(work.second_time, inputs[1], [str(tmp_path)], out=tmp_path / "run") == [1]


def test_task_outside_of_a_farm_is_an_error():
    with pytest.raises(AnyrankError, match="no task here"):
        farm.task()
