"""A GPU gives the CPU's bits: a real one in `make gpu-test`, and the fake one in every run of the tests."""

from __future__ import annotations

import importlib
import json
import sys
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gpus import BARE, EMULATED
from ranks import run_anyrank, run_command, start_process

from anyrank.device import open_device
from anyrank.exchange import packing
from anyrank.kernel import installed_kernels, load_module

BENCH = Path(__file__).parents[2] / "benchmarks" / "gpu" / "bench.py"
GPU = pytest.mark.parametrize("body", ["shim", pytest.param("cupy", marks=pytest.mark.gpu)])


KERNELS = [kernel for kernel in installed_kernels() if find_spec(f"anyrank.kernels.{kernel.folder}.gpu")]


def is_real_gpu(body):
    """Whether the body runs on a real GPU, where sizes may be large."""
    return body == "cupy" and not EMULATED


def open_gpu(body):
    """The GPU. Under compute-sanitizer each array has its own allocation, so that reads past its end are detected."""
    device = open_device(body)
    if BARE:
        device.cupy.cuda.set_allocator(None)
    return device


def on_device(device, argument, stays):
    """The argument on the device; arrays of two axes have other elements between their rows, as fields do."""
    if stays or not isinstance(argument, np.ndarray):
        return argument
    if argument.ndim != 2 or argument.flags.c_contiguous:
        return device.from_host(np.ascontiguousarray(argument))
    rows, columns = argument.shape
    inside = device.full((rows, columns + 5), 7, argument.dtype)[:, 2 : 2 + columns]
    inside[...] = device.from_host(np.ascontiguousarray(argument))
    return inside


def test_gpu_kernel_list_is_complete():
    folders = {"digest", "exact_sum", "philox", "quarter_circle", "shallow_water"}
    assert {kernel.folder for kernel in KERNELS} == folders


@GPU
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_gpu_kernel_gives_the_references_bits(kernel, body):
    device, package = open_gpu(body), importlib.import_module(f"anyrank.kernels.{kernel.folder}")
    run, reference = kernel.load(body, device), kernel.load("reference", open_device("reference"))
    for size in (1, 77, 3001, 1_000_003 if is_real_gpu(body) and not BARE else 20_000):
        theirs, _, _ = package.example(kernel.operation, size)
        stay = [place % len(theirs) for place in getattr(package, "ON_HOST", ())]
        mine = [on_device(device, argument, place in stay) for place, argument in enumerate(theirs)]
        result, expected = run(*mine), reference(*theirs)
        assert np.array_equal(device.to_host(result) if device.owns(result) else result, expected)
        for place, (ours, expected) in enumerate(zip(mine, theirs, strict=True)):
            if isinstance(expected, np.ndarray):
                result = ours if place in stay else device.to_host(ours)
                assert np.ascontiguousarray(result).tobytes() == expected.tobytes(), (size, place)


def box(device, array):
    return packing.Box(device.address(array), array.itemsize, array.shape, array.strides)


@GPU
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", "c16"])
def test_gpu_kernel_of_packing_copies_boxes_of_any_strides(dtype, body):
    """One launch packs boxes of all sizes into memory that ends where they end, and into another array."""
    device, shape = open_gpu(body), (7, 70, 41)
    module = load_module(device, Path(packing.__file__).with_name("boxes.cu"))
    regions = np.s_[1:-1, 2:-2, 1:-1], np.s_[:, :, -1:], np.s_[:1, ::3, ::2], np.s_[-1:, -1:, -1:]
    whole = np.random.default_rng(3).integers(0, 250, shape).astype(dtype)
    source_array, other = device.from_host(whole), device.full(shape, 0, dtype)
    packed = [device.full(whole[region].shape, 0, dtype) for region in regions]

    def copy(sources, targets):
        pairs = zip(sources, targets, strict=True)
        rows = [packing._box_row(box(device, a), box(device, b), len(shape)) for a, b in pairs]
        table = device.from_host(np.array(rows, np.uint64))
        module.launch("copy_boxes", (len(rows), 3), (packing.THREADS,), (table, np.int32(len(shape))))

    expected = np.zeros(shape, dtype)
    copy([source_array[region] for region in regions], packed)
    copy(packed, [other[region] for region in regions])
    for region, result in zip(regions, packed, strict=True):
        expected[region] = whole[region]
        assert device.to_host(result).tobytes() == whole[region].tobytes()
    assert device.to_host(other).tobytes() == expected.tobytes()


