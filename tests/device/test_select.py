"""Which GPU a rank uses, and the message if there is none."""

from __future__ import annotations

import sys

import pytest

from anyrank.device import open_device, select
from anyrank.device.emulated import fake
from anyrank.device.select import gpu_missing, gpus_here, is_device_error
from anyrank.errors import UsageError
from anyrank.kernel import Bodies


def refusal(body="shim"):
    with pytest.raises(UsageError) as caught:
        open_device(body)
    return str(caught.value)


def test_open_device_ranks_of_a_node_use_its_gpus_in_turn(monkeypatch):
    monkeypatch.setenv("ANYRANK_SHIM", "gpus=2")
    gpus = [open_device("shim", node_rank) for node_rank in range(5)]
    assert [gpu.name for gpu in gpus] == ["shim:0", "shim:1", "shim:0", "shim:1", "shim:0"]
    assert gpus[3].card == "an emulated GPU 0000:01:00.0" and not gpus[3].refused


def test_open_device_gpu_that_does_not_work_is_skipped(monkeypatch):
    monkeypatch.setenv("ANYRANK_SHIM", "gpus=3 lost=1")
    gpus = [open_device("shim", node_rank) for node_rank in range(3)]
    assert [gpu.name for gpu in gpus] == ["shim:0", "shim:2", "shim:2"]
    assert [len(gpu.refused) for gpu in gpus] == [0, 1, 0]
    assert gpus[1].refused[0].startswith("GPU 1 cannot be used (cudaErrorDevicesUnavailable")


def test_open_device_gpu_with_wrong_values_is_skipped(monkeypatch):
    monkeypatch.setenv("ANYRANK_SHIM", "gpus=2")
    real = select._try
    monkeypatch.setattr(select, "_TRIAL", select._TRIAL.replace("+ 1u", "+ 2u"))
    monkeypatch.setattr(select, "_try", lambda gpu: real(gpu) if gpu.index == 0 else None)
    gpu = open_device("shim")
    assert gpu.name == "shim:1" and gpu.refused == ("GPU 0 cannot be used (it computes wrong values)",)


@pytest.mark.parametrize(
    ("error", "words"), [(Exception("nvrtc: error\nmore"), "nvrtc: error"), (OSError(), "OSError")]
)
def test_open_device_any_error_of_a_gpu_skips_it(monkeypatch, error, words):
    """CuPy raises CompileException, a plain Exception, for a GPU that its compiler does not know."""
    real = select._try
    monkeypatch.setenv("ANYRANK_SHIM", "gpus=2")
    monkeypatch.setattr(select, "_try", lambda gpu: real(gpu) if gpu.index else (_ for _ in ()).throw(error))
    assert open_device("shim").refused == (f"GPU 0 cannot be used ({words})",)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ("driver=0", "--body shim: there is an NVIDIA driver, but CuPy cannot load it (libcuda.so.1). Install"),
        ("gpus=0", "--body shim: there is an NVIDIA driver, but it shows no GPU (CUDA_VISIBLE_DEVICES, or"),
        ("driver=12020", "too old: it runs CUDA up to 12.2, and CuPy fake is made for 13.0. Update the driver, or"),
        ("lost=0", "--body shim: 1 GPU(s) found: GPU 0 cannot be used (cudaErrorDevicesUnavailable: CUDA-capable"),
        ("gpus=2 memory=9", "GPU 0 cannot be used (Out of memory allocating 256 bytes); GPU 1 cannot be used (Out"),
    ],
)
def test_open_device_refusal_names_what_was_found(monkeypatch, machine, words):
    monkeypatch.setenv("ANYRANK_SHIM", machine)
    assert words in refusal()


def driver(monkeypatch, cupy=fake):
    """Pretend that there is a driver and that CuPy is this module; None if it cannot be imported."""
    monkeypatch.setattr(select, "_has_driver", lambda: True)
    monkeypatch.setitem(sys.modules, "cupy", cupy)


def test_find_cupy_without_a_gpu_is_described(monkeypatch):
    monkeypatch.setattr(select, "_has_driver", lambda: False)
    text = refusal("cupy")
    assert text.startswith("--body cupy: there is no NVIDIA driver (no /dev/nvidiactl, no libcuda.so.1). Use --body")
    driver(monkeypatch, None)
    assert "there is an NVIDIA driver, but CuPy cannot be imported (" in refusal("cupy")
    assert gpus_here() == gpu_missing() != ""


def test_bodies_auto_uses_a_working_gpu_or_the_host(monkeypatch):
    driver(monkeypatch)
    bodies = Bodies()
    bodies.prefer("auto")
    assert bodies.device.name == "cuda:0" and not bodies.no_gpu
    assert gpus_here().startswith("an emulated GPU 0000:00:00.0, 1099.5 of 1099.5 GB free; driver for CUDA")
    monkeypatch.setenv("ANYRANK_SHIM", "lost=0")
    bodies.prefer("auto")
    assert bodies.device.on_host and "GPU 0 cannot be used (cudaErrorDevicesUnavailable" in bodies.no_gpu
    monkeypatch.setenv("ANYRANK_SHIM", "gpus=0")
    bodies.prefer("auto")
    assert bodies.device.on_host and "shows no GPU" in bodies.no_gpu


def test_is_device_error_recognises_errors_of_cupy():
    pytest.importorskip("cupy")
    from cupy.cuda.memory import OutOfMemoryError
    from cupy_backends.cuda.api.driver import CUDADriverError
    from cupy_backends.cuda.api.runtime import CUDARuntimeError

    theirs = [kind.__new__(kind) for kind in (OutOfMemoryError, CUDARuntimeError, CUDADriverError)]
    assert all(map(is_device_error, (*theirs, fake.CUDARuntimeError(), fake.OutOfMemoryError())))
    assert not is_device_error(MemoryError()) and not is_device_error(RuntimeError())
