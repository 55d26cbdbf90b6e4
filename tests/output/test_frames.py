"""frames.nc: the same bytes on any ranks, and what other software reads in it."""

from __future__ import annotations

import logging
import shutil
import subprocess
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from output.plate import ALL, Open, Plate, values_of
from ranks import check_collective, run_anyrank

from anyrank.device.emulated import fake
from anyrank.kernel import BODIES
from anyrank.numerics import strided
from anyrank.output.frame_writer import FrameWriter
from anyrank.output.frames_file import Plan
from anyrank.output.variables import variables_of
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.frames import Frames, existing_frames, plan_frames
from anyrank.runtime.options import Options
from anyrank.state import State
from anyrank.storage.format import Identity
from anyrank.world import World

PROGRAM = Path(__file__).with_name("plate.py")
RANKS = (1, 2, 3, 4, 7)
MEANS = "T,v,mean(T, x),wave,mean(T, step),mean(wave, step, y),mean(mask, step)"


def write(world: World, path: Path, steps: list[int], split="auto", text=ALL, stride=1, kind="", compressed=False):
    """Write the frames of these steps with the writer alone. Collective."""
    state, program = State(world, split), Plate()
    program.declare(state)
    plan = Plan(tuple(variables_of(state, text, stride, kind)), 10, Identity.of("plate", program.parameters, 0))
    writer = FrameWriter(path, plan, state)
    writer.begin(None, [], len(steps))
    for step in steps:
        for field in state.fields():
            field[...] = values_of(field.name, field.shape, field.dtype, step)[field.layout.slices]
        writer.start(step)
        for field in state.fields():  # steps go on while the thread writes
            field[...] = field.dtype.type(0)
    writer.finish(compressed)
    writer.close()
    world.barrier()


@cache
def reference(folder: Path, **options) -> bytes:
    """The bytes that one rank writes, in a file of this process."""
    from mpi4py import MPI

    world, path = World(MPI.COMM_SELF), folder / f"one-{MPI.COMM_WORLD.rank}.nc"
    write(world, path, [0, 10, 20, 25], **options)
    world.close()
    return path.read_bytes()


@pytest.mark.ranks(*RANKS)
@pytest.mark.parametrize("split", ["rows", "columns", "auto"])
def test_frames_have_the_same_bytes_on_any_ranks(world, tmp_path, split):
    try:
        write(world, tmp_path / "frames.nc", [0, 10, 20, 25], split)
    except Exception as error:
        assert "too small" in str(error) and world.size == 7, error
        return
    check_collective(world, (tmp_path / "frames.nc").read_bytes() == reference(tmp_path))


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize(
    "options", [{"stride": 3, "kind": "float32", "text": "T,v,u,mask,T[x=2:8]"}, {"compressed": True}]
)
def test_frames_of_other_types_have_the_same_bytes(world, tmp_path, options):
    write(world, tmp_path / "frames.nc", [0, 10, 20, 25], "columns", **options)
    check_collective(world, (tmp_path / "frames.nc").read_bytes() == reference(tmp_path, **options))