def summary(*words, ranks=None, code=0):
    done = run_anyrank(*words, "--json", "--quiet", ranks=ranks, timeout=240)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def weather(side, steps, *more):
    return ("run", "weather", "--rows", side, "--columns", side, "--steps", steps, "--no-picture", *more)


@GPU
def test_runs_stop_on_a_gpu_and_resume_on_cpus_and_back(tmp_path, body):
    side, steps = (4096, 30) if is_real_gpu(body) else (40, 30)
    expected = summary(*weather(side, steps, "--body", "cython", "--out", tmp_path / "cpu"), ranks=2)
    out = tmp_path / "mixed"
    summary(*weather(side, steps, "--body", body, "--stop-at", 10, "--out", out), ranks=2, code=75)
    summary("resume", out, "--body", "cython", "--stop-at", 20, ranks=3, code=75)
    last = summary("resume", out, "--body", body, ranks=1)
    assert last["bodies"]["shallow_water"] == body and last["finished"]
    assert last["digests"] == expected["digests"]


@GPU
def test_pi_on_a_gpu_counts_the_same_hits(tmp_path, body):
    points = 10**10 if is_real_gpu(body) else 10**5
    words = ("run", "pi", "--points", points, "--batch", points // 3)
    on_cpu = summary(*words, "--body", "cython", "--out", tmp_path / "cpu", ranks=2)
    on_gpu = summary(*words, "--body", body, "--out", tmp_path / "gpu", ranks=2)
    assert on_gpu["digest"] == on_cpu["digest"]


def bench(*words, code=0, env=None):
    done = run_command(sys.executable, BENCH, *words, timeout=500, env=env)
    assert done.returncode == code, done.stderr
    return done.stdout


def read_rows(out):
    return [json.loads(line) for line in (out / "bench.jsonl").read_text().splitlines()]


def table_rows(text):
    return [line for line in text.splitlines() if line.startswith("| ")][1:]


def test_gpu_bench_measures_every_row(tmp_path):
    shown = bench("--body", "shim", "--quick", "--out", tmp_path)
    rows = table_rows(shown)
    assert len(rows) == len(read_rows(tmp_path)) == 23 and not any(
        word in row for row in rows for word in ("nan", "FAILED")
    )
    assert table_rows((tmp_path / "bench.md").read_text()) == rows
    assert "an emulated GPU" in (tmp_path / "bench.md").read_text()


def test_gpu_bench_killed_midway_keeps_its_rows(tmp_path):
    with start_process(sys.executable, BENCH, "--body", "shim", "--quick", "--out", tmp_path) as process:
        while not (tmp_path / "bench.md").exists() or len(read_rows(tmp_path)) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        process.wait()
    before, rows = read_rows(tmp_path), table_rows((tmp_path / "bench.md").read_text())
    assert 2 <= len(before) < 23 and len(before) - 1 <= len(rows) <= len(before)
    assert [row.split(" | ")[0] for row in rows] == ["| " + entry["row"][0] for entry in before[: len(rows)]]
    bench("--body", "shim", "--quick", "--out", tmp_path, "--only", "pinned,copy")  # a newer copy, and one more
    assert len(read_rows(tmp_path)) == len(before) + 2
    assert len(table_rows((tmp_path / "bench.md").read_text())) == len(before) + 1


def test_gpu_bench_row_that_fails_is_shown_and_skipped(tmp_path):
    words = ("--body", "shim", "--quick", "--out", tmp_path, "--only", "copy,launches,pinned")
    shown = bench(*words, code=1, env={"ANYRANK_SHIM": "memory=2e5"})
    assert [entry["row"][1] == "FAILED" for entry in read_rows(tmp_path)] == [False, True, False]
    assert "launches: FAILED (OutOfMemoryError: Out of memory allocating" in shown


def test_gpu_bench_rows_without_time_are_left_out(tmp_path):
    shown = bench("--limit", 9, "--out", tmp_path, "--only", "copy,pi,checkpoint")  # no GPU is requested
    assert shown.count("s, and 9 are left") == 3 and "left out for lack of time: copy, pi, checkpoint" in shown
    assert not read_rows(tmp_path)


def test_gpu_bench_row_of_no_such_name_is_refused():
    done = run_command(sys.executable, BENCH, "--only", "copy,copies")
    assert done.returncode == 2 and "there is no row copies; rows are copy, weather-kernel," in done.stderr


@pytest.fixture
def bench_module(monkeypatch):
    monkeypatch.syspath_prepend(BENCH.parent)
    return importlib.import_module("bench")


def test_gpu_bench_fits_its_limit_on_an_ordinary_disk(bench_module):
    known = bench_module.ASSUMED | {"disk": 1e9}
    groups = [attempt.group for attempt in bench_module.ATTEMPTS]
    children = 1 + sum(a != b for a, b in pairwise(groups))
    assert children * bench_module.CHILD_SECONDS + sum(a.estimate(known) for a in bench_module.ATTEMPTS) < 260


@pytest.mark.parametrize("disk", [5e9, 1e9, 3e8])
def test_gpu_bench_checkpoint_interval_follows_the_disks_rate(bench_module, monkeypatch, tmp_path, disk):
    arguments_seen = []

    def weather(self, *arguments, **named):
        arguments_seen.extend(arguments)
        raise InterruptedError

    monkeypatch.setattr(bench_module.Bench, "weather", weather)
    known = bench_module.ASSUMED | {"disk": disk}
    with pytest.raises(InterruptedError):
        bench_module.BY_NAME["checkpoint"].measure(bench_module.Bench(False, "cupy", tmp_path, known))
    rows, columns, steps, option, every = arguments_seen
    write, cells = 48 * rows * columns / disk, rows * columns
    assert write <= 4 and 48 * cells <= 3.2e9
    assert option == "--checkpoint-every" and steps == 2 * every and 1.7 < every * cells / known["cells"] / write < 1.9


def test_gpu_bench_run_without_room_on_disk_is_refused(bench_module, monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=3.9e9))
    tried = bench_module.Bench(False, "cupy", tmp_path, {})
    with pytest.raises(OSError, match=r"has 3.9 GB free, and 6.4 are needed: use --folder DIR"):
        tried.weather(8192, 8192, 10, checkpoints=2)


