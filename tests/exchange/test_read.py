"""Fields that are filled from files in global order."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from ranks import check_collective

from anyrank import Kernel, State, UsageError
from anyrank.exchange import read as module
from anyrank.kernel import BODIES
from anyrank.numerics import strided

SHAPE = (11, 6)
WHOLE = np.random.default_rng(3).normal(size=SHAPE)


@pytest.fixture
def folder(world, tmp_path):
    """Files in all formats, written by rank 0."""
    if world.rank == 0:
        np.save(tmp_path / "u.npy", WHOLE)
        np.save(tmp_path / "columns.npy", np.asfortranarray(WHOLE.astype(">f4")))
        np.save(tmp_path / "complex.npy", WHOLE + 1j)
        (tmp_path / "classic.nc").write_bytes(b"CDF\x02" + bytes(60))
        (tmp_path / "text.csv").write_text("1,2,3\n")
        (tmp_path / "short.npy").write_bytes((tmp_path / "u.npy").read_bytes()[:300])
        (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(20))
        with h5py.File(tmp_path / "all.h5", "w") as file:
            file.create_dataset("u", data=WHOLE, chunks=(4, 4), compression="gzip")
            file["ocean/T"] = WHOLE.astype(">f4")
            file["vector"] = np.stack([WHOLE, -WHOLE])
            file["words"] = ["a", "b"]
            file["packed"] = WHOLE.astype("i2")
            file["packed"].attrs["scale_factor"] = 0.1
    world.barrier()
    return tmp_path


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("piece", [1, 1 << 24])
@pytest.mark.parametrize("body", ["auto", "shim"])
def test_read_every_format_gives_each_rank_its_block(world, folder, monkeypatch, body, piece):
    monkeypatch.setattr(strided, "PIECE", piece)
    BODIES.prefer(body)
    try:
        u = State(world, "bricks").field("u", SHAPE, halo=1)
        for file, name, values in [
            ("u.npy", None, WHOLE),
            ("columns.npy", None, WHOLE.astype("f4")),
            ("all.h5", None, WHOLE),
            ("all.h5", "ocean/T", WHOLE.astype("f4")),
        ]:
            u[...] = 0
            u.read(folder / file, name)
            assert np.array_equal(u.allgather(), values), (file, name)
        v = State(world, "columns").field("v", SHAPE, "f4", components=2)
        v.read(str(folder / "all.h5"), "vector")
        assert np.array_equal(v.allgather(), np.stack([WHOLE, -WHOLE]).astype("f4"))
    finally:
        BODIES.prefer("auto")


@pytest.mark.ranks(1, 3)
@pytest.mark.parametrize(
    ("file", "name", "message"),
    [
        ("no.npy", None, "no.npy cannot be read: No such file or directory. Give a complete file that all ranks"),
        (".", None, "cannot be read: Is a directory"),
        ("classic.nc", None, "classic.nc is netCDF-3, .* Convert it to netCDF-4: nccopy -k nc4 .*classic.nc NEW.nc"),
        (
            "text.csv",
            None,
            r"text.csv must be a file of HDF5, netCDF-4 or NumPy \(.npy\), or a store of zarr. Convert it",
        ),
        ("short.npy", None, "short.npy cannot be read: "),
        ("cut.h5", None, "cut.h5 cannot be read: "),
        ("u.npy", "u", "u.npy: name='u' must be left out: a .npy file holds one array"),
        ("all.h5", "S", "has no dataset 'S'. Use name=… for one of its 5: ocean/T, packed, u, vector, words"),
        ("all.h5", "ocean", "has no dataset 'ocean'"),
        ("all.h5", "packed", "packed has the attribute scale_factor, .* ncpdq -U .*all.h5 NEW.nc"),
        ("all.h5", "vector", r"field u: its shape is \(11, 6\), and that of the array in .*all.h5 is \(2, 11, 6\)"),
        ("all.h5", "words", r"is \(2,\)\. They must be equal"),
        ("complex.npy", None, "the array in .*complex.npy is complex128, which float64 cannot hold .*'same_kind'"),
    ],
)
def test_read_that_cannot_be_is_refused_before_any_change(world, folder, file, name, message):
    u = State(world).field("u", SHAPE)
    u[...] = 7
    with pytest.raises(UsageError, match=message) as refusal:
        u.read(folder / file, name)
    check_collective(world, refusal.value.collective and (u.local == 7).all())


@pytest.mark.ranks(2, 3)
def test_read_that_one_rank_cannot_is_refused_on_all(world, folder):
    u = State(world).field("u", SHAPE)
    with pytest.raises(UsageError, match=r"gone.npy cannot be read: No such file"):
        u.read(folder / ("gone.npy" if world.rank == world.size - 1 else "u.npy"))
    check_collective(world, not u.local.any(), "changed on a rank that could read")


@pytest.mark.ranks(1, 2)
def test_read_of_values_that_fails_is_an_error_on_all(world, folder, monkeypatch):
    def fail(dataset, field):
        raise OSError(5, "Input/output error")

    u = State(world).field("u", SHAPE)
    if world.rank == world.size - 1:
        monkeypatch.setattr(module, "read_block", fail)
    with pytest.raises(UsageError, match=r"u\.npy cannot be read: Input/output error"):
        u.read(folder / "u.npy")


@pytest.mark.ranks(1, 2)
def test_read_into_protected_field_is_refused(world, folder):
    state = State(world, "rows", halo_steps=2)
    k, u = state.constant("k", SHAPE), state.field("u", SHAPE, halo=1)
    k.read(folder / "u.npy")
    state.finish_constants()
    with pytest.raises(UsageError, match="constant k is written after"):
        k.read(folder / "u.npy")
    u.advance(Kernel(lambda new, old: new.__setitem__(..., old[1:-1, 1:-1])))
    with pytest.raises(UsageError, match="field u is written between steps"):
        u.read(folder / "u.npy")


@pytest.mark.ranks(1, 3)
def test_read_missing_values_are_refused_or_replaced(world, tmp_path):
    if world.rank == 0:
        with h5py.File(tmp_path / "holes.h5", "w") as file:
            file["u"] = np.where(WHOLE > 1, np.nan, WHOLE)
            file["k"] = np.arange(66).reshape(SHAPE).astype("i2")
            file["k"].attrs["_FillValue"] = np.array([65], "i2")
    world.barrier()
    u = State(world).field("u", SHAPE)
    count = int((WHOLE > 1).sum())
    with pytest.raises(
        UsageError, match=rf"field u: .*holes.h5 has {count} missing values .* or give missing=VALUE"
    ) as error:
        u.read(tmp_path / "holes.h5")
    check_collective(world, error.value.collective)
    u.read(tmp_path / "holes.h5", missing=-1.0)
    assert np.array_equal(u.allgather(), np.where(WHOLE > 1, -1, WHOLE))
    u.read(tmp_path / "holes.h5", missing=np.nan)
    assert int(np.isnan(u.allgather()).sum()) == count
    with pytest.raises(UsageError, match="has 1 missing values"):
        u.read(tmp_path / "holes.h5", "k")
    u.read(tmp_path / "holes.h5", "k", missing=0.5)
    assert u.allgather()[-1, -2:].tolist() == [64, 0.5]


@pytest.mark.ranks(1, 2)
def test_read_axes_in_another_order_are_refused(world, tmp_path):
    if world.rank == 0:
        with h5py.File(tmp_path / "turned.h5", "w") as file:
            file["u"] = np.zeros((4, 4))
            for axis, name in enumerate(("x", "y")):
                file[name] = np.arange(4.0)
                file[name].make_scale(name)
                file["u"].dims[axis].attach_scale(file[name])
    world.barrier()
    state = State(world)
    with pytest.raises(UsageError, match=r"field u: its axes are y, x, and those of the array in .* x, y\. Transpose"):
        state.field("u", (4, 4), dims=("y", "x")).read(tmp_path / "turned.h5")
    state.field("v", (4, 4), dims=("lat", "lon")).read(tmp_path / "turned.h5", "u")
