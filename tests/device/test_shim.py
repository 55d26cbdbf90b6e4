"""CUDA C on the CPU: threads, barriers, types and bits as on a GPU; wrong launches are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ranks import check_collective

from anyrank.device import Module, open_device
from anyrank.device.gpu import GpuModule
from anyrank.device.select import gpu_missing
from anyrank.errors import UsageError

PLAIN = """
// extern "C" __global__ void not_a_function(long wrong)
__constant__ double TWO = 2.0;
static __device__ __forceinline__ double twice(double x) { return TWO * x; }

extern "C" __global__ void scale_rows(const double* __restrict__ a, double* b, long long rows,
                                      long long columns, long long a_stride, long long b_stride) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    long long j = blockIdx.y * (long long)blockDim.y + threadIdx.y;
    if (j < rows && i < columns) b[j * b_stride + i] = twice(a[j * a_stride + i]);
}

extern "C" __global__ void multiply_add(const double* a, const double* b, const double* c, double* d,
                                        int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) d[i] = a[i] * b[i] + c[i];
}

extern "C" __global__ void every_type(bool a, signed char b, unsigned char c, short d, unsigned short e, int f,
                                      unsigned int g, long long h, unsigned long long i, float j, double k,
                                      double* out) {
    double all[] = {(double)a, (double)b, (double)c, (double)d, (double)e, (double)f, (double)g,
                    (double)h, (double)i, (double)j, k};
    for (int n = 0; n < 11; ++n) out[n] = all[n];
}

extern "C" __global__ void __launch_bounds__(256) bits(unsigned long long a, unsigned long long b,
                                                              unsigned long long* out) {
    unsigned long long t = threadIdx.x;
    if (t == 0) {
        out[0] = __umul64hi(a, b);
        out[1] = __umulhi((unsigned int)a, (unsigned int)b);
        out[2] = __popcll(a);
        out[3] = __clzll((long long)a);
        out[4] = (unsigned long long)__double_as_longlong(__longlong_as_double((long long)a));
    }
    atomicAdd(out + 5, t);
    atomicMax(out + 6, t);
}
"""

BARRIERS = """
extern "C" __global__ void reverse_blocks(const double* a, double* b, int* place) {
    __shared__ double tile[8][32];
    int x = threadIdx.x, y = threadIdx.y, width = blockDim.x, height = blockDim.y;
    int start = blockIdx.x * width * height;
    if (x >= width) return;
    for (int round = 0; round < 3; ++round) {
        tile[y][x] = (round == 0 ? a : b)[start + y * width + x];
        __syncthreads();
        b[start + y * width + x] = tile[height - 1 - y][width - 1 - x];
        __syncthreads();
    }
    place[start + y * width + x] = threadIdx.y * 100 + threadIdx.x;
}
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "anyrank"


def load(folder: Path, code: str) -> Module:
    source = folder / "gpu.cu"
    source.write_text(code)
    return open_device("shim").load(source)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Module:
    return load(tmp_path_factory.mktemp("plain"), PLAIN)


def test_shim_strided_views_are_read_and_written_in_place(plain: Module) -> None:
    a = np.random.default_rng(1).normal(size=(9, 50))[1:8, 3:45]
    b = plain.zeros((7, 60), np.float64)
    rows, columns = a.shape
    plain.launch(
        "scale_rows",
        (2, 7),
        (32,),
        (a, b[:, 5:47], np.int64(rows), np.int64(columns), np.int64(50), np.int64(60)),
    )
    assert np.array_equal(plain.to_host(b)[:, 5:47], 2 * a)
    assert not b[:, :5].any()
    assert not b[:, 47:].any()


def test_shim_multiply_and_add_are_rounded_separately(plain: Module) -> None:
    a = b = np.array([1 + 2.0**-30, 0.1, 3.0])
    c = np.array([-1.0, -0.01, -9.0])
    d = np.empty(3)
    plain.launch("multiply_add", (1,), (4,), (a, b, c, d, np.int32(3)))
    assert d.tobytes() == (a * b + c).tobytes()
    assert d[0] != 2.0**-29 + 2.0**-60  # the result of a fused multiply-add