@pytest.mark.ranks(1, 3)
@pytest.mark.parametrize("order", ["late", "random:1"])
def test_frames_of_a_gpu_have_the_bytes_of_the_cpus(world, tmp_path, monkeypatch, order):
    expected = reference(tmp_path)
    monkeypatch.setenv("ANYRANK_SHIM", f"gpus=2 order={order}")
    monkeypatch.setattr(fake, "_ORDER", order)
    monkeypatch.setattr(strided, "PIECE", 100)
    BODIES.prefer("shim", world.rank)
    try:
        for split in ("rows", "columns"):
            write(world, tmp_path / f"{split}.nc", [0, 10, 20, 25], split)
            check_collective(world, (tmp_path / f"{split}.nc").read_bytes() == expected, split)
    finally:
        BODIES.prefer("auto")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A finished run with every kind of variable."""
    out = tmp_path_factory.mktemp("frames") / "run"
    done = run_anyrank("run", f"{PROGRAM}:Plate", "--frames", ALL, "--frames-every", 10, "--out", out, "--quiet")
    assert done.returncode == 0, done.stderr
    return out


def whole(name: str, step: int) -> np.ndarray:
    state = State(World())
    Plate().declare(state)
    field = getattr(state, name)
    return values_of(name, field.shape, field.dtype, step)


@pytest.mark.parametrize("engine", [None, "h5netcdf", "netcdf4"])
def test_frames_in_xarray_have_coordinates_and_values(folder, engine):
    xarray = pytest.importorskip("xarray")
    if engine == "netcdf4":
        pytest.importorskip("netCDF4")
    with xarray.open_dataset(folder / "frames.nc", engine=engine) as data:
        assert data.attrs["Conventions"].startswith("CF-1.") and data["step"].values.tolist() == [0, 10, 20, 25]
        for slot, step in enumerate((0, 10, 20, 25)):
            for name in ("T", "v", "w", "u", "count", "line", "box", "mask"):
                assert np.array_equal(data[name].values[slot], whole(name, step)), name
            assert np.array_equal(data["half"].values[slot], whole("half", step).astype(np.float32))
            assert np.array_equal(data["wave_imag"].values[slot], whole("wave", step).imag)
            T, u = whole("T", step), whole("u", step)
            assert np.array_equal(data["T_y_3"].values[slot], T[3])
            assert np.array_equal(data["T_x_2_8"].values[slot], T[:, 2:8])
            assert np.array_equal(data["T_x_1_9_3"].values[slot], T[:, 1:9:3])
            assert data["T_y_12_x_0"].values[slot] == T[-1, 0]
            assert np.array_equal(data["u_component_1"].values[slot], u[1])
            assert np.isclose(data["T_mean"].values[slot], T.mean(), rtol=1e-15, atol=1e-17)
            assert np.allclose(data["T_x_2_5_mean_y"].values[slot], T[:, 2:5].mean(0), rtol=1e-13)
            assert np.allclose(data["u_mean_x"].values[slot], u.mean(2), rtol=1e-13)
        assert data["mask"].dtype == bool and data["count"].dtype == np.int64
        assert data["T"].attrs["units"] == "K" and data["T"].attrs["long_name"] == "temperature"
        assert data["T_mean"].attrs["cell_methods"] == "y: x: mean"
        assert data["y"].values.tolist() == [1 + 0.5 * (i + 0.5) for i in range(13)]
        assert data["y_face"].values.tolist() == [1 + 0.5 * i for i in range(14)] and data["y"].attrs["units"] == "m"
        assert data["y_face_bounds"].values[[0, 1, -1]].tolist() == [[1.0, 1.25], [1.25, 1.75], [7.25, 7.5]]
        assert data["y_bounds"].values[0].tolist() == [1.0, 1.5]
        assert data["w"].dims == ("step", "y", "x_face") and data["x_face"].values[0] == 0.0
        assert float(data["y_3"]) == 2.75 and float(data["T"].sel(x=0.125, y=1.25, step=10)) == whole("T", 10)[0, 0]


@pytest.mark.skipif(shutil.which("ncdump") is None, reason="needs ncdump: apt-get install netcdf-bin")
def test_frames_in_ncdump_have_dimensions_and_values(folder):
    header = run("ncdump", "-h", folder / "frames.nc")
    assert "double T(step, y, x) ;" in header and 'T:units = "K"' in header and "y_face = 14 ;" in header
    text = run("ncdump", "-v", "step", folder / "frames.nc")
    assert "step = 0, 10, 20, 25 ;" in text


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="needs h5dump: apt-get install hdf5-tools")
def test_frames_in_h5dump_have_their_values(folder):
    values = run("h5dump", "-y", "-d", "/count", folder / "frames.nc").split("DATA {")[1].split("}")[0]
    steps = (0, 10, 20, 25)
    assert [int(number) for number in values.split(",")] == [n for step in steps for n in whole("count", step).flat]


def run(*command) -> str:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("compressed", [False, True])
def test_frames_in_vtk_are_blocks_with_the_same_values(folder, tmp_path, compressed):
    pytest.importorskip("vtkmodules", reason="needs VTK: pip install vtk")
    if compressed:
        options = ("--frames-compression", "zlib", "--out", tmp_path / "run", "--quiet")
        done = run_anyrank("run", f"{PROGRAM}:Plate", "--frames", ALL, "--frames-every", 10, *options, ranks=2)
        assert done.returncode == 0, done.stderr
        folder = tmp_path / "run"
        with h5py.File(folder / "frames.nc") as file:
            assert file["T"].compression == "gzip" and np.array_equal(file["T"][1], whole("T", 10))
    times, blocks = read_vtk(folder / "frames.xdmf", 20)
    assert times == (0, 10, 20, 25)
    for name in ("T", "v", "w", "count", "box", "mask"):
        values, shape = blocks[name][:2]
        assert np.array_equal(values.reshape(shape), whole(name, 20)), name
    for component in (0, 1):
        assert np.array_equal(blocks[f"u_{component}"][0], whole("u", 20)[component].ravel())
    _, _, origin, spacing = blocks["v"]
    assert origin[1:] == (0.125, 1.0) and spacing[1:] == (0.25, 0.5)
    assert np.array_equal(blocks["T_x_2_8"][0], whole("T", 20)[:, 2:8].ravel())


def read_vtk(path: Path, step: int) -> tuple[tuple, dict]:
    """Read the arrays of a step with VTK's reader: the values, the shape, the origin and the spacing by name."""
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkCommonExecutionModel import vtkStreamingDemandDrivenPipeline
    from vtkmodules.vtkIOXdmf2 import vtkXdmfReader

    reader = vtkXdmfReader()
    reader.SetFileName(str(path))
    reader.UpdateInformation()
    times = reader.GetOutputInformation(0).Get(vtkStreamingDemandDrivenPipeline.TIME_STEPS())
    reader.UpdateTimeStep(step)
    output, blocks = reader.GetOutputDataObject(0), {}
    for number in range(output.GetNumberOfBlocks()):
        block = output.GetBlock(number)
        shape = tuple(n for n in reversed(block.GetDimensions()) if n > 1)
        for k in range(block.GetPointData().GetNumberOfArrays()):
            values = vtk_to_numpy(block.GetPointData().GetArray(k)).copy()
            blocks[block.GetPointData().GetArrayName(k)] = values, shape, block.GetOrigin(), block.GetSpacing()
    return times, blocks


