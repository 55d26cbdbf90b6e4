"""The memory that a rank may use."""

import subprocess
import sys

import pytest
from ranks import run_anyrank

from anyrank import memory
from anyrank.errors import UsageError
from anyrank.memory import MINIMUM, budget
from anyrank.runtime.memory import shortage
from anyrank.runtime.options import Options
from anyrank.state import State


def test_budget_with_a_limit_is_what_the_process_has_left():
    # In a process of its own: this one may have memory of earlier tests, which a new array would use.
    words = (
        "import numpy as np; from anyrank.memory import budget, peak, resident; before = resident();"
        "block = np.ones(1 << 27, np.uint8); used = resident(); assert peak() >= used >= before + block.nbytes // 2;"
        "assert 0 < budget(1 << 40, 1) <= (1 << 40) - before"
    )
    subprocess.run([sys.executable, "-c", words], check=True)


def test_budget_without_a_limit_shares_the_node():
    assert budget(None, 4) < budget(None, 2) < budget(None, 1)


def test_budget_limit_too_small_is_refused_with_the_least():
    with pytest.raises(UsageError, match=f"must leave {MINIMUM}. Use --memory-limit [0-9]+MB or more") as refused:
        budget(1 << 20, 1)
    assert budget(int(str(refused.value).rpartition("MB")[0].rpartition(" ")[2]) * 1_000_000 + (1 << 22), 1) >= MINIMUM


@pytest.mark.parametrize(("text", "size"), [("", None), ("512MB", 512_000_000), ("2GiB", 2 << 30), ("1000", 1000)])
def test_memory_limit_sizes_are_parsed(text, size):
    assert Options(memory_limit=text).memory_bytes == size


def test_memory_limit_bad_size_is_refused():
    done = run_anyrank("run", "pi", "--memory-limit", "much")
    assert done.returncode == 2 and "--memory-limit 'much' is not a size: write it as 512MB" in done.stderr


def groups(tmp_path, monkeypatch, of_process, limits):
    """Files of control groups as Linux has them, with 1 GiB available on the node."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 9999999 kB\nMemAvailable: {1 << 20} kB\n")
    (tmp_path / "proc/self/cgroup").write_text(of_process)
    for folder, files in limits.items():
        (tmp_path / "cgroup" / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (tmp_path / "cgroup" / folder / name).write_text(text)
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")


def test_available_memory_is_that_of_the_smallest_group(tmp_path, monkeypatch):
    job = {"memory.max": "5000000\n", "memory.current": "4000000\n", "memory.stat": "anon 1\ninactive_file 500\n"}
    step = {"memory.max": "max\n", "memory.current": "1\n", "memory.stat": "anon 1\n"}
    groups(tmp_path, monkeypatch, "0::/slurm/job_1/step_0\n", {"slurm/job_1": job, "slurm/job_1/step_0": step})
    assert memory.available() == 1_000_500


def test_available_memory_reads_cgroups_version_1(tmp_path, monkeypatch):
    job = {"memory.limit_in_bytes": "70000\n", "memory.usage_in_bytes": "90000\n", "memory.stat": "cache 1\n"}
    groups(tmp_path, monkeypatch, "7:cpu:/\n4:memory:/job\n0::/\n", {"memory/job": job})
    assert memory.available() == 0


def test_available_memory_without_limits_is_the_nodes(tmp_path, monkeypatch):
    groups(tmp_path, monkeypatch, "4:memory:/not/seen/here\n0::/\n", {})
    assert memory.available() == 1 << 30


@pytest.mark.ranks(1, 2)
def test_shortage_fields_beyond_the_nodes_memory_are_refused(world, monkeypatch):
    state = State(world)
    state.field("T", (100,), halo=1)
    needed = 2 * 8 * (100 + 2 * world.size)
    for free, refused in ((needed - 1, True), (needed, False)):
        monkeypatch.setattr("anyrank.runtime.memory.available", lambda free=free: free)
        error = shortage(state, "plate")
        assert bool(error) is refused
        who = "rank 0" if world.size == 1 else "ranks 0-1"
        assert not error or f"plate: the fields of {who} need {needed} bytes" in str(error)


def test_run_fields_beyond_the_memory_limit_are_refused(tmp_path):
    done = run_anyrank(
        "run", "weather", "--rows", 4000, "--columns", 4000, "--memory-limit", "40MB", "--out", tmp_path / "r", ranks=2
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "weather: --memory-limit 40000000 is less than the" in done.stderr and not (tmp_path / "r").exists()


@pytest.mark.parametrize("n", [10**6, 10**10])
def test_run_sizes_beyond_memory_are_refused_with_the_bytes(n, tmp_path):
    done = run_anyrank("run", "weather", "--rows", n, "--columns", n, "--out", tmp_path / "r")
    assert done.returncode == 2 and " bytes" in done.stderr and "Traceback" not in done.stderr
