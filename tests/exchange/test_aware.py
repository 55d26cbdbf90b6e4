"""Whether MPI gets GPU memory: what the library reports, and the results of a test process and of test messages."""

from __future__ import annotations

import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from mpi4py import MPI
from ranks import check_collective, run_anyrank

from anyrank.errors import UsageError
from anyrank.exchange import aware
from anyrank.kernel import BODIES
from anyrank.runtime.options import Options

CRASHES = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
HANGS = "import subprocess, time; subprocess.Popen(['sleep', '100']); time.sleep(100)"
FAILS = "print('no such memory'); raise SystemExit(3)"


@pytest.fixture
def gpu():
    """The fake GPU as the device of a test."""
    BODIES.prefer("shim")
    yield BODIES.device
    BODIES.prefer("auto")


class Comm:
    """A communicator that corrupts messages as an MPI without GPU support does."""

    def __init__(self, comm, fault):
        self._comm, self._what, self._kept = comm, fault, []

    def __getattr__(self, name):
        return getattr(self._comm, name)

    def Send_init(self, message, to, tag):  # noqa: N802
        if self._what == "lost":
            return self._comm.Send_init(message, MPI.PROC_NULL, tag)
        self._kept.append(np.array(message[0]))  # their values in the first round
        old = self._kept[-1].nbytes > 1000
        return self._comm.Send_init([self._kept[-1], MPI.BYTE] if old else message, to, tag)


def cray(kind, supported):
    supported._obj.value = int(kind == 0)


@pytest.mark.parametrize(
    ("library", "kinds", "claims"),
    [
        ({}, None, False),
        ({}, "mpi,system", False),
        ({}, "mpi,system,cuda:device", True),
        ({"MPIX_Query_cuda_support": lambda: 0}, None, False),
        ({"MPIX_Query_cuda_support": lambda: 1}, None, True),
        ({"MPIX_Query_cuda_support": lambda: 0, "MPIX_GPU_query_support": cray}, None, True),
    ],
)
def test_query_support_reads_all_ways_in_which_mpi_reports_it(library, kinds, claims, monkeypatch):
    monkeypatch.setattr(aware.ctypes, "CDLL", lambda path: SimpleNamespace(**library))
    info = SimpleNamespace(Get=lambda name: kinds, Free=lambda: None)
    problem = aware.query_support(SimpleNamespace(Get_info=lambda: info))
    assert (problem == "") == claims and (claims or problem.endswith("does not report support for GPU memory"))


def test_process_failure_is_described(gpu, monkeypatch):
    monkeypatch.setenv("PMI_RANK", "1")  # it must not wait for ranks of the launcher
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_FD", "99")
    assert aware.test_process(gpu) == ""
    ends = {CRASHES: "was killed by SIGSEGV", FAILS: "ended with status 3: no such memory", HANGS: "hung for 0.5 s"}
    for code, end in ends.items():
        monkeypatch.setattr(aware, "LIMIT", 0.5 if code == HANGS else 60.0)
        monkeypatch.setattr(aware, "command", lambda device, code=code: [sys.executable, "-c", code])
        assert aware.test_process(gpu) == f"a test process {end}"


def test_without_job_removes_the_launchers_variables():
    kept = {"PATH": "/bin", "UCX_TLS": "all", "MPIR_CVAR_ENABLE_GPU": "1", "OMPI_MCA_pml": "ucx", "CUDA_HOME": "/cuda"}
    removed = {
        "PMI_RANK": "0",
        "PMIX_RANK": "0",
        "SLURM_PROCID": "0",
        "OMPI_COMM_WORLD_SIZE": "2",
        "MPI_LOCALRANKID": "0",
    }
    assert aware.without_job(kept | removed) == kept


def test_process_reports_wrong_bytes(gpu, monkeypatch, capsys):
    monkeypatch.setattr(aware, "SIZES", (8,))
    assert aware.main("shim", "0") == 0
    counts = iter(range(9))
    monkeypatch.setattr(aware, "_values", lambda nbytes, rank, turn: np.full(nbytes, next(counts), np.uint8))
    assert aware.main("shim", "0") == 1
    assert capsys.readouterr().out.splitlines()[-1] == "messages of 8 bytes from GPU memory deliver wrong bytes"


