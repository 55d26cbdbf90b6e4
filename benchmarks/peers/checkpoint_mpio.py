"""Parallel HDF5: all ranks write their rows collectively to one file, by an h5py that is built with MPI."""

import h5py

from peer import Peer
from tasks import checksum, delete_files, local_fields, rows_of, sync


class Mpio(Peer):
    name = "parallel HDF5"
    packages = ("h5py", "numpy", "mpi4py")
    cores = (2,)
    ranks = True
    environment = (".venv-mpio", ".ci/mpio")
    behind = (
        "not explained: both write as many bytes to one disk, whose speed changes from minute to minute; "
        "ours digests them, too"
    )

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        self.fields = local_fields(comm, size["side"])
        self.path = folder / "parallel.h5"
        self.details = {"parallel HDF5": f"HDF5 {h5py.version.hdf5_version} with {_library()}"}

    def run(self):
        side, mine = self.size["side"], rows_of(self.comm, self.size["side"])
        with h5py.File(self.path, "w", driver="mpio", comm=self.comm) as file:
            for name, values in self.fields.items():
                whole = file.create_dataset(name, (side, side), "f8")
                with whole.collective:
                    whole[mine] = values
        sync(self.path)

    def answer(self):
        with h5py.File(self.path) as file:
            return checksum(lambda name: file[name][...])

    def clean_up(self):
        delete_files(self.comm, [self.path])


def _library():
    from mpi4py import MPI

    return MPI.Get_library_version().splitlines()[0].replace("\t", " ").rstrip("\0")