def frames_of(out: Path) -> bytes:
    return (out / "frames.nc").read_bytes()


@pytest.mark.parametrize("program", [Plate, Open])
def test_frames_of_a_resumed_run_are_those_of_an_unbroken_one(tmp_path, program):
    source = f"{PROGRAM}:{program.__name__}"
    words = ("run", source, "--frames", MEANS, "--frames-every", 1 + (program is Plate), "--quiet")
    assert run_anyrank(*words, "--out", tmp_path / "one").returncode == 0
    out = tmp_path / "run"
    assert run_anyrank(*words, "--out", out, "--stop-at", 13, ranks=3).returncode == 75
    with h5py.File(out / "frames.nc") as file:
        written = [step for step in file["step"][...] if step >= 0]
    assert written == [*range(0, 14, 1 + (program is Plate))]
    assert run_anyrank("resume", out, "--stop-at", 20, "--split", "columns", "--quiet", ranks=2).returncode == 75
    assert run_anyrank("resume", out, "--quiet", ranks=4).returncode == 0
    assert frames_of(out) == frames_of(tmp_path / "one")
    assert (out / "frames.xdmf").read_bytes() == (tmp_path / "one" / "frames.xdmf").read_bytes()
    with h5py.File(out / "frames.nc") as file:
        expected = [*range(26)] if program is Open else [*range(0, 25, 2), 25]
        assert file["step"][...].tolist() == expected


@pytest.mark.parametrize("body", ["reference", "shim"])
def test_frames_of_means_over_steps_outlast_a_stop(tmp_path, body):
    out = tmp_path / "run"
    words = ("run", f"{PROGRAM}:Plate", "--frames", MEANS, "--frames-every", 10, "--quiet", "--body", body)
    assert run_anyrank(*words, "--out", tmp_path / "one").returncode == 0
    assert run_anyrank(*words, "--out", out, "--stop-at", 14, ranks=3).returncode == 75
    assert run_anyrank("resume", out, "--stop-at", 17, "--split", "columns", "--quiet", ranks=2).returncode == 75
    assert run_anyrank("resume", out, "--quiet", ranks=4).returncode == 0
    assert frames_of(out) == frames_of(tmp_path / "one")
    with h5py.File(out / "frames.nc") as file:
        for slot, steps in enumerate([[0], range(1, 11), range(11, 21), range(21, 26)]):
            total = sum(whole("T", step) for step in steps)  # in the order of the steps
            assert np.array_equal(file["T_mean_step"][slot], total / len(steps))
            means = np.mean([whole("wave", step).imag.mean(0) for step in steps], axis=0)
            assert np.allclose(file["wave_mean_step_y_imag"][slot], means, rtol=1e-12, atol=1e-14)
        assert file["mask_mean_step"].dtype == np.float64 and 0 < file["mask_mean_step"][1].mean() < 1
        assert file["T_mean_step"].attrs["cell_methods"] == b"step: mean"


