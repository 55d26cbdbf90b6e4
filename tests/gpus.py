"""Pytest plugin for the tests marked `gpu`: the choice of the GPU, and what `-m gpu` changes.

Values of ANYRANK_TEST_GPU:

- not set: the GPU that CuPy finds; without a GPU the tests are skipped;
- `1`: the same, but the tests fail without a GPU;
- `bare`: the same, for compute-sanitizer: each array has its own allocation;
- `emulated`: the emulated GPU under CuPy's name, in this process and in its child processes. Sizes are small.

`-m gpu` imports only the files that have such tests, reports a file that cannot be imported and goes on, and runs
the most informative tests first. SIGTERM ends it like Ctrl-C: failures are shown, and --junit-xml is written.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from anyrank.device.select import gpu_missing

WANTED = os.environ.get("ANYRANK_TEST_GPU", "")
BARE, EMULATED = WANTED == "bare", WANTED == "emulated"
#: Parts of node ids in the order in which their tests run; the last match counts. Whole runs come last.
ORDER = (
    *("device/test_exact.py", "device/test_gpu.py", "numerics/test_digest.py", "numerics/test_random.py"),
    *("kernels/test_exact_sum.py", "kernels/test_philox.py", "device/test_slices.py", "exchange/"),
    *("test_pi_", "test_runs_stop_", "test_ncars_"),
)
_STAND_IN = Path(__file__).parent / "device" / "stand_in"
_DRIVERS: list[tempfile.TemporaryDirectory[str]] = []  # removed when this process ends


def _emulate() -> None:
    """Let CuPy be the emulated GPU, and libcuda.so.1 an empty library, in this process and its child processes."""
    sys.path.insert(0, str(_STAND_IN))
    _prepend("PYTHONPATH", _STAND_IN)
    if gpu_missing():
        _DRIVERS.append(tempfile.TemporaryDirectory(prefix="anyrank-no-driver-"))
        library = Path(_DRIVERS[0].name) / "libcuda.so.1"
        name = f"-Wl,-soname,{library.name}"
        subprocess.run(("cc", "-shared", "-nostdlib", name, "-o", library, "-x", "c", os.devnull), check=True)
        ctypes.CDLL(str(library))  # for this process, whose loader has already read LD_LIBRARY_PATH
        _prepend("LD_LIBRARY_PATH", library.parent)


def _prepend(variable: str, folder: Path) -> None:
    others = [part for part in os.environ.get(variable, "").split(os.pathsep) if part and part != str(folder)]
    os.environ[variable] = os.pathsep.join([str(folder), *others])


if EMULATED:
    _emulate()


def _only_gpu(config: pytest.Config) -> bool:
    return config.option.markexpr == "gpu"


def pytest_configure(config: pytest.Config) -> None:
    if not _only_gpu(config):
        return
    config.option.continue_on_collection_errors = True
    if config.option.durations is None:
        config.option.durations = 25
    if not hasattr(config, "workerinput"):
        signal.signal(signal.SIGTERM, _end)


def _end(*_: object) -> None:
    """End like Ctrl-C, once: `timeout` sends the signal twice."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    other = _only_gpu(config) and collection_path.suffix == ".py" and "mark.gpu" not in collection_path.read_text()
    return other or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _only_gpu(config):
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    fitting = [number for number, part in enumerate(ORDER) if part in item.nodeid]
    return max(fitting, default=ORDER.index("exchange/"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not WANTED and (missing := gpu_missing()):
        pytest.skip(missing)
