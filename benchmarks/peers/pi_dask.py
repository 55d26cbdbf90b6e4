"""Dask array, with the scheduler and the chunk size that are fastest on this machine."""

import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context

import dask
import dask.array as da
import numpy as np

from peer import Peer
from tasks import LIMIT

CHUNKS = [1 << 16, 1 << 18, 1 << 20, 1 << 22]


class Dask(Peer):
    name = "Dask array"
    packages = ("dask", "numpy")
    cores = (2,)
    goals = {2: 50.0}
    behind = LIMIT

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        pool = ProcessPoolExecutor(cores, get_context("spawn"))
        self.random = da.random.default_rng(1)
        settings = {
            "threads": {"scheduler": "threads", "num_workers": cores},
            "processes": {"scheduler": "processes", "num_workers": cores, "pool": pool},
        }

        def seconds(choice):
            self.setting, self.chunk = settings[choice[0]], choice[1]
            self.hits(10_000)  # starts the workers
            began = time.perf_counter()
            self.hits(size["points"] // 10)
            return time.perf_counter() - began

        scheduler, self.chunk = min(product(settings, CHUNKS), key=seconds)
        self.setting = settings[scheduler]
        self.details = {"Dask": f"{cores} {scheduler}, chunks of {self.chunk} points, the best of {CHUNKS}"}

    def hits(self, points):
        x, y = (self.random.random(points, chunks=self.chunk) for _ in range(2))
        with dask.config.set(self.setting):
            return int((x * x + y * y < 1).sum().compute())

    def run(self):
        self.output = self.hits(self.size["points"])

    def answer(self):
        return {"hits": np.array(self.output)}
