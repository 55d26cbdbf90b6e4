"""The kernels' C code has no undefined behaviour, for any addresses and values of arrays."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "kernels"


def test_kernels_c_code_has_no_undefined_behaviour(tmp_path):
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs gcc or clang")
    checks = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
    command = [compiler, "-O1", "-ffp-contract=off", *checks, "-Wno-unused-function", f"-I{KERNELS}"]
    compiled = subprocess.run(
        [*command, HERE / "undefined.c", "-o", tmp_path / "undefined", "-lm"], capture_output=True, text=True
    )
    if compiled.returncode and "ubsan" in compiled.stderr:
        pytest.skip("needs libubsan")
    assert compiled.returncode == 0, compiled.stderr
    done = subprocess.run([tmp_path / "undefined"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