@pytest.mark.ranks(1, 3)
@pytest.mark.parametrize("bodies", ["shim", "reference,shim"])
def test_transfer_is_staged_unless_all_checks_pass(world, bodies, monkeypatch):
    """The test processes are short here. Ranks without a GPU take part, too."""
    gpus = {(1, "shim"): "rank 0", (3, "shim"): "ranks 0-2", (3, "reference,shim"): "rank 1"}.get((world.size, bodies))
    if gpus is None:  # one rank without a GPU
        return
    first, codes, claims, comm = f"(rank {0 if bodies == 'shim' else 1})", [CRASHES], aware.query_support, world.comm
    monkeypatch.setattr(aware, "command", lambda device: [sys.executable, "-c", codes[-1]])
    BODIES.prefer(bodies, world.rank)
    try:
        device = BODIES.device

        def chosen(transfer="auto"):
            return aware.choose_transfer(world, device, transfer)

        way, why = chosen()
        check_collective(
            world, way == "staged" and why.endswith(f"does not report support for GPU memory ({gpus})"), why
        )
        check_collective(world, chosen("staged") == ("staged", "as requested"))

        monkeypatch.setattr(aware, "query_support", lambda comm: "")
        problem = f"a test process was killed by SIGSEGV {first}"
        check_collective(world, chosen() == ("staged", problem))
        with pytest.raises(
            UsageError, match=rf"--transfer direct: {re.escape(problem)}. Use --transfer staged, or an MPI"
        ):
            chosen("direct")
        codes.append("")
        check_collective(world, chosen() == ("direct", "test messages from GPU memory arrived"))
        monkeypatch.setattr(aware, "query_support", claims)
        check_collective(world, chosen("direct")[0] == "direct", "no claim is asked for")

        # LIMIT also applies to the test process, which may start late.
        monkeypatch.setattr(aware, "test_process", lambda device: "")
        for fault, words in (("old", "4194304 bytes .* deliver old bytes"), ("lost", "256 bytes .* do not arrive")):
            monkeypatch.setattr(world, "comm", Comm(comm, fault))
            monkeypatch.setattr(aware, "LIMIT", 0.3 if fault == "lost" else 60.0)
            with pytest.raises(UsageError, match=rf"--transfer direct: messages of {words} .*Use --transfer staged"):
                chosen("direct")
        monkeypatch.setattr(world, "comm", comm)
    finally:
        BODIES.prefer("auto")


def test_transfer_unknown_value_is_refused():
    with pytest.raises(UsageError, match=r"--transfer 'fast' must be one of auto, direct, staged"):
        Options(transfer="fast")


def test_transfer_is_in_the_summary_with_the_same_bits(tmp_path):
    """The same bits for every transfer; without a GPU the module is not imported."""
    words = ("run", "weather", "--rows", 20, "--columns", 22, "--steps", 6, "--no-picture", "--quiet", "--json")
    ways = {
        "host": ("--body", "cython", "--transfer", "direct"),
        "direct": ("--body", "shim,cython", "--transfer", "direct"),
        "staged": ("--body", "shim"),
    }
    digests = set()
    for way, more in ways.items():
        ranks = 2 if way == "direct" else None
        done = run_anyrank(*words, "--out", tmp_path / way, *more, ranks=ranks, env={"PYTHONPROFILEIMPORTTIME": "1"})
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout.splitlines()[-1])
        assert summary["transfer"] == way
        assert ("anyrank.exchange.aware" in done.stderr) == (way != "host")
        digests.add(summary["digest"])
    assert len(digests) == 1
    events = [json.loads(line) for line in (tmp_path / "staged" / "events.jsonl").read_text().splitlines()]
    (words,) = [event for event in events if event["event"] == "transfer"]
    assert words["way"] == "staged" and "does not report support for GPU memory (rank 0)" in words["why"]
    assert (
        f"halos of GPUs use staged transfer: {words['why']}"
        in (tmp_path / "staged" / "log" / "rank-0000.log").read_text()
    )
    assert 'transfer = "direct"' in (tmp_path / "direct" / "run.toml").read_text()
