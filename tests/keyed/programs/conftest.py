"""Fixtures of the tests of keyed programs."""

from __future__ import annotations

import pytest

from anyrank.world import World


@pytest.fixture(scope="module")
def alone():
    world = World()
    yield world
    world.close()
