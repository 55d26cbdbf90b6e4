"""Tests marked `ranks` run under mpiexec: see rank_launch.py, and rank_worker.py for the ranks."""

from functools import cache
from pathlib import Path

pytest_plugins = ["rank_launch"]


def pytest_collect_file(file_path: Path) -> None:
    # Slow to import, so not in ranks that do without it.
    if file_path.suffix == ".py" and "hypothesis" in file_path.read_text():
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
