"""np.save on every rank: one file for each rank and field."""

import numpy as np

from peer import Peer
from tasks import checksum, delete_files, local_fields, sync


class NpSave(Peer):
    name = "np.save per rank"
    packages = ("numpy", "mpi4py")
    cores = (2,)
    ranks = True
    behind = "it writes as many files, which only as many ranks can read, with no digests and no new name when whole"

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        self.fields = local_fields(comm, size["side"])

    def path(self, name, rank):
        return self.folder / f"{name}-{rank}.npy"

    def run(self):
        for name, values in self.fields.items():
            np.save(self.path(name, self.comm.rank), values)
        for name in self.fields:
            sync(self.path(name, self.comm.rank))

    def answer(self):
        return checksum(lambda name: np.concatenate([np.load(self.path(name, r)) for r in range(self.comm.size)]))

    def clean_up(self):
        delete_files(self.comm, [self.path(name, rank) for name in self.fields for rank in range(self.comm.size)])
