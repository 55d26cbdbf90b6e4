"""Other tools read the file: h5dump, h5py, xarray; all writers give the same file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from ranks import run_command
from storage.samples import PARAMETERS, SHAPES, checkpoints, declare, holds, whole, write

from anyrank.world import World

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path) -> Path:
    world = World()
    written = write(tmp_path, declare(world), 1, 2, command="anyrank run heat").path
    world.close()
    return written


def test_checkpoint_in_xarray_has_named_axes_and_units(path):
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(path, group="fields", engine="h5netcdf") as fields:
        for name, (shape, dtype) in SHAPES.items():
            assert fields[name].shape == shape and fields[name].dtype == np.dtype(dtype)
            assert np.array_equal(fields[name].values, whole(name, 2)), name
        assert fields["T"].dims == fields["count"].dims == ("y", "x")
        assert fields["T"].attrs["units"] == "K" and fields["T"].attrs["long_name"] == "the T"
        assert float(fields["T"].isel(y=3, x=4)) == whole("T", 2)[3, 4]
    with xarray.open_dataset(path, group="scalars", engine="h5netcdf") as scalars:
        assert int(scalars["hits"]) == 10**12 + 2 and scalars["hits"].attrs["units"] == "1"
        assert float(scalars["energy"]) == -1 / 3 and not bool(scalars["done"])


def test_checkpoint_field_named_as_its_axis_is_a_coordinate(tmp_path):
    xarray = pytest.importorskip("xarray")
    from anyrank.state import State

    state = State(World())
    state.field("x", (4,), dims=("x",))
    state.field("u", (3, 4), dims=("t", "x"))
    state.x[...] = [1.0, 2.0, 4.0, 8.0]
    writer = checkpoints(tmp_path, state)
    writer.begin()
    with xarray.open_dataset(writer.finish().path, group="fields", engine="h5netcdf") as fields:
        assert fields["u"].sel(x=4.0).dims == ("t",) and list(fields.coords) == ["x"]


def test_checkpoint_axes_take_no_space(path):
    with h5py.File(path, "r") as file:
        assert [axis[0].name for axis in file["fields/T"].dims] == ["/y", "/x"]
        assert [axis[0].name for axis in file["fields/count"].dims] == ["/y", "/x"]
        assert file["y"].shape == (13,) and file["y"].id.get_storage_size() == 0


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="needs h5dump: apt-get install hdf5-tools")
def test_checkpoint_in_h5dump_has_its_datasets(path):
    header = run("h5dump", "-H", path)
    assert all(f'DATASET "{name}"' in header for name in [*SHAPES, "hits", "energy", "done"])
    values = run("h5dump", "-y", "-d", "/fields/count", path).split("DATA {")[1].split("}")[0]
    assert [int(number) for number in values.split(",")] == [*whole("count", 2).flat]


def run(*command) -> str:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout


def test_checkpoint_file_has_its_provenance(path):
    with h5py.File(path, "r") as file:
        root, provenance = dict(file.attrs), dict(file["provenance"].attrs)
    assert (root["format"], root["format_version"]) == ("anyrank checkpoint", 1)
    assert (root["program"], root["step"], root["seed"]) == ("heat", 2, 7)
    assert json.loads(root["parameters"]) == PARAMETERS
    assert root["complete"] and not root["finished"]
    assert (
        provenance["command"] == "anyrank run heat"
        and provenance["ranks"] == 1
        and provenance["utc"].endswith("+00:00")
    )
    assert provenance["numpy"] == np.__version__ and provenance["h5py"] == h5py.__version__
    for name in ("python", "anyrank", "hdf5", "mpi4py", "mpi", "host"):
        assert provenance[name]


def test_checkpoint_documented_check_of_the_seal_works(path):
    """Runs the code of the format page."""
    page = (ROOT / "docs" / "checkpoint-format.md").read_text()
    code = page.split("```python")[-1].split("```")[0]
    names: dict[str, object] = {}
    exec(code, names)
    assert names["seal_holds"](path)
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    assert not names["seal_holds"](path)


@pytest.mark.ranks(1, 2, 4)
def test_checkpoint_gather_and_pwrite_write_the_same_file(world, tmp_path):
    files = [write(tmp_path / io, declare(world, "columns"), 2, io=io).path for io in ("pwrite", "gather")]
    assert equal_files(*files)


def equal_files(first: Path, other: Path) -> bool:
    """Whether two files are equal, apart from the time and the command."""
    with h5py.File(first, "r", locking=False) as a, h5py.File(other, "r", locking=False) as b:
        for group in ("fields", "scalars"):
            assert list(a[group]) == list(b[group])
            for name in a[group]:
                assert a[group][name][()].tobytes() == b[group][name][()].tobytes(), name
                assert a[group][name].attrs["digest"] == b[group][name].attrs["digest"]
        return a.attrs["digest"] == b.attrs["digest"] and dict(a.attrs) == dict(b.attrs)


def mpio_python() -> Path:
    return Path(os.environ.get("ANYRANK_MPIO_PYTHON", ROOT / ".venv-mpio" / "bin" / "python"))


def test_checkpoint_mpio_writes_the_same_file(tmp_path):
    """In another environment, whose h5py has MPI; read with this one."""
    python = mpio_python()
    if not python.exists():
        assert not os.environ.get("CI"), f"no {python}: make it with .ci/mpio"
        pytest.skip(f"no {python}: make it with .ci/mpio")
    for count in (1, 2, 4):
        folder = tmp_path / str(count)
        script = Path(__file__).with_name("mpio_write.py")
        done = run_command(python.with_name("mpiexec"), "-n", count, python, script, folder, count)
        assert done.returncode == 0, done.stderr
        files = [next((folder / io).glob("step-*.h5")) for io in ("pwrite", "mpio")]
        assert equal_files(*files)
        world = World()
        state = declare(world)
        assert checkpoints(folder / "mpio", state).restore().step == 2
        assert holds(state, 2)
        world.close()
