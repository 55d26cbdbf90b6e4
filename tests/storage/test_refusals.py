"""A checkpoint of another run is refused with the name, the value, the rule and a fix."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from storage.samples import PARAMETERS, checkpoints, declare, write

from anyrank.errors import AnyrankError, UsageError
from anyrank.state import State
from anyrank.storage.checkpoints import Checkpoints
from anyrank.storage.seal import seal

pytestmark = pytest.mark.ranks(1, 2)


def refusal(call) -> str:
    """The message of the UsageError that the call raises on every rank."""
    with pytest.raises(UsageError) as raised:
        call()
    assert raised.value.status == 2
    return str(raised.value)


def test_restore_checkpoint_of_another_program_is_refused(world, tmp_path):
    path = write(tmp_path, declare(world), 1).path
    message = refusal(checkpoints(tmp_path, declare(world), program="pi").restore)
    assert str(path) in message and "heat" in message and "pi" in message and "--out" in message


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({**PARAMETERS, "nu": 0.2}, ["--nu 0.2", "--nu 0.1"]),
        ({**PARAMETERS, "scheme": "heun"}, ["--scheme heun", "--scheme euler"]),
        ({**PARAMETERS, "time_step": 3}, ["--time-step 3", "no --time-step"]),
        ({"rows": 13, "nu": 0.1}, ["no --scheme", "--scheme euler"]),
    ],
)
def test_restore_checkpoint_of_another_parameter_is_refused(world, tmp_path, parameters, words):
    write(tmp_path, declare(world), 1)
    message = refusal(Checkpoints(tmp_path, declare(world), "heat", parameters).restore)
    assert all(word in message for word in [*words, "--out"]), message


def test_restore_checkpoint_of_another_seed_is_refused(world, tmp_path):
    write(tmp_path, declare(world, seed=7), 1)
    message = refusal(checkpoints(tmp_path, declare(world, seed=8)).restore)
    assert "--seed 8" in message and "--seed 7" in message


def test_restore_parameters_that_json_changes_are_equal(world, tmp_path):
    parameters = {"sizes": (1, 2), "big": np.int64(2**60), "third": 1 / 3, "tiny": 5e-324}
    state = declare(world)
    writer = Checkpoints(tmp_path, state, "heat", parameters)
    writer.begin()
    assert not writer.finish().error
    assert Checkpoints(tmp_path, state, "heat", parameters).restore() is not None


def test_restore_newer_format_is_refused(world, tmp_path):
    path = write(tmp_path, declare(world), 1, 2).path
    if world.rank == 0:
        with h5py.File(path, "r+", locking=False) as file:
            file.attrs["format_version"] = 2
            extents = [(d.id.get_offset(), d.id.get_storage_size()) for d in file["fields"].values()]
        seal(path, extents)
    world.barrier()
    message = refusal(checkpoints(tmp_path, declare(world)).restore)
    assert str(path) in message and "format 2" in message and "up to 1" in message and "install" in message


def test_restore_state_of_a_changed_program_is_refused(world, tmp_path):
    def changed(**options):
        state = State(world)
        state.field("u", options.get("shape", (8, 8)), options.get("dtype", "f8"))
        if "more" in options:
            state.scalar("more", 1)
        return Checkpoints(tmp_path, state, "heat", {})

    writer = changed()
    writer.begin()
    assert not writer.finish().error
    assert "(8, 9)" in refusal(changed(shape=(8, 9)).restore)
    assert "<f4" in refusal(changed(dtype="f4").restore)
    message = refusal(changed(more=True).restore)
    assert "more" in message and "missing" in message


def test_checkpoint_axes_that_conflict_are_refused(world, tmp_path):
    def declared(*fields):
        state = State(world)
        for name, shape, dims in fields:
            state.field(name, shape, dims=dims)
        return lambda: Checkpoints(tmp_path, state, "heat", {})

    message = refusal(declared(("a", (8, 8), ("y", "x")), ("b", (9,), ("x",))))
    assert "field b" in message and "'x'" in message and "8" in message and "9" in message
    assert "fields" in refusal(declared(("a", (8,), ("fields",))))
    assert "/" in refusal(declared(("a", (8,), ("x/y",))))
    with pytest.raises(UsageError, match="must be one name for each axis"):
        declared(("a", (8, 8), ("x",)))


def test_checkpoint_options_out_of_range_are_refused(world, tmp_path):
    state = declare(world)
    message = refusal(lambda: checkpoints(tmp_path, state, io="posix"))
    assert "--checkpoint-io 'posix'" in message and "pwrite, mpio, gather" in message
    assert "--keep 0" in refusal(lambda: checkpoints(tmp_path, state, keep=0))


def test_checkpoint_mpio_without_an_mpi_h5py_is_refused(world, tmp_path):
    if h5py.get_config().mpi:
        pytest.skip("this h5py has MPI")
    message = refusal(lambda: checkpoints(tmp_path, declare(world), io="mpio"))
    assert "--checkpoint-io mpio" in message and "--checkpoint-io pwrite" in message


@pytest.mark.ranks(2)
def test_checkpoint_scalar_that_differs_is_not_written(world, tmp_path):
    state = declare(world)
    state.hits = world.rank
    writer = checkpoints(tmp_path, state)
    with pytest.raises(AnyrankError, match="hits"):
        writer.begin()
    assert not writer.pending and not list(tmp_path.glob("*step*"))


def test_try_header_that_cannot_be_written_is_refused(world, tmp_path):
    state = State(world)
    state.field("T", (8,), description="a\0b")
    message = refusal(checkpoints(tmp_path, state).try_header)
    assert "a checkpoint of this run cannot be written" in message and "NULL" in message
    world.barrier()
    assert not [*tmp_path.glob("*")]


def test_try_header_leaves_no_file(world, tmp_path):
    checkpoints(tmp_path, declare(world)).try_header()
    world.barrier()
    assert not [*tmp_path.glob("*")]


def test_try_header_without_room_for_the_values_is_refused(world, tmp_path, monkeypatch):
    def full(descriptor, size):
        if size > 1 << 20:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("anyrank.storage.format.reserve", full)
    state = State(world)
    state.field("T", (1 << 18,))
    assert "No space left on device" in refusal(checkpoints(tmp_path, state).try_header)
