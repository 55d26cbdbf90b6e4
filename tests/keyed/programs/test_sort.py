"""Sort: the same file on any ranks and with any memory, whether stopped and resumed or not."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import count
from pathlib import Path

import h5py
import numpy as np
import pytest
from ranks import run_anyrank

from anyrank.errors import UsageError
from anyrank.keyed import array_inputs
from anyrank.keyed.sort_keys import Key

RNG = np.random.default_rng(7)
ROWS = 20_000


def run(*words, ranks, code=0):
    done = run_anyrank(*words, "--json", "--quiet", ranks=ranks)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def digests(out: Path):
    """The digest of the state, and result.json without the path."""
    result = json.loads((out / "result.json").read_text())
    return json.loads((out / "summary.json").read_text())["digest"], {**result, "output": ""}


@pytest.fixture
def records(tmp_path):
    """Records in a .npy file with few distinct keys, and the expected file."""
    rows = np.zeros(ROWS, [("flag", "?"), ("key", ">f4"), ("place", "<i8")])
    rows["key"], rows["place"] = RNG.choice([0.0, -0.0, 1.5, -np.inf, np.nan], ROWS), np.arange(ROWS)
    np.save(tmp_path / "rows.npy", rows)
    nan, key = np.isnan(rows["key"]), rows["key"]
    order = np.lexsort([~np.signbit(key), np.where(nan, 0, key), nan])
    return tmp_path / "rows.npy", rows[order]


@pytest.fixture
def group(tmp_path):
    """A group of datasets with keys of bytes, and the expected datasets."""
    key = RNG.integers(0, 3, (ROWS, 9), np.uint8).view("S9").ravel()
    columns = {"name": key, "place": np.arange(ROWS), "weight": RNG.standard_normal(ROWS).astype("f4")}
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file.create_dataset("other", data=np.zeros((2, 2)))
        for name, column in columns.items():
            file.create_dataset(f"deep/{name}", data=column, chunks=(777,))
    order = np.argsort(key, kind="stable")
    return tmp_path / "rows.h5", {name: column[order] for name, column in columns.items()}


def holds(path, columns):
    with h5py.File(path) as file:
        assert set(file["deep"]) == set(columns)
        return all(np.array_equal(file["deep"][name][()], column) for name, column in columns.items())


def test_sort_file_is_the_same_on_1_to_7_ranks(records, tmp_path):
    path, expected = records
    before, actual, files = path.read_bytes(), [], set()
    for ranks in (1, 2, 3, 4, 7):
        out = tmp_path / str(ranks)
        words = ("--input", path, "--key", "key", "--chunk", 70_000, "--block", 90_000, "--out", out)
        run("run", "sort", *words, ranks=ranks)
        actual.append(digests(out))
        files.add((out / "sorted.npy").read_bytes())
        assert [entry.name for entry in out.glob(".*")] == []
    written = np.load(tmp_path / "1" / "sorted.npy")
    assert written.dtype == expected.dtype and written.tobytes() == expected.tobytes()
    assert len(files) == 1 and all(result == actual[0] for result in actual) and path.read_bytes() == before
    assert actual[0][1]["rows"] == ROWS and (actual[0][1]["first"], actual[0][1]["last"]) == ("-inf", "nan")


def test_sort_stopped_in_both_phases_resumes_on_other_ranks(group, tmp_path):
    path, expected = group
    words = ("--input", f"{path}:/deep", "--key", "name", "--chunk", 100_000, "--block", 50_000)
    output, out = tmp_path / "by_name.h5", tmp_path / "stopped"
    whole = run("run", "sort", *words, "--out", tmp_path / "whole", ranks=2)
    assert holds(tmp_path / "whole" / "sorted.h5", expected)
    run("run", "sort", *words, "--output", output, "--out", out, "--stop-at", 2, ranks=3, code=75)
    run("resume", out, "--stop-at", 8, ranks=1, code=75)
    assert not output.exists()
    last = run("resume", out, ranks=4)
    assert last["resumed_from"] == 8 and holds(output, expected) and last["digests"] == whole["digests"]
    assert digests(out)[1] == digests(tmp_path / "whole")[1]


def test_sort_little_memory_gives_the_same_or_a_clear_error(tmp_path):
    keys = RNG.integers(-(1 << 62), 1 << 62, 2_000_000)
    np.save(tmp_path / "keys.npy", keys)
    words = ("run", "sort", "--input", tmp_path / "keys.npy")
    refused = run_anyrank(*words, "--memory-limit", "1MB", "--out", tmp_path / "refused", ranks=2)
    assert refused.returncode == 2
    enough = int(re.search(r"Use --memory-limit (\d+)MB or more", refused.stderr)[1]) + 4
    limited = ("--memory-limit", f"{enough}MB", "--scratch")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True).returncode == 0:
        try:
            full = run_anyrank(*words, *limited, small, "--out", tmp_path / "full", ranks=2)
            assert full.returncode == 1, full.stderr
            assert f"--scratch {small} cannot take" in full.stderr and "No space left on device" in full.stderr
            assert [*small.iterdir()] == []
        finally:
            subprocess.run(["umount", small], check=True)
    # With one rank, the peak would be that of the parent process: exec keeps it.
    summary = run(*words, *limited, small, "--out", tmp_path / "limited", ranks=2)
    assert np.array_equal(np.load(tmp_path / "limited" / "sorted.npy"), np.sort(keys))
    assert summary["memory"]["peak"] <= enough * 10**6 and [*small.iterdir()] == []


def test_sort_existing_output_and_changed_input_are_refused(tmp_path):
    existing, keys = tmp_path / "there.npy", tmp_path / "keys.npy"
    existing.write_text("mine")
    np.save(keys, np.arange(9)[::-1])
    words = ("run", "sort", "--input", keys, "--chunk", 24)
    done = run_anyrank(*words, "--output", existing, "--out", tmp_path / "a", ranks=2)
    assert done.returncode == 2 and f"--output {existing} exists, and is never overwritten" in done.stderr
    assert existing.read_text() == "mine" and not (tmp_path / "a").exists()
    run(*words, "--stop-at", 1, "--out", tmp_path / "b", ranks=1, code=75)
    np.save(keys, np.arange(10))
    done = run_anyrank("resume", tmp_path / "b", ranks=1)
    assert done.returncode == 2 and "has changed since the run began" in done.stderr
    np.save(keys, np.arange(0))
    run("run", "sort", "--input", keys, "--out", tmp_path / "empty", ranks=2)
    assert np.load(tmp_path / "empty" / "sorted.npy").shape == (0,)


def test_sort_bad_input_is_refused(tmp_path, group):
    numbers = count()

    def npy(array):
        path = tmp_path / f"{next(numbers)}.npy"
        np.save(path, array, allow_pickle=True)
        return path

    def hdf5(**columns):
        path = tmp_path / f"{next(numbers)}.h5"
        with h5py.File(path, "w") as file:
            for name, column in columns.items():
                file[name] = column
        return path

    (tmp_path / "bad.npy").write_text("1\n")
    (tmp_path / "bad.h5").write_text("1\n")
    record, one = np.zeros(3, [("a", "i8"), ("b", "u2", 2)]), np.zeros(3)
    for path, key, message in (
        (tmp_path / "none.npy", "", "cannot be read (No such file or directory)"),
        (tmp_path / "bad.npy", "", "is not a valid"),
        (tmp_path / "bad.h5", "", "is not a valid"),
        (npy(np.zeros((2, 2))), "", "has 2 axes; it must have one"),
        (npy(np.array([None, "x"])), "", "Python objects"),
        (npy(np.zeros(3, complex)), "", "the key is complex128 and cannot be sorted. Use numbers"),
        (npy(one), "a", "has no field 'a'. Use no --key"),
        (npy(record), "", "has no field ''. Use --key a or b"),
        (npy(record), "b", "key b is ('<u2', (2,)) and cannot be sorted"),
        (f"{group[0]}:/nowhere", "", "has no /nowhere. It has deep, other"),
        (f"{group[0]}:/deep", "", "has no dataset ''. Use --key with one of name, place, weight"),
        (group[0], "other", "has 2 axes"),
        (hdf5(a=one, b=np.zeros(4)), "a", "b has 4 rows, and the key a has 3"),
        (hdf5(a=one, b=["x", "yy"]), "a", "holds objects or variable-length text"),
    ):
        with pytest.raises(UsageError, match=re.escape(message)):
            array_inputs.describe_array_file(str(path), (Key(key),) if key else ())


@pytest.mark.parametrize("ranks", [1, 3])
def test_sort_hdf5_records_axes_and_attributes_are_kept(tmp_path, ranks):
    place, key = np.arange(500), RNG.integers(0, 20, 500)
    rows = np.zeros(500, [("id", "i8"), ("xyz", ">f4", 3)])
    rows["id"], rows["xyz"] = key, RNG.standard_normal((500, 3))
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["table"] = rows
        file["deep/id"], file["deep/xyz"] = key, rows["xyz"]
        file["deep/id"].attrs["units"], file["deep"].attrs["origin"] = "m", [1.5, 2.5]
        file["deep/xyz"].attrs["scale"] = file["table"].ref  # refers to an object that the output does not have
    order = np.lexsort([place, key])
    run("run", "sort", "--input", f"{tmp_path}/in.h5:/table", "--key", "id", "--out", tmp_path / "a", ranks=ranks)
    with h5py.File(tmp_path / "a" / "sorted.h5") as file:
        assert file["table"].dtype == rows.dtype and file["table"][:].tobytes() == rows[order].tobytes()
    words = ("--input", f"{tmp_path}/in.h5:/deep", "--key", "id", "--chunk", 500, "--out", tmp_path / "b")
    run("run", "sort", *words, ranks=ranks)
    with h5py.File(tmp_path / "b" / "sorted.h5") as file:
        group = file["deep"]
        assert np.array_equal(group["id"], key[order]) and np.array_equal(group["xyz"], rows["xyz"][order])
        assert group["id"].attrs["units"] == "m" and group.attrs["origin"].tolist() == [1.5, 2.5]
        assert "scale" not in group["xyz"].attrs
    refused = run_anyrank("run", "sort", "--input", f"{tmp_path}/in.h5:/table", "--key", "xx", "--out", tmp_path / "c")
    assert refused.returncode == 2 and "has no field 'xx'. Use --key id or xyz" in " ".join(refused.stderr.split())


def test_sort_field_names_of_npy_may_be_unicode(tmp_path):
    rows = np.array([(2, 0.5), (1, 1.5)], [("Δt", "i8"), ("größe", "f8")])
    np.save(tmp_path / "rows.npy", rows)
    run("run", "sort", "--input", tmp_path / "rows.npy", "--key", "Δt", "--out", tmp_path / "out", ranks=2)
    assert np.load(tmp_path / "out" / "sorted.npy").tolist() == rows[::-1].tolist()


@pytest.mark.parametrize("damage", ["empty", "zip", "npz", "symbols"])
def test_sort_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / ("rows.h5" if damage == "symbols" else "rows.npy")
    if damage == "npz":
        np.savez(tmp_path / "rows.npz", a=np.arange(3))
        (tmp_path / "rows.npz").rename(path)
    elif damage == "symbols":
        with h5py.File(path, "w") as file:
            file["a"] = np.arange(9)
        data = bytearray(path.read_bytes())
        data[data.index(b"SNOD")] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(b"PK\3\4xxxxxxxxxxxx" if damage == "zip" else b"")
    with pytest.raises(UsageError, match=r"rows.* is not a valid \..* file"):
        array_inputs.describe_array_file(str(path), (Key("a"),) if damage == "symbols" else ())


@pytest.mark.parametrize(("by", "signs"), [("a,-b,c", (1, -1, 1)), ("-c,b", (-1, 1)), ("-a", (-1,))])
def test_sort_several_keys_of_records_and_datasets(tmp_path, by, signs):
    rows = np.zeros(3000, [("a", "S2"), ("b", ">u2"), ("c", "M8[h]"), ("place", "i8")])
    rows["a"], rows["b"] = RNG.choice([b"x", b"yy", b""], 3000), RNG.integers(0, 4, 3000)
    rows["c"], rows["place"] = RNG.choice(np.array(["2020-01-01T01", "2021", "NaT"], "M8[h]"), 3000), np.arange(3000)
    ranks_of = [np.unique(rows[name.lstrip("-")], return_inverse=True)[1] for name in by.split(",")]
    missing = [np.isnat(rows["c"]) if name[-1] == "c" else np.zeros(3000, bool) for name in by.split(",")]
    numbers = [np.where(m, 99, sign * r) for sign, r, m in zip(signs, ranks_of, missing, strict=True)]
    expected = rows[np.lexsort(numbers[::-1])]
    np.save(tmp_path / "rows.npy", rows)
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        for name in rows.dtype.names:
            file[f"deep/{name}"] = rows[name].view("i8") if name == "c" else rows[name]
    results = []
    for ranks in (1, 3):
        words = ("--by", by, "--chunk", 9000, "--block", 20_000, "--out", tmp_path / str(ranks))
        results.append(run("run", "sort", "--input", tmp_path / "rows.npy", *words, ranks=ranks)["digest"])
        assert np.load(tmp_path / str(ranks) / "sorted.npy").tobytes() == expected.tobytes()
    assert len({*results}) == 1
    if "c" not in by:
        words = ("--input", f"{tmp_path}/rows.h5:/deep", "--by", by, "--out", tmp_path / "deep")
        run("run", "sort", *words, ranks=2)
        with h5py.File(tmp_path / "deep" / "sorted.h5") as file:
            assert file["deep/place"][:].tolist() == expected["place"].tolist()


def test_sort_plain_array_in_descending_order_ends_in_nan(tmp_path):
    keys = np.array([1, np.nan, -0.0, 0.0, np.inf, -5], "f2")
    np.save(tmp_path / "keys.npy", keys)
    run("run", "sort", "--input", tmp_path / "keys.npy", "--by", "-", "--out", tmp_path / "out", ranks=2)
    assert np.load(tmp_path / "out" / "sorted.npy").tobytes() == keys[[4, 0, 3, 2, 5, 1]].tobytes()
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["first"] == "inf" and result["last"] == "nan"


def test_sort_hdf5_chunks_filters_and_fill_values_are_kept(tmp_path):
    key = RNG.integers(0, 50, 4000)
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("key", data=key, fillvalue=-1)
        kept = {"compression": "gzip", "compression_opts": 7, "shuffle": True, "fletcher32": True, "fillvalue": -7}
        file.create_dataset("a", data=key.reshape(4000, 1) * [1, 2], chunks=(77, 2), maxshape=(None, 2), **kept)
        file.create_dataset("größe", data=key / 2, chunks=(501,), compression="lzf")
        file["größe"].attrs["einheit"] = "µm"
        file.create_dataset("flag", data=key > 25, dtype=bool)
    files = set()
    for ranks in (1, 2):
        words = ("--input", tmp_path / "in.h5", "--by", "-key", "--block", 9000, "--out", tmp_path / str(ranks))
        run("run", "sort", *words, ranks=ranks)
        files.add((tmp_path / str(ranks) / "sorted.h5").read_bytes())
        assert [*(tmp_path / str(ranks)).glob(".*")] == []
    assert len(files) == 1
    order = np.argsort(-key, kind="stable")
    with h5py.File(tmp_path / "in.h5") as before, h5py.File(tmp_path / "1" / "sorted.h5") as after:
        for name, dataset in before.items():
            assert np.array_equal(after[name][()], dataset[()][order]) and after[name].dtype == dataset.dtype
            for what in ("chunks", "compression", "compression_opts", "shuffle", "fletcher32", "fillvalue", "maxshape"):
                assert getattr(after[name], what) == getattr(dataset, what) or (name, what) == ("key", "maxshape")
        assert after["größe"].attrs["einheit"] == "µm"


def test_sort_hdf5_records_with_unicode_fields(tmp_path):
    rows = np.zeros(50, [("größe", "i4"), ("Δt", "f8", 2)])
    rows["größe"], rows["Δt"][:, 1] = RNG.integers(0, 9, 50), np.arange(50)
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("tábla", data=rows, chunks=(7,), compression="gzip")
    words = ("--input", f"{tmp_path}/in.h5:/tábla", "--by", "-größe", "--out", tmp_path / "out")
    run("run", "sort", *words, ranks=2)
    with h5py.File(tmp_path / "out" / "sorted.h5") as file:
        assert file["tábla"][:].tobytes() == rows[np.argsort(-rows["größe"], kind="stable")].tobytes()
        assert file["tábla"].compression == "gzip"


@pytest.mark.parametrize("damage", ["chunk", "attribute"])
def test_sort_hdf5_damaged_parts_are_named(tmp_path, damage):
    path = tmp_path / "in.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.arange(5000, dtype="i8"), chunks=(1000,), fletcher32=True)
        file["a"].attrs["units"] = "meters"
        offset = file["a"].id.get_chunk_info(3).byte_offset
    data = bytearray(path.read_bytes())
    if damage == "chunk":
        data[offset + 5] ^= 1
    else:
        data[data.index(b"units\0") - 8] ^= 0xFF
    path.write_bytes(data)
    done = run_anyrank("run", "sort", "--input", path, "--out", tmp_path / "out", "--quiet", ranks=2)
    assert done.returncode == (1 if damage == "chunk" else 2) and "Traceback" not in done.stderr
    assert f"--input {path}" in " ".join(done.stderr.split()), done.stderr
