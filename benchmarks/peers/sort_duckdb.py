"""DuckDB: sorts a DuckDB table in memory into an Arrow table; NumPy arrays as output take longer."""

import duckdb

from peer import Peer
from tasks import key_answer, keys_of


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
        self.output = self.connection.sql("SELECT key FROM keys ORDER BY key").to_arrow_table()

    def answer(self):
        return key_answer([self.output["key"].to_numpy()])
