"""The plugin gpus.py: the tests that `-m gpu` runs, their order, and the reports after SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from xml.etree import ElementTree

from ranks import run_command, start_process

ROOT = Path(__file__).parents[1]


def gpu_command(*words):
    return sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *words


def test_gpu_marker_alone_collects_tests_in_order():
    """The most informative tests come first; files without such tests are not imported."""
    done = run_command(*gpu_command("--collect-only", "-q", "tests"), cwd=ROOT)
    assert done.returncode == 0, done.stdout
    lines = [line for line in done.stdout.splitlines() if "::" in line]
    files = list(dict.fromkeys(line.split("::")[0].removeprefix("tests/") for line in lines))
    assert files == [
        *("device/test_exact.py", "device/test_gpu.py", "numerics/test_digest.py", "numerics/test_random.py"),
        *("kernels/test_exact_sum.py", "kernels/test_philox.py", "device/test_slices.py", "exchange/test_device.py"),
    ]
    last = [line.split("::")[1].split("[")[0] for line in lines[-4:]]
    assert [name.split("_")[1] for name in last] == ["pi", "runs", "ncars", "ncars"]


def test_gpu_marker_alone_continues_after_an_import_error(tmp_path):
    (tmp_path / "hypothesis.py").write_text("raise ImportError('there is no hypothesis')")
    env = {"PYTHONPATH": f"{tmp_path}", "ANYRANK_TEST_GPU": "emulated", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = run_command(*gpu_command("tests/numerics/test_digest.py", "tests/kernels/test_philox.py"), cwd=ROOT, env=env)
    assert done.returncode == 1 and "1 passed" in done.stdout and "1 error" in done.stdout
    assert "ERROR collecting tests/numerics/test_digest.py" in done.stdout and "there is no hypothesis" in done.stdout


def test_gpu_marker_alone_sigterm_writes_the_report(tmp_path):
    report, file = tmp_path / "report.xml", "tests/device/test_exact.py"
    env = {"ANYRANK_TEST_GPU": "emulated", "PYTHONUNBUFFERED": "1"}
    with start_process(*gpu_command("-v", f"--junit-xml={report}", file), cwd=ROOT, env=env) as process:
        for line in process.stdout:
            if "PASSED" in line:
                os.kill(process.pid, signal.SIGTERM)
                os.kill(process.pid, signal.SIGTERM)
                break
        rest = process.stdout.read()
        assert process.wait() == 2, rest
    assert "KeyboardInterrupt" in rest and "slowest 25 durations" in rest
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert 0 < int(suite.get("tests")) < 32
