"""`anyrank doctor` for bug reports: it shows what the provenance of a run holds, and no secrets."""

from __future__ import annotations

import json
import os
import sys

from click.testing import CliRunner
from ranks import run_anyrank

from anyrank.cli.doctor import command, time_body
from anyrank.device import select
from anyrank.device.emulated import fake
from anyrank.kernel import Kernel
from anyrank.provenance import here, versions

ENVIRONMENT = {
    "SLURM_JWT": "hidden",
    "UCX_TLS": "tcp,self",
    "ANYRANK_PROXY": "http://me:hidden@host",
    "LD_PRELOAD": "",
}


def test_doctor_text_shows_provenance_without_secrets():
    done = run_anyrank("doctor", "--no-kernels", env={**os.environ, **ENVIRONMENT})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for name, value in here().items():
        whole = name in versions() or name in ("host", "processor")
        assert any(line.startswith(f"{name:<18} {value if whole else ''}") for line in lines), name
    assert "    UCX_TLS=tcp,self" in lines and "    ANYRANK_PROXY=http://***@host" in lines
    assert any(line.startswith("utc") for line in lines) and any(line.startswith("monotonic") for line in lines)
    assert "hidden" not in done.stdout


def test_doctor_json_has_the_same_facts():
    done = CliRunner().invoke(command, ["--no-kernels", "--json"], env=ENVIRONMENT)
    facts = json.loads(done.stdout)
    assert here().keys() <= facts.keys() and versions().items() <= facts.items()
    assert facts["environment"]["UCX_TLS"] == "tcp,self" and "SLURM_JWT" not in facts["environment"]
    assert facts["kernels"] == [] and facts["mpiexec"] and facts["memory"] and facts["gpu"]


def test_doctor_shows_memory_and_driver_of_gpus(monkeypatch):
    monkeypatch.setattr(select, "_has_driver", lambda: True)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    done = CliRunner().invoke(command, ["--no-kernels", "--json"], env={"ANYRANK_SHIM": "gpus=2 memory=8e9"})
    shown = json.loads(done.stdout)["gpu"].split("; ")
    assert shown[0].startswith("an emulated GPU 0000:00:00.0, ") and " of 8.0 GB free" in shown[0]
    assert shown[1].startswith("an emulated GPU 0000:01:00.0, ") and shown[2] == "driver for CUDA up to 13.0"
    assert time_body(Kernel("digest"), "cupy", 100)[0] > 0
