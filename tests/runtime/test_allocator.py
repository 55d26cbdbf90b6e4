"""The allocator of a rank: freed arrays are reused unless the user says otherwise."""

from __future__ import annotations

import ctypes
import json
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest
from ranks import run_anyrank

from anyrank.runtime import allocator
from anyrank.runtime.options import Options

PROGRAM = Path(__file__).with_name("temporaries.py")
#: Pages of the temporary arrays of 20 steps: eight of 1 MB each.
PAGES = 20 * 8 * (1 << 20) // 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.parametrize(
    ("words", "reused"),
    [
        ([], True),
        (["--allocator", "reuse"], True),
        (["--allocator", "system"], False),
        (["--memory-limit", "2GB"], False),
        (["--memory-limit", "2GB", "--allocator", "reuse"], True),
    ],
)
def test_allocator_reuses_freed_arrays_as_requested(tmp_path, words, reused):
    done = run_anyrank("run", PROGRAM, "--out", tmp_path / "run", "--quiet", *words)
    assert done.returncode == 0, done.stderr
    faults = json.loads((tmp_path / "run" / "result.json").read_text())["faults"]
    assert faults < PAGES // 10 if reused else faults > PAGES // 2


def test_allocator_without_mallopt_is_unchanged(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert not allocator.reuse_freed_memory()


@pytest.mark.parametrize(("capped", "parameters"), [(False, {-3, -1}), (True, {-3, -4, -1})])
def test_allocator_of_an_older_glibc_sets_no_mmap_threshold(monkeypatch, capped, parameters):
    """If the threshold is limited, mallopt refuses ours, and no request gets pages of its own."""
    calls = []

    def mallopt(parameter, value):
        calls.append((parameter, value))
        return int(not capped or parameter != -3)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    assert allocator.reuse_freed_memory()
    assert ({parameter for parameter, _ in calls} == parameters and (-4, 0) in calls) or not capped


def test_allocator_follows_the_memory_limit():
    assert Options().reuse_memory and not Options(memory_limit="1GB").reuse_memory
    assert Options(memory_limit="1GB", allocator="reuse").reuse_memory
    assert not Options(allocator="system").reuse_memory
