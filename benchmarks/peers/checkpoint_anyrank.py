"""anyrank: all ranks write one file in global order, with digests, sync it and rename it, while the steps continue."""

import time

import h5py

from peer import Peer
from tasks import checksum, delete_files, local_fields


class Anyrank(Peer):
    name = "anyrank"
    packages = ("anyrank", "numpy", "mpi4py", "h5py")
    cores = (2,)
    ranks = True

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        from anyrank.state import State
        from anyrank.storage.checkpoints import Checkpoints
        from anyrank.world import World

        self.state = State(World(comm), split="rows")
        for name, values in local_fields(comm, size["side"]).items():
            field = self.state.field(name, (size["side"],) * 2, halo=0 if "old" in name else 1)
            field[...] = values
        self.checkpoints = Checkpoints(folder, self.state, "peers", {})
        self.written = []

    def run(self):
        """Write a checkpoint; `held` is the time that stops the steps, for the copy and at the end of each phase."""
        held = -time.perf_counter()
        self.checkpoints.begin()
        held += time.perf_counter()
        while self.checkpoints.pending:
            if self.comm.allreduce(self.checkpoints.working()):
                time.sleep(0.001)  # a program would compute its steps here
                continue
            held -= time.perf_counter()
            saved = self.checkpoints.proceed()
            held += time.perf_counter()
        if saved.error:
            raise OSError(saved.error)
        self.written = [saved.path]
        return {"seconds": saved.seconds, "held": held}

    def answer(self):
        with h5py.File(self.written[0]) as file:
            return checksum(lambda name: file[f"fields/{name}"][...])

    def clean_up(self):
        delete_files(self.comm, self.written)
