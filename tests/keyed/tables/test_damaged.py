"""Damaged and hostile files: one error that names the file, and memory within the limit."""

from __future__ import annotations

import base64

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from keyed.tables.samples import rows_of
from ranks import run_anyrank

from anyrank.errors import UsageError
from anyrank.keyed import array_inputs, reader_process
from anyrank.keyed.sort_keys import Key
from anyrank.keyed.tables import TableFiles
from anyrank.keyed.tables.columns import ColumnSpec
from anyrank.keyed.tables.dialect import CsvOptions
from anyrank.keyed.tables.source import opened
from anyrank.world import World

#: A Parquet file with one wrong bit in the type of a column: Arrow ends the process by std::terminate.
ABORTS = base64.b64decode(
    "UEFSMRUAFSwVLCwVBBUAFQYVBhwAAAACAAAABAEAAAAAAAAAAAEAAAAAAAAAFQAVLBUsLBUEFQAVBhUGHAAAAAIAAAAEAQIAAAAAAAAAAwAA"
    "AAAAAAAVABUsFSwsFQQVABUGFQYcAAAAAgAAAAQBBAAAAAAAAAAFAAAAAAAAABUEGSw1ABgGc2NoZW1hFQIAFQQkAhgBYQAWDBk8GRwmABwV"
    "BBklBgAZGAFhFQAWBBZSFlImCEkcFQAVABUCADwpBhkmAAQAAAAWUhYEJggWUgAZHCYAHBUEGSUGABkYAWEVABYEFlIWUiZaSRwVABUAFQIA"
    "PCkGGSYABAAAABZSFgQmWhZSABkcJgAcFQQZJQYAGRgBYRUAFgQWUhZSJqwBSRwVABUAFQIAPCkGGSYABAAAABZSFgQmrAEWUgAoIHBhcnF1"
    "ZXQtY3BwLWFycm93IHZlcnNpb24gMjYuMC4xGRwcAAAA5gAAAFBBUjE="
)


@pytest.fixture(scope="module")
def alone():
    world = World()
    yield world
    world.close()


def refusal(alone, path, *columns):
    with pytest.raises(UsageError) as error:
        rows_of(TableFiles(str(path), [ColumnSpec(column) for column in columns], alone), 1 << 20)
    return str(error.value)


def text_file(path):
    """Write a dataset of text whose heap has an object of size 0, at which HDF5 loops; return the heap's offset."""
    with h5py.File(path, "w") as file:
        file["b"] = [f"k{i % 5}" for i in range(50)]
        file["n"] = np.arange(50)
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL") + 16
    data[heap : heap + 16] = bytes(16)
    path.write_bytes(data)


@pytest.mark.parametrize("ranks", [None, 2])
def test_parquet_that_aborts_arrow_is_one_error(tmp_path, ranks):
    (tmp_path / "t.parquet").write_bytes(ABORTS)
    done = run_anyrank(
        "run", "groupby", "--table", tmp_path / "t.parquet", "--by", "a", "--out", tmp_path / "o", ranks=ranks
    )
    message = f"anyrank: {tmp_path}/t.parquet is damaged: its reader ended by SIGABRT (what():"
    assert done.returncode == 2 and done.stderr.count("damaged") == 1 and message in done.stderr


