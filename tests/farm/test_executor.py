"""The executor and `farm.map`, from Python."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import pickle
import sys
from concurrent.futures.process import BrokenProcessPool

import farm.work as work
import pytest
from farm.leftovers import workers
from ranks import run_command

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


def test_executor_shutdown_waits_for_tasks_that_run():
    with farm.Executor(2) as executor:
        futures = [executor.submit(work.wait, 0.3) for _ in range(3)]
    assert [future.done() for future in futures] == [True] * 3 and not workers()


def test_executor_cancelled_futures_do_not_run():
    with farm.Executor(1) as executor:
        futures = [executor.submit(work.wait, x) for x in range(10)]
        executor.shutdown(wait=False, cancel_futures=True)
    assert futures[-1].cancelled() and not workers()


def test_rank_executor_runs_functions_on_ranks(tmp_path):
    with farm.RankExecutor(2, folder=tmp_path, task_timeout=2) as executor:
        assert [*executor.map(work.square, range(20))] == [x * x for x in range(20)]
        futures = [executor.submit(work.misbehave, x) for x in (0, 1, 2, 3, 4)]
        errors = [future.exception(60) for future in futures]
    assert errors[0] is None and isinstance(errors[1], ValueError) and str(errors[1]) == "one"
    assert isinstance(errors[2], Exception) and isinstance(errors[3], BrokenProcessPool)
    assert isinstance(errors[4], TimeoutError) and not [*tmp_path.iterdir()]
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(work.square, 1)
    with pytest.raises(UsageError, match="at least 1 rank"):
        farm.RankExecutor(0)


def test_rank_executor_futures_fail_when_the_farm_ends(tmp_path):
    executor = farm.RankExecutor(1, folder=tmp_path, prepare=f"{work.__file__}:nothing")
    with executor, pytest.raises(BrokenProcessPool, match="has no function 'nothing'"):
        executor.submit(work.square, 1).result(60)


@pytest.mark.parametrize("ordered", [False, True])
def test_stream_takes_items_and_gives_values_as_they_come(ordered):
    taken = []

    async def source():
        for number in range(12):
            taken.append(number)
            await asyncio.sleep(0)
            yield number

    async def consume(executor):
        values = []
        async for value in farm.stream(work.square, source(), executor, ahead=3, ordered=ordered):
            assert len(taken) <= len(values) + 3 + 1  # one more has arrived and waits
            values.append(value)
        return values

    with farm.Executor(2) as executor:
        values = asyncio.run(consume(executor))
    squares = [number**2 for number in range(12)]
    assert (values == squares) if ordered else (sorted(values) == squares)


def test_stream_raises_or_returns_exceptions():
    async def values(executor, **options):
        return [value async for value in farm.stream(work.misbehave, [0, 1, 9], executor, ordered=True, **options)]

    with farm.Executor(1) as executor:
        result = asyncio.run(values(executor, return_exceptions=True))
        assert result[::2] == [0, 9] and isinstance(result[1], ValueError)
        with pytest.raises(ValueError, match="one"):
            asyncio.run(values(executor))
        with pytest.raises(UsageError, match="at least 1"):
            asyncio.run(values(executor, ahead=0))


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


@pytest.mark.parametrize("call", ["Executor(1).submit(f, 1).result()", "map(f, [1])", "map(f, [1], ranks=2)"])
def test_scripts_without_a_guard_get_an_error(tmp_path, call):
    script = tmp_path / "script.py"
    script.write_text(f"from anyrank import farm\ndef f(x):\n    return x\nfarm.{call}\n")
    result = run_command(sys.executable, script, timeout=60, cwd=tmp_path)
    assert result.returncode == 1 and "Put the call under `if __name__ == '__main__':`" in result.stderr
    assert not workers()
