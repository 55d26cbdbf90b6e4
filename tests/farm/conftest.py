"""Fixtures of the farm's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from farm.runs import WORK, farm, table


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """The run folder of a farm of 300 tasks with random numbers, on one rank."""
    folder = tmp_path_factory.mktemp("drawn")
    farm(f"{WORK}:draw", "--table", table(folder, 300), out=folder / "run")
    return folder / "run"
