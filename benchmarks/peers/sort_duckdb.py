"""DuckDB: its own table in memory, in order, as a table of Arrow's; NumPy's arrays take longer."""

import duckdb

from peer import Peer
from tasks import in_order, keys_of


class DuckDB(Peer):
    name = "DuckDB"
    packages = ("duckdb", "pyarrow")
    cores = (2,)

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        self.connection = duckdb.connect(config={"threads": cores})
        keys = keys_of(size)  # noqa: F841  (the query finds it by its name)
        self.connection.execute("CREATE TABLE keys AS SELECT column0 AS key FROM keys")

    def run(self):
        self.found = self.connection.sql("SELECT key FROM keys ORDER BY key").to_arrow_table()

    def answer(self):
        return in_order([self.found["key"].to_numpy()])
