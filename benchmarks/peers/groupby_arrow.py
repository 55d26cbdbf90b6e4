"""Arrow: hash aggregation by Acero, of a table in memory."""

import pyarrow as pa

from peer import Peer
from tasks import group_answer, table_of


class Arrow(Peer):
    name = "pyarrow"
    packages = ("pyarrow",)
    cores = (2,)
    tolerance = 1e-11

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        pa.set_cpu_count(cores)
        keys, values = table_of(size)
        self.table = pa.table({"key": keys, "value": values})

    def run(self):
        wanted = [("value", what) for what in ("count", "sum", "mean")]
        self.output = self.table.group_by("key").aggregate(wanted)

    def release_memory(self):
        names = {"key": "key", "count": "value_count", "sum": "value_sum", "mean": "value_mean"}
        self.summary = group_answer(**{name: self.output[column].to_numpy() for name, column in names.items()})
        del self.output

    def answer(self):
        return self.summary
