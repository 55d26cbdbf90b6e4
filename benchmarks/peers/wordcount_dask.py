"""Dask bag, as in its documentation, on processes, with one block for each; smaller blocks take longer."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import dask
import dask.bag as db

from peer import Peer
from tasks import TEXT, word_answer


class Dask(Peer):
    name = "Dask bag"
    packages = ("dask",)
    cores = (2,)
    goals = {2: 20.0}

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        self.block = -(-size["bytes"] // cores)
        self.pool = ProcessPoolExecutor(cores, get_context("spawn"))
        self.details = {"Dask bag": f"{cores} processes, blocks of {self.block:,} bytes"}

    def run(self):
        lines = db.read_text(self.folder.parent / TEXT, blocksize=self.block)
        with dask.config.set(scheduler="processes", num_workers=self.count, pool=self.pool):
            counts = lines.map(str.split).flatten().frequencies().compute()
        self.output = sorted(counts, key=lambda pair: (-pair[1], pair[0]))

    def answer(self):
        words, counts = zip(*self.output, strict=True)
        return word_answer([word.encode() for word in words], counts)
