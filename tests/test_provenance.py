from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time

import h5py
import numpy as np
from ranks import run_anyrank
from storage.samples import checkpoints, declare, write

import anyrank
import anyrank.kernels
from anyrank.device import open_device
from anyrank.kernel import BODIES
from anyrank.provenance import (
    anyrank_hash,
    changes,
    clocks,
    commit,
    environment,
    here,
    masked,
    provenance,
    remember,
    versions,
)
from anyrank.world import World

PROGRAM = """
from anyrank import Program, param


class Count(Program):
    steps: int = param(4, "steps")

    def declare(self, state):
        state.field("x", (12,))

    def step(self, state):
        state.x[...] = state.x.local + 1
"""


def git(folder, *arguments) -> str:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_commit_is_that_of_git(tmp_path):
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    assert commit(source) == ""
    git(source, "init", "-q", "-b", "main")
    assert commit(source) == "", "nothing is committed yet"
    for message in ("one", "two"):
        git(source, "commit", "-q", "--allow-empty", "-m", message)
        assert commit(source / "deep" / "er") == git(source, "rev-parse", "HEAD")
    git(source, "pack-refs", "--all")
    assert commit(source) == git(source, "rev-parse", "HEAD")
    git(source, "worktree", "add", "-q", str(tmp_path / "tree"), "-b", "side")
    git(tmp_path / "tree", "commit", "-q", "--allow-empty", "-m", "three")
    assert commit(tmp_path / "tree") == git(tmp_path / "tree", "rev-parse", "HEAD") != commit(source)
    git(source, "checkout", "-q", "--detach", "HEAD~1")
    assert commit(source) == git(source, "rev-parse", "HEAD")


def test_provenance_has_versions_command_ranks_and_hosts():
    world = World()
    facts = provenance(world, "anyrank run pi")
    assert versions()["numpy"] == np.__version__ and versions().items() <= facts.items()
    assert {"numba", "pydantic", "libc", "system", "implementation"} <= versions().keys()
    assert facts["command"] == "anyrank run pi" and facts["ranks"] == 1 and facts["processor"] and facts["host"]
    assert "numpy" in json.loads(json.dumps(facts)), "it goes into summary.json"
    remember(world, hosts={"n1": "0-3"}, program_hash="")
    later = provenance(world, "anyrank run pi")
    assert later["hosts"] == {"n1": "0-3"} and "program_hash" not in later
    assert "hosts" not in provenance(World(), "anyrank run pi"), "another world's"


def test_clocks_of_one_boot_can_be_subtracted():
    first = clocks()
    time.sleep(0.05)
    two = clocks()
    assert first.get("boot") == two.get("boot") and 0.049 < two["monotonic"] - first["monotonic"] < 30
    assert first["utc"].endswith("+00:00")


def test_environment_has_relevant_variables_without_secrets():
    matters = {
        "OMP_NUM_THREADS": "2",
        "UCX_TLS": "tcp,self",
        "SLURM_JOB_ID": "7",
        "PBS_JOBID": "8.server",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "MPICH_DBG": "VERBOSE",
        "LD_PRELOAD": "/lib/libx.so",
    }
    secrets = ["SLURM_JWT", "SLURM_API_TOKEN", "PBS_PASSWORD", "ANYRANK_SECRET", "UCX_KEY", "FI_AUTH", "OMPI_Cookie"]
    passing = ["PMI_FD", "PMI_PORT", "HYDI_CONTROL_FD", "SLURM_SRUN_COMM_PORT", "PMIX_SERVER_URI41", "SLURM_TASK_PID"]
    others = ["HOME", "PATH", "AWS_ACCESS", "MY_OMP_X"]
    result = environment({**matters, **dict.fromkeys([*secrets, *passing, *others], "hidden")})
    assert result == matters and "hidden" not in json.dumps(result)


def test_masked_values_are_shortened_at_whole_characters():
    assert masked("http://me:pw@host/x https://ghp_123@hub", 99) == "http://***@host/x https://***@hub"
    assert masked("a@b://c/d@e", 99) == "a@b://c/d@e", "no login"
    assert masked("x" * 11, 10) == "x" * 9 + "…" and masked("x" * 10, 10) == "x" * 10
    assert masked("caf\udce9", 99) == "caf\\udce9", "a byte that is no UTF-8 can be written"
    assert len(environment({"UCX_X": "é" * 10_000})["UCX_X"]) == 1000


def test_provenance_of_a_huge_job_fits_into_a_checkpoint(tmp_path, monkeypatch):
    """HDF5 limits an attribute to 64 kB, but not text of variable length: hosts are stored whatever their number."""
    for number in range(3000):
        monkeypatch.setenv(f"UCX_{number:04}", "é" * 100)
    monkeypatch.setenv("SLURM_TOKEN", "hidden")
    state = declare(World())
    hosts = {f"node{number:05}.cluster": f"{number}" for number in range(10_000)}
    remember(state.world, hosts=hosts)
    saved = write(tmp_path, state, 1, command="anyrank run x --files " + "a/b.txt " * 20_000 + "\udce9")
    with h5py.File(saved.path) as file:
        facts = dict(file["provenance"].attrs)
    stored = json.loads(facts["environment"])
    assert len(facts["environment"]) > 2**20 and stored["UCX_2999"] == "é" * 100 and "SLURM_TOKEN" not in stored
    assert json.loads(facts["hosts"]) == hosts
    assert facts["command"].startswith("anyrank run x --files a/b.txt ") and len(facts["command"]) == 30_000
    restored = checkpoints(tmp_path, declare(World())).restore()
    assert restored.step == 1 and restored.changes == []