def test_shim_arguments_of_every_type_keep_their_values(plain: Module) -> None:
    integers = [np.dtype(kind) for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")]
    lowest_or_highest = [np.iinfo(kind).min or np.iinfo(kind).max for kind in integers]
    scalars = [kind.type(value) for kind, value in zip(integers, lowest_or_highest, strict=True)]
    values = (np.True_, *scalars, np.float32(1.1), np.float64(1.1))
    out = np.zeros(11)
    plain.launch("every_type", (1,), (1,), (*values, out))
    assert out.tolist() == [float(value) for value in values]


def test_shim_integer_intrinsics_and_atomics(plain: Module) -> None:
    a, b = 0x0123456789ABCDEF, 0xFEDCBA9876543210
    out = np.zeros(7, np.uint64)
    plain.launch("bits", (3, 1, 1), (200, 1, 1), (np.uint64(a), np.uint64(b), out))
    low = (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF) >> 32
    assert out.tolist() == [a * b >> 64, low, a.bit_count(), 7, a, 3 * sum(range(200)), 199]


def test_shim_barriers_and_shared_memory(tmp_path: Path) -> None:
    a = np.random.default_rng(2).normal(size=(4, 8 * 32))
    b, place = np.zeros_like(a), np.zeros(a.shape, np.int32)
    load(tmp_path, BARRIERS).launch("reverse_blocks", (4,), (32, 8), (a, b, place))
    assert np.array_equal(b, a[:, ::-1])
    y, x = np.divmod(np.arange(8 * 32), 32)
    assert np.array_equal(place, np.tile(100 * y + x, (4, 1)))


RACES = """
extern "C" __global__ void shift(const double* a, double* b) {
    __shared__ double tile[64];
    tile[threadIdx.x] = a[threadIdx.x];
    __syncthreads();
    b[threadIdx.x] = tile[threadIdx.x ? threadIdx.x - 1 : 0];
}

extern "C" __global__ void shift_at_once(const double* a, double* b) {
    __shared__ double tile[64];
    tile[threadIdx.x] = a[threadIdx.x];
    b[threadIdx.x] = tile[threadIdx.x ? threadIdx.x - 1 : 0];
}

extern "C" __global__ void what_is_left(double* b) {
    __shared__ double kept;
    b[blockIdx.x] = kept;
    kept = 1.;
}
"""


def test_shim_missing_barrier_shows_in_one_of_two_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, a = load(tmp_path, RACES), np.random.default_rng(3).normal(size=64)
    expected = a[[0, *range(63)]]
    right = {}
    for order in ("", "reverse"):
        monkeypatch.setenv("ANYRANK_SHIM_ORDER", order)
        for function in ("shift", "shift_at_once"):
            b = np.zeros(64)
            module.launch(function, (1,), (64,), (a, b))
            right[function, order] = np.array_equal(b, expected)
    assert [name for name, is_right in right.items() if not is_right] == [("shift_at_once", "reverse")]


def test_shim_shared_memory_of_a_new_block_is_nan(tmp_path: Path) -> None:
    b = np.zeros(3)
    load(tmp_path, RACES).launch("what_is_left", (3,), (1,), (b,))
    assert np.isnan(b).all()


GOOD = (np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3), np.int32(3))
FROZEN = np.zeros(3)
FROZEN.flags.writeable = False


@pytest.mark.parametrize(
    ("place", "argument", "message"),
    [
        (0, np.zeros(3, np.float32), "1, `const double* a`, must be an array of float64, not a NumPy array of float32"),
        (1, np.float64(2), "2, `const double* b`, must be an array of float64, not float64 2.0"),
        (2, [0.0], r"3, `const double* c`, must be an array of float64, not list \[0.0\]"),
        (
            3,
            FROZEN,
            "4, `double* d`, must be an array of float64 that may be written to, not a read-only NumPy",
        ),
        (4, 3, "5, `int n`, must be a NumPy scalar of type int32, not int 3"),
        (4, np.int64(3), "5, `int n`, must be a NumPy scalar of type int32, not int64 3"),
        (4, np.zeros(1, np.int32), "5, `int n`, must be a NumPy scalar of type int32, not a NumPy array of int32"),
    ],
)
def test_shim_wrong_argument_is_named(plain: Module, place: int, argument: object, message: str) -> None:
    arguments = (*GOOD[:place], argument, *GOOD[place + 1 :])
    with pytest.raises(TypeError, match=f"multiply_add: argument {message}".replace("* ", r"\* ")):
        plain.launch("multiply_add", (1,), (4,), arguments)


def test_shim_read_only_arrays_may_be_read(plain: Module) -> None:
    d = np.ones(3)
    plain.launch("multiply_add", (1,), (4,), (FROZEN, FROZEN, FROZEN, d, np.int32(3)))
    assert not d.any()


def test_shim_wrong_launch_is_refused(plain: Module) -> None:
    with pytest.raises(TypeError, match=r"multiply_add\(const double\* a, .*, int n\) takes 5 arguments, not 4"):
        plain.launch("multiply_add", (1,), (4,), GOOD[:4])
    with pytest.raises(UsageError, match=r"no extern \"C\" __global__ function add; there are \['bits', "):
        plain.launch("add", (1,), (4,), GOOD)
    for grid, block in [((0,), (4,)), ((1,), (1025,)), ((1,), (64, 32)), ((1, 70000), (1,))]:
        with pytest.raises(ValueError, match=r"multiply_add: no GPU takes a grid"):
            plain.launch("multiply_add", grid, block, GOOD)
    with pytest.raises(ValueError, match=r"multiply_add: a grid and a block have 1 to 3 axes, not \(1, 1, 1, 1\)"):
        plain.launch("multiply_add", (1,) * 4, (1,), GOOD)


@pytest.mark.parametrize("parameter", ["long n", "double** a", "double", "struct Cell c", "double a[3]"])
def test_shim_type_that_cannot_be_passed_is_refused(tmp_path: Path, parameter: str) -> None:
    with pytest.raises(UsageError, match=r"gpu.cu: step: parameter `.*` has a type that cannot be passed"):
        load(tmp_path, f'extern "C" __global__ void step(int m, {parameter}) {{}}')