def test_gpu_bench_child_that_hangs_is_killed_with_all(bench_module, tmp_path):
    command = ["sh", "-c", "echo noise; setsid sleep 1000 & exec sleep 1000"]
    child = bench_module.Child(command, tmp_path / "errors")
    with pytest.raises(TimeoutError, match="killed after 1 s"):
        child.ask({}, 1)
    child.kill()
    tag = child._tag.encode()
    assert not [path for path in Path("/proc").glob("[0-9]*") if tag in environ(path)]


def environ(process):
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


def test_gpu_bench_child_that_crashes_is_reported(bench_module, tmp_path):
    child = bench_module.Child(["sh", "-c", "echo the card is lost >&2; exit 3"], tmp_path / "errors")
    with pytest.raises(EOFError, match="ended with 3: the card is lost"):
        child.ask({}, 100)


@pytest.mark.gpu
@pytest.mark.parametrize("ranks", [1, 2])
def test_ncars_bits_on_a_gpu_that_ranks_share(tmp_path, ranks):
    steps = 4000 if is_real_gpu("cupy") else 40
    result = summary(*weather(64, steps, "--body", "cupy", "--out", tmp_path / "run"), ranks=ranks)
    expected = summary(*weather(64, steps, "--body", "cython", "--out", tmp_path / "cpu"))
    assert result["digests"] == expected["digests"]  # test_weather.py compares these with NCAR's
