"""Tables for tests, in every type of file, and the plain values that TableFiles reads from them."""

from __future__ import annotations

from datetime import datetime, timezone

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from anyrank.keyed.rows import Text
from anyrank.keyed.types import name_of
from anyrank.keyed.values import Values

#: A log of 1000 rows.
LOG = {
    "user": [f"user {n * n % 17:02d}" for n in range(1000)],
    "price": [(n * 7919 % 10_000) / 100 for n in range(1000)],
    "items": [n * 31 % 11 - 5 for n in range(1000)],
    "time": [datetime.fromtimestamp(1_700_000_000 + 4321 * n, timezone.utc) for n in range(1000)],
}


def on_root(world, action):
    if world.rank == 0:
        action()
    world.barrier()


def write_csv(path, rows=LOG):
    times = [time.strftime("%Y-%m-%dT%H:%M:%SZ") for time in rows["time"]]
    pa.csv.write_csv(pa.table({**rows, "time": times}), path)


def write_parquet(path, rows=LOG):
    pa.parquet.write_table(pa.table(rows), path, row_group_size=90)


def arrays(rows=LOG):
    times = np.array([int(time.timestamp()) for time in rows["time"]])
    return {"user": np.array(rows["user"], "S"), **{n: np.array(rows[n]) for n in ("price", "items")}, "time": times}


def write_hdf5(path, rows=LOG):
    with h5py.File(path, "w") as file:
        for name, column in arrays(rows).items():
            file[name] = column


def write_npy(path, rows=LOG):
    columns = arrays(rows)
    table = np.zeros(len(rows["user"]), [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        table[name] = column
    np.save(path, table)


WRITERS = {"csv": write_csv, "parquet": write_parquet, "h5": write_hdf5, "npy": write_npy}


def plain(values: Values) -> list:
    """The values of a column, None for a null."""
    column = values.values
    result = column.strings() if isinstance(column, Text) else column.tolist()
    return (
        [None if null else v for v, null in zip(result, values.nulls, strict=True)]
        if values.nulls is not None
        else result
    )


def type_names(files):
    """The names of the types of the requested columns by label."""
    return {label: name_of(type_) for label, type_ in files.types.items()}


def rows_of(files, chunk):
    """What this rank reads of all chunks: a list for each label."""
    result = {label: [] for label in files.types}
    for step in range(files.chunks(chunk)):
        for batch in files.read(*files.part(step, chunk)):
            for label, values in batch.items():
                result[label] += plain(values)
    return result