def test_shim_source_with_an_error_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)CUDA C does not compile with .*gpu.cu:2:.*oops"):
        load(tmp_path, 'extern "C" __global__ void step(int n) {\n    oops;\n}')


def test_shim_without_a_compiler_or_cache_suggests_a_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with pytest.raises(UsageError, match="Set XDG_CACHE_HOME elsewhere"):
        load(tmp_path, PLAIN)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match=r"there is no no-such-compiler. Install g\+\+, or set CXX"):
        load(tmp_path, PLAIN)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"there is no c\+\+ or g\+\+ or clang\+\+"):
        load(tmp_path, PLAIN)


def test_shim_source_is_compiled_once_and_after_changes(tmp_path: Path, cache: Path) -> None:
    before = set(cache.iterdir())
    first, second = (f'extern "C" __global__ void step(int {name}) {{}}' for name in ("m", "n"))
    for code in (first, first, second, first):
        load(tmp_path, code)
    new = set(cache.iterdir()) - before
    assert len(new) == 2
    assert {path.suffix for path in new} == {".so"}


@pytest.mark.ranks(4)
def test_shim_ranks_may_compile_at_once(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "gpu.cu"
    if world.rank == 0:
        source.write_text(PLAIN)
    world.barrier()
    out = np.zeros(7, np.uint64)
    open_device("shim").load(source).launch("bits", (1,), (5,), (np.uint64(1), np.uint64(1), out))
    check_collective(world, out[5] == 10)
    check_collective(world, len(list(tmp_path.glob("anyrank/*.so"))) == 2)  # the trial's, too


def test_gpu_module_launch_checks_arguments_like_the_shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launches = []
    raw = SimpleNamespace(get_function=lambda name: lambda *launch: launches.append((name, *launch)))
    cupy = SimpleNamespace(RawModule=lambda **options: raw, zeros=np.zeros, asnumpy=np.asarray)
    (tmp_path / "gpu.cu").write_text(PLAIN)
    module = GpuModule(cupy, tmp_path / "gpu.cu")
    module.launch("multiply_add", (1,), (4,), GOOD)
    assert launches == [("multiply_add", (1,), (4,), GOOD)]
    with pytest.raises(TypeError, match="`int n`, must be a NumPy scalar of type int32, not int64 3"):
        module.launch("multiply_add", (1,), (4,), (*GOOD[:4], np.int64(3)))
    assert len(launches) == 1


class DeviceArray:
    """A device array, with only the attributes that the check of arguments reads."""

    strides = (8,)

    def __init__(self, dtype: object = np.float64):
        self.dtype = np.dtype(dtype)


def test_launch_repeated_checks_each_time_finds_once(tmp_path: Path) -> None:
    """A launch with other types than a checked one is refused with the same message as a first launch."""
    result, launches = [], []

    def get_function(name: str):
        result.append(name)
        return lambda *launch: launches.append(launch)

    cupy = SimpleNamespace(RawModule=lambda **options: SimpleNamespace(get_function=get_function))
    (tmp_path / "gpu.cu").write_text(PLAIN)
    module = GpuModule(cupy, tmp_path / "gpu.cu")
    device, host = (*(DeviceArray() for _ in range(4)), np.int32(3)), (*GOOD[:3], np.zeros(3), np.int32(3))
    for good in (device, device, host, device, host):
        module.launch("multiply_add", (1,), (4,), good)
        for place, wrong, message in (
            (0, DeviceArray(np.float32), "1, `const double* a`, must be an array of float64, not DeviceArray"),
            (1, np.float64(2), "2, `const double* b`, must be an array of float64, not float64 2.0"),
            (2, 0.0, "3, `const double* c`, must be an array of float64, not float 0.0"),
            (3, FROZEN, "4, `double* d`, must be an array of float64 that may be written to, not a read-only NumPy"),
            (3, DeviceArray(">f8"), "4, `double* d`, must be an array of float64, not DeviceArray"),
            (4, np.int64(3), "5, `int n`, must be a NumPy scalar of type int32, not int64 3"),
            (4, 3, "5, `int n`, must be a NumPy scalar of type int32, not int 3"),
        ):
            with pytest.raises(TypeError, match=f"multiply_add: argument {message}".replace("* ", r"\* ")):
                module.launch("multiply_add", (1,), (4,), (*good[:place], wrong, *good[place + 1 :]))
        for some in (good[:4], (*good, np.int32(1))):
            with pytest.raises(TypeError, match=f"takes 5 arguments, not {len(some)}"):
                module.launch("multiply_add", (1,), (4,), some)
    assert result == ["multiply_add"] and [launch[2] for launch in launches] == [device, device, host, device, host]


@pytest.mark.skipif("no NVIDIA driver" not in gpu_missing(), reason="this machine has an NVIDIA driver")
def test_bodies_without_a_driver_do_not_import_cupy() -> None:
    program = "import sys; from anyrank.kernel import BODIES as b; print(b.device.name, b.no_gpu)"
    program += "; sys.exit('cupy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("host there is no NVIDIA driver")