def test_anyrank_hash_depends_on_the_code_but_not_on_its_folder(tmp_path, monkeypatch):
    """Of a copy with the folders of a wheel; caches do not count, a compiled body and a kernel's source do."""
    mine = anyrank_hash()
    ignore = shutil.ignore_patterns("kernels")
    shutil.copytree(anyrank.__path__[0], tmp_path / "anyrank", ignore=ignore)
    shutil.copytree(anyrank.kernels.__path__[0], tmp_path / "anyrank" / "kernels")
    monkeypatch.setattr(anyrank, "__path__", [str(tmp_path / "anyrank")])
    monkeypatch.setattr(anyrank.kernels, "__path__", [str(tmp_path / "anyrank" / "kernels")])

    def new_hash() -> str:
        anyrank_hash.cache_clear()
        return anyrank_hash()

    try:
        assert new_hash() == mine
        shutil.rmtree(tmp_path / "anyrank" / "__pycache__", ignore_errors=True)
        (tmp_path / "anyrank" / "kernels" / "philox" / "__pycache__").mkdir(exist_ok=True)
        (tmp_path / "anyrank" / "kernels" / "philox" / "__pycache__" / "x.pyc").write_bytes(b"x")
        assert new_hash() == mine
        seen = {mine}
        for name in ("world.py", "kernels/philox/gpu.cu", "kernels/philox/reference.py", "kernels/philox/new.so"):
            with (tmp_path / "anyrank" / name).open("a") as file:
                file.write("\n")
            seen.add(new_hash())
        assert len(seen) == 5
    finally:
        anyrank_hash.cache_clear()


def test_provenance_names_the_gpu_only_if_one_is_used(monkeypatch):
    assert "cupy" not in here(), "it is installed, but this process computes on the host"
    monkeypatch.setenv("ANYRANK_SHIM", "gpus=2 memory=64e9")
    monkeypatch.setattr(BODIES, "device", open_device("shim", 1))
    stored = {
        "gpu": "an emulated GPU 0000:01:00.0",
        "gpu_memory": "64.0 GB",
        "cupy": "fake",
        "cuda": "13000, driver 13000",
    }
    assert stored.items() <= here().items()


def test_changes_since_a_checkpoint_are_listed():
    world = World()
    remember(world, program_hash="beef" * 16)
    now = provenance(world, "")
    assert changes(world, now) == []
    assert changes(world, {"python": "2.7"}) == [], "a file of an anyrank that did not tell"
    then = {**now, "program_hash": "feed" * 16, "numpy": "1.26.4", "anyrank_hash": "cafe" * 16}
    assert changes(world, then) == [
        "another program file (feedfeedfeed) than this run's (beefbeefbeef)",
        f"another anyrank (cafecafecafe) than this run's ({anyrank_hash()[:12]})",
        f"another NumPy (1.26.4) than this run's ({np.__version__})",
    ]


def test_run_writes_provenance_and_resume_lists_the_changes(tmp_path):
    """Provenance is in the summary, the log and the checkpoint."""
    program, out = tmp_path / "count.py", tmp_path / "r"
    program.write_text(PROGRAM)
    env = {"SLURM_JWT": "hidden", "UCX_TLS": "all", "ANYRANK_PROXY": "http://me:hidden@host"}
    run = ("run", program, "--out", out, "--stop-at", 2)
    done = run_anyrank(*run, ranks=2, env={**os.environ, **env})
    assert done.returncode == 75 and "warning" not in done.stderr, done.stderr
    stored = json.loads((out / "summary.json").read_text())["provenance"]
    assert stored["hosts"] == {os.uname().nodename: "0-1"}
    assert stored["program_hash"] == hashlib.sha256(program.read_bytes()).hexdigest()
    assert stored["environment"]["UCX_TLS"] == "all" and stored["environment"]["ANYRANK_PROXY"] == "http://***@host"
    path = out / "checkpoints" / "step-000000000002.h5"
    with h5py.File(path) as file:
        stored = dict(file["provenance"].attrs)
    stored |= {name: json.loads(stored[name]) for name in ("hosts", "environment")}
    times = {"utc", "monotonic"}
    assert {k: v for k, v in stored.items() if k not in times} == {k: v for k, v in stored.items() if k not in times}
    assert 0 <= stored["monotonic"] - stored["monotonic"] < 60
    log = (out / "log" / "rank-0000.log").read_text()
    assert f'"program_hash": "{stored["program_hash"]}"' in log and '"hosts": ' in log
    assert "hidden" not in log + str(stored) + str(stored)

    program.write_text(PROGRAM + "\n")
    new_hash = run_anyrank("resume", out)
    message = f"warning: {path.name} was written with another program file ({stored['program_hash'][:12]}) than this"
    assert new_hash.returncode == 0 and new_hash.stderr.count(message) == 1, new_hash.stderr
    assert "another program file" in (out / "log" / "rank-0000.log").read_text()
