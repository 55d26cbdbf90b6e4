"""Common fixtures, the long and the slow tests. Tests marked `ranks` run under mpiexec: see rank_launch.py."""

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["rank_launch", "gpus"]

# MPICH's ranks poll while they wait. Tests have more ranks than cores, so the ranks must sleep for some µs instead:
# with THROTTLE they yield in all waits, also for messages, and with HEAVY_YIELD a yield is a sleep.
os.environ["MPIR_CVAR_CH4_PROGRESS_THROTTLE"] = "1"
os.environ["MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT"] = "300"
os.environ["MPIR_CVAR_ENABLE_HEAVY_YIELD"] = "1"

#: Files that take minutes, some mostly waiting: they start first; the busy files of batch/ do not start together.
LONG = (
    *("test_on_slurm.py", "test_verify.py", "test_on_pbs.py", "test_faults.py", "test_stops.py", "test_examples.py"),
    *("test_weather.py", "test_on_condor.py", "test_bad_input.py", "test_wordcount.py", "test_supervisor.py"),
    *("test_pack.py", "test_hosts.py", "test_packaging.py", "test_failures.py", "test_watchdog.py"),
    "test_study_folder.py",
)


#: Tests that take long and whose promise a quicker test checks too: parts of their ids. `make test` leaves them out,
#: `make test SLOW=1` and CI do not. Tests whose id contains a word after "except" are not slow.
SLOW = {
    "test_on_slurm.py::": "",
    "test_verify.py::test_verify_planted_bug_is_found_and_named": "except own_rows some_ranks float_sum",
    "test_verify.py::test_verify_our_programs_are_clean": "",
    "test_verify.py::test_verify_kinds_of_difference_are_reported": "except raise result",
    "test_programs.py::test_verbs_take": "",
    "test_launch.py::test_verbs_in_a_shell_of_one_task_start_ranks": "except scale",
    "test_launch.py::test_rank_words_of_any_text_reach_the_ranks": "except signs empty",
    "test_launch.py::test_rank_words_of_a_single_colon_reach_the_ranks": "",
    "test_study_folder.py::test_scale_fit_finds_the_programs_serial_fraction": "",
    "test_study_folder.py::test_scale_added_ranks_and_rounds_keep_the_samples": "",
    "test_hosts.py::test_hosts_disconnected_one_is_named_and_the_run_continues": "",
    "test_hosts.py::test_hosts_link_down_for_three_seconds_only_delays_a_run": "",
    "test_farm_hosts.py::test_farm_host_cut_off_is_left_by_a": "",
    "test_farm_hosts.py::test_rank_executor_uses_the_remaining_hosts": "",
    "test_stops.py::test_stop_by_signal_has_status_75_and_resume_continues": "except mpiexec-15 anyrank-2",
    "test_wordcount.py::test_wordcount_bodies_and_little_memory_give_the_same": "",
    "test_wordcount.py::test_wordcount_example_counts_and_resumes_in_another_folder": "",
    "test_sort.py::test_sort_stopped_in_both_phases_resumes_on_other_ranks": "",
    "test_sort.py::test_sort_little_memory_gives_the_same_or_a_clear_error": "",
    "test_groupby.py::test_groupby_stopped_run_resumes_on_other_ranks": "",
    "test_grep.py::test_grep_stopped_run_resumes_on_other_ranks": "",
    "test_gpu.py::test_gpu_bench_measures_every_row": "",
    "test_peers.py::test_peers_on_two_cores_give_our_answers": "",
    "test_supervisor.py::test_restart_uses_the_remaining_hosts": "",
    "test_supervisor.py::test_restart_waits_for_the_lock_of_the_crashed_run": "",
    "test_watchdog.py::test_hang_of_one_rank_of_four_names_it_first": "except receive",
    "test_watchdog.py::test_hang_before_the_first_step_is_reported_and_ends_all": "except check",
    "test_child_imports.py::test_children_of_a_package_import_the_program": "except spawn-2",
    "test_child_imports.py::test_children_of_a_file_of_any_name_import_it": "except random",
    "test_children.py::test_children_of_each_step_end": "except pool-2 signals-1 exit-1 fail-2 return-1",
    "test_failures.py::test_picture_failure_is_a_warning_unless_others_wait": "except (1,)",
    "test_placement.py::test_blas_bits_do_not_depend_on_the_launcher": "",
    "test_pack.py::test_pack_full_disk_keeps_the_old_archive": "",
    "test_study.py::test_study_of_ten_thousand_points_has_longer_names": "",
    "test_chaos.py::test_chaos_kills_damage_and_full_disk_leave_the_result": "",
}


def is_slow(item: str) -> bool:
    """Whether the test with this id is in SLOW."""
    result = [kept.removeprefix("except").split() for part, kept in SLOW.items() if part in item]
    return any(not any(name in item for name in kept) for kept in result)


def pytest_collection_modifyitems(items: list) -> None:
    for item in items:
        if is_slow(item.nodeid):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture
def refused(in_process: Callable[..., Any]) -> Callable[..., Any]:
    """`in_process`, for bad usage."""
    return in_process


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Call `anyrank ARGUMENTS` in this process, for calls that start no rank; returns what `run_anyrank` returns.

    Other tests, one for each verb, check that the exit status reaches the parent process.
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
            for setting in ("initialize", "finalize"):  # `main` changes these for its own process
                patch.setattr(mpi4py.rc, setting, getattr(mpi4py.rc, setting))
            with pytest.raises(SystemExit) as left:
                main([*map(str, arguments)])
        return subprocess.CompletedProcess(arguments, left.value.code, *capsys.readouterr())

    return call


def pytest_collect_file(file_path: Path) -> None:
    # The import is slow, so ranks import it only if their file uses it.
    if file_path.suffix == ".py" and "hypothesis" in file_path.read_text():
        with suppress(ImportError):  # the test file reports the error itself
            _set_up_hypothesis()


@cache
def _set_up_hypothesis() -> None:
    """Let all ranks draw the same examples: derived from the test's name, not from chance, time or a database.

    A fixture such as `world` may serve all examples of a test.
    """
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