@pytest.mark.ranks(1, 3)
def test_frames_of_an_extended_run_are_those_of_a_longer_one(world, tmp_path):
    text, path = f"{MEANS},count", tmp_path / "run"
    options = Options(frames=text, frames_every=10)
    step_through(world, path, Plate(steps=25), options, range(26))
    step_through(world, path, Plate(steps=47), options, range(25, 48))
    step_through(world, tmp_path / "one", Plate(steps=47), options, range(48))
    check_collective(world, frames_of(path) == frames_of(tmp_path / "one"))
    with h5py.File(path / "frames.nc") as file:
        assert file["step"][...].tolist() == [0, 10, 20, 30, 40, 47]


def step_through(world: World, out: Path, program: Plate, options: Options, steps: range) -> None:
    """Call the callback as a run does, from a state of the first step to the last one. Collective."""
    out.mkdir(exist_ok=True)
    state, warnings = State(world), []
    journal = SimpleNamespace(
        warn=warnings.extend, log=logging.getLogger(), events=SimpleNamespace(say=lambda *_, **__: 0)
    )
    program.declare(state)

    def advance(step: int) -> None:
        state.step = step
        for field in state.fields():
            field[...] = values_of(field.name, field.shape, field.dtype, step)[field.layout.slices]

    advance(steps[0])
    plan = plan_frames(program, state, options)
    existing = existing_frames(out / "frames.nc", plan, options)
    frames = Frames(program, plan, existing, RunFolder(out), options, journal, state)
    world.barrier()
    frames.on_start(state)
    for step in steps[1:]:
        advance(step)
        frames.after_step(state)
    frames.on_done(state)
    frames.before_checkpoint(state)
    frames.on_end(state)
    frames.close()
    world.barrier()
    check_collective(world, not warnings, str(warnings))


def test_frames_of_means_over_steps_without_their_sums_warn(tmp_path):
    out = tmp_path / "run"
    words = ("run", f"{PROGRAM}:Plate", "--frames", "mean(T, step)", "--frames-every", 10, "--out", out)
    assert run_anyrank(*words, "--stop-at", 14, "--quiet").returncode == 75
    for path in (out / "frames-sums").glob("step-*"):
        path.write_bytes(path.read_bytes()[:-1])
    done = run_anyrank("resume", out, ranks=2)
    assert done.returncode == 0 and "lacks the sums of the steps from 11 to 14" in done.stdout + done.stderr
    with h5py.File(out / "frames.nc") as file:
        total = sum(whole("T", step) for step in range(15, 21))
        assert np.array_equal(file["T_mean_step"][2], total / 6)


def test_frames_after_the_checkpoint_are_cut_back(tmp_path):
    words = ("run", f"{PROGRAM}:Plate", "--frames", "T", "--frames-every", 2, "--quiet")
    assert run_anyrank(*words, "--out", tmp_path / "one").returncode == 0
    out = tmp_path / "run"
    assert run_anyrank(*words, "--out", out, "--stop-at", 6).returncode == 75
    with h5py.File(out / "frames.nc", "r+") as file:  # as a killed run leaves it
        file["step"][4:6] = 8, 10
        file["T"][4:6] = -1
    assert run_anyrank("resume", out, "--quiet", ranks=2).returncode == 0
    assert frames_of(out) == frames_of(tmp_path / "one")


def test_frames_that_are_missing_are_named(tmp_path):
    out = tmp_path / "run"
    words = ("run", f"{PROGRAM}:Plate", "--frames", "T", "--frames-every", 5, "--out", out)
    assert run_anyrank(*words, "--stop-at", 12, "--quiet").returncode == 75
    (out / "frames.nc").unlink()
    done = run_anyrank("resume", out, ranks=2)
    assert done.returncode == 0 and "lacks the frames of 3 steps from 0 to 10" in done.stdout + done.stderr
    with h5py.File(out / "frames.nc") as file:
        assert file["step"][...].tolist() == [15, 20, 25] and np.array_equal(file["T"][0], whole("T", 15))


def test_frames_of_declared_fields_need_no_option(tmp_path):
    out = tmp_path / "run"
    assert run_anyrank("run", f"{PROGRAM}:Plate", "--out", out, "--quiet").returncode == 0
    with h5py.File(out / "frames.nc") as file:
        assert file["step"][...].tolist() == [*range(0, 25, 2), 25] and "T" in file and "v" not in file
    assert (
        run_anyrank("run", f"{PROGRAM}:Plate", "--frames", "off", "--out", tmp_path / "off", "--quiet").returncode == 0
    )
    assert not (tmp_path / "off" / "frames.nc").exists()