def test_hdf5_text_that_loops_is_one_error(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(reader_process, "CPU_SECONDS", 1)
    text_file(tmp_path / "t.h5")
    assert "t.h5 is damaged: its reader did not come to an end in 1 s" in refusal(alone, tmp_path / "t.h5", "b")
    files = TableFiles(str(tmp_path / "t.h5"), [ColumnSpec("n")], alone)
    assert rows_of(files, files.size) == {"n": [*range(50)]}


def test_hdf5_attribute_that_loops_is_refused_by_sort(tmp_path, monkeypatch):
    monkeypatch.setattr(reader_process, "CPU_SECONDS", 1)
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["n"] = np.arange(50)
        file["n"].attrs["units"] = ["m", "s"]
    data = bytearray((tmp_path / "t.h5").read_bytes())
    heap = data.index(b"GCOL") + 16
    data[heap : heap + 16] = bytes(16)
    (tmp_path / "t.h5").write_bytes(data)
    with pytest.raises(UsageError, match=r"t.h5 is damaged: its reader did not come to an end in 1 s"):
        array_inputs.open_array_file(str(tmp_path / "t.h5"))


@pytest.mark.parametrize("chunks", [(1 << 16,), None])
def test_hdf5_rows_that_are_not_stored_are_refused(alone, tmp_path, chunks):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("a", (1 << 44,), "i8", chunks=chunks)
        file.create_dataset("b", (100,), "i8", chunks=chunks and (10,), fillvalue=7)
    text = f"dataset /a declares {1 << 44} rows and stores 0; at most 1073741824 may be unwritten. Write its rows"
    assert text in refusal(alone, tmp_path / "t.h5", "a")
    files = TableFiles(str(tmp_path / "t.h5"), [ColumnSpec("b")], alone)
    assert rows_of(files, files.size) == {"b": [7] * 100}
    with pytest.raises(UsageError, match="declares"):
        array_inputs.open_array_file(f"{tmp_path}/t.h5:/a")


@pytest.mark.parametrize("chunks", [None, (60,)])
def test_hdf5_parts_shorter_than_their_rows_are_refused(alone, tmp_path, chunks):
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.arange(60), chunks=chunks)
    data = path.read_bytes()
    size = (60 * 8).to_bytes(8 if chunks is None else 4, "little")
    assert data.count(size) >= 1
    places = [k for k in range(len(data)) if data.startswith(size, k)]
    refused = 0
    for place in places:
        path.write_bytes(data[:place] + (224).to_bytes(len(size), "little") + data[place + len(size) :])
        try:
            with h5py.File(path) as file:
                stored = file["a"].id.get_storage_size()
        except OSError:
            continue
        if stored == 224:
            refused += 1
            assert "is not all in the file" in refusal(alone, path, "a")
    assert refused


@pytest.mark.parametrize("chunks", [(10,), None])
def test_hdf5_rows_beyond_the_end_of_the_file_are_refused(alone, tmp_path, chunks):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("a", data=np.arange(10_000), chunks=chunks)
    (tmp_path / "t.h5").write_bytes((tmp_path / "t.h5").read_bytes()[:40_000])
    assert "t.h5 cannot be read as a table: " in refusal(alone, tmp_path / "t.h5", "a")  # HDF5 compares the sizes


