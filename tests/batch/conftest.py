"""A real Slurm for the tests that request the fixture."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from slurm import Slurm, missing, start_slurm


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """One Slurm for all tests of a process; without Slurm the tests are skipped, but not in CI."""
    why_not = missing()
    if why_not and not os.environ.get("CI"):
        pytest.skip(why_not)
    assert not why_not, why_not
    with start_slurm() as result:
        yield result
