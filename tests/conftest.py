"""Tests marked `ranks` run under mpiexec: see rank_launch.py, and rank_worker.py for the ranks."""

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["rank_launch", "gpus"]

# MPICH's ranks wait in a loop; tests have more ranks than cores, so they are to sleep for some µs where nothing comes:
# by THROTTLE they yield in all waits, for messages, too, and by HEAVY_YIELD who yields sleeps.
os.environ["MPIR_CVAR_CH4_PROGRESS_THROTTLE"] = "1"
os.environ["MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT"] = "300"
os.environ["MPIR_CVAR_ENABLE_HEAVY_YIELD"] = "1"

#: Files that take minutes, some mostly in waiting: begun first, and not the busy ones of batch together.
LONG = (
    *("test_on_slurm.py", "test_verify.py", "test_on_pbs.py", "test_faults.py", "test_stops.py", "test_examples.py"),
    *("test_weather.py", "test_on_condor.py", "test_bad_input.py", "test_wordcount.py", "test_supervisor.py"),
    *("test_pack.py", "test_hosts.py", "test_packaging.py", "test_failures.py", "test_watchdog.py", "test_study.py"),
)


def pytest_collection_modifyitems(items: list) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture
def refused(in_process: Callable[..., Any]) -> Callable[..., Any]:
    """`in_process`, for what is bad use."""
    return in_process


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`anyrank ARGUMENTS` in this process: what `run_anyrank` gives, without a start, for what starts no rank.

    That such an end reaches whoever started anyrank is for other tests, one for each verb.
    """

    def call(
        *arguments: Any, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        import mpi4py

        from anyrank.cli import main

        with monkeypatch.context() as patch:
            if cwd is not None:
                patch.chdir(cwd)
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            for setting in ("initialize", "finalize"):  # `main` sets these for a process of its own
                patch.setattr(mpi4py.rc, setting, getattr(mpi4py.rc, setting))
            with pytest.raises(SystemExit) as left:
                main([*map(str, arguments)])
        return subprocess.CompletedProcess(arguments, left.value.code, *capsys.readouterr())

    return call


def pytest_collect_file(file_path: Path) -> None:
    # Slow to import, so not in ranks that do without it.
    if file_path.suffix == ".py" and "hypothesis" in file_path.read_text():
        with suppress(ImportError):  # the file itself says so
            _set_up_hypothesis()


@cache
def _set_up_hypothesis() -> None:
    """All ranks must draw the same examples, so they come from the test's name, not from chance, time or
    a database; and a fixture such as `world` may serve all examples of a test."""
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        "anyrank",
        derandomize=True,
        database=None,
        deadline=None,
        phases=[phase for phase in Phase if phase is not Phase.explain],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    settings.load_profile("anyrank")