def test_hdf5_compressed_chunk_beyond_the_budget_is_refused(alone, tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("a", data=np.zeros(1 << 20, "i8"), chunks=(1 << 20,), compression="gzip")
    files = TableFiles(str(tmp_path / "t.h5"), [ColumnSpec("a")], alone)
    files.check_memory(8 << 20)
    with pytest.raises(UsageError, match=r"t.h5 has compressed chunks of 8388608 bytes, and a rank may use 8388607"):
        files.check_memory((8 << 20) - 1)


def test_hdf5_long_text_is_read_in_short_batches(alone, tmp_path):
    words = [str(n % 10) * (n % 5000) for n in range(3000)]
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["a"] = words
    files = TableFiles(str(tmp_path / "t.h5"), [ColumnSpec("a")], alone)
    batches = [batch["a"].values for batch in files.read(0, files.size)]
    assert [text for batch in batches for text in batch.strings()] == words
    assert max(len(batch) for batch in batches) < 3000


def test_parquet_text_of_dictionaries_is_read_in_short_batches(alone, tmp_path):
    words = ["x" * 100_000, *"abc"]
    table = pa.table({"a": pa.array([words[n % 4 if n > 99_000 else 1 + n % 3] for n in range(100_000)])})
    pa.parquet.write_table(table, tmp_path / "t.parquet")
    (file,) = opened([(tmp_path / "t.parquet", 1 << 20)], CsvOptions(), ["a"])
    assert file.dictionaries == ["a"] and file.batch_rows[0] <= (1 << 26) // 100_000
    files = TableFiles(str(tmp_path / "t.parquet"), [ColumnSpec("a")], alone)
    sizes = np.concatenate([batch["a"].values.sizes for batch in files.read(0, files.size)])
    assert sizes.sum() == sum(map(len, table["a"].to_pylist()))


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_parquet_text_without_dictionary_is_read(alone, tmp_path, encoding):
    words = [f"{n % 7}" * (n % 50) for n in range(5000)]
    path = tmp_path / "t.parquet"
    pa.parquet.write_table(pa.table({"a": words}), path, use_dictionary=False, column_encoding={"a": encoding})
    files = TableFiles(str(path), [ColumnSpec("a")], alone)
    batches = [batch["a"].values.strings() for batch in files.read(0, files.size)]
    assert [word for batch in batches for word in batch] == words
    assert len(batches) == (5 if encoding == "DELTA_BYTE_ARRAY" else 1)


def test_parquet_page_with_wrong_checksum_is_refused(alone, tmp_path):
    path = tmp_path / "t.parquet"
    pa.parquet.write_table(
        pa.table({"a": np.arange(1000)}), path, write_page_checksum=True, use_dictionary=False, compression="none"
    )
    data = bytearray(path.read_bytes())
    data[4000] ^= 1
    path.write_bytes(data)
    files = TableFiles(str(path), [ColumnSpec("a")], alone)
    with pytest.raises(Exception, match=r"t.parquet cannot be read: .*CRC"):
        rows_of(files, files.size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total_byte_size": -1}, "a row group has a negative size"),
        ({"num_rows": 7}, "its row groups do not have 10 rows"),
        ({"num_values": 11}, "column 'a' has 11 values in a row group of 10 rows"),
        ({"total_compressed_size": 1 << 30}, "the pages of column 'a' are not in the file"),
    ],
)
def test_parquet_of_inconsistent_sizes_is_refused(tmp_path, monkeypatch, change, message):
    path = tmp_path / "t.parquet"
    pa.parquet.write_table(pa.table({"a": np.arange(10)}), path)

    class Changed:
        """Metadata of Parquet with other numbers in row groups and chunks."""

        def __init__(self, real, level=0):
            self.real, self.level = real, level

        def __getattr__(self, name):
            if self.level and name in change:
                return change[name]
            value = getattr(self.real, name)
            if name in ("row_group", "column"):
                return lambda number: Changed(value(number), self.level + 1)
            return value

    real = pa.parquet.ParquetFile

    class File(real):
        metadata = property(lambda self: Changed(real.metadata.fget(self)))

    monkeypatch.setattr(pa.parquet, "ParquetFile", File)
    with pytest.raises(ValueError, match=message):
        [*opened([(path, path.stat().st_size)], CsvOptions(), ["a"])]


def test_npy_whose_header_cannot_be_parsed_is_refused(alone, tmp_path):
    np.save(tmp_path / "t.npy", np.zeros(3, [("a", "i8")]))
    data = (tmp_path / "t.npy").read_bytes()
    (tmp_path / "t.npy").write_bytes(data.replace(b"'shape': (3,)", b"'shape': (3( "))
    assert "t.npy cannot be read as a table: its header cannot be parsed" in refusal(alone, tmp_path / "t.npy", "a")
    with pytest.raises(UsageError, match=r"t.npy is not a valid .npy file \(its header cannot be parsed"):
        array_inputs.open_array_file(str(tmp_path / "t.npy"), (Key("a"),))


def test_hdf5_with_a_damaged_index_is_refused_by_sort(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w", libver="latest") as file:
        file.create_dataset("a", data=np.arange(1000), chunks=(16,), maxshape=(2000,))
    data = bytearray((tmp_path / "t.h5").read_bytes())
    data[data.index(b"FAHD") + 5] ^= 1
    (tmp_path / "t.h5").write_bytes(data)
    with pytest.raises(UsageError, match=r"t.h5 is not a valid .h5 file \(.*chunk"):
        array_inputs.open_array_file(str(tmp_path / "t.h5"), (Key("a"),))
