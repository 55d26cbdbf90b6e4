"""Sort of CSV and Parquet: the order of pyarrow, every value as it was read, and one file on any ranks."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from keyed.tables.samples import on_root
from ranks import check_collective, run_anyrank

from anyrank.errors import AnyrankError, UsageError
from anyrank.keyed.order import text_codes
from anyrank.keyed.programs.sort import Sort, parse_by, table_rows
from anyrank.keyed.rows import Text
from anyrank.keyed.sort_keys import Key
from anyrank.keyed.sort_parquet import ParquetRows
from anyrank.keyed.tables.dialect import CsvOptions
from anyrank.state import State

ROWS = 3000
RNG = np.random.default_rng(11)
COUNTRIES = ["NO", "SE", "", "a name, with a comma", 'a "quote"', "ä", "a line\nend", "x" * 300]
PRICES = ["1.50", "2.25", "", "10", "-0.0", "3.125e2", "nan"]


def sort(*words, ranks=1, code=0):
    done = run_anyrank("run", "sort", *words, "--json", "--quiet", ranks=ranks)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if code in (0, 75) else " ".join(done.stderr.split())


def cell(text):
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n') else text


@pytest.fixture
def csv(tmp_path):
    """Two files of CSV, the second without a last line end, and the records in the order of country and −price."""
    countries, prices = RNG.choice(COUNTRIES, ROWS).tolist(), RNG.choice(PRICES, ROWS).tolist()
    records = [f"{cell(c)},{k:05},{p},' x'\n" for k, (c, p) in enumerate(zip(countries, prices, strict=True))]
    head = "country,id,price,note\n"
    (tmp_path / "a.csv").write_text(head + "".join(records[:1000]) + "\n\n")
    (tmp_path / "b.csv").write_text(head + "".join(records[1000:]).rstrip("\n"))
    table = pa.table({"country": countries, "price": [float(p) if p else None for p in prices]})
    return tmp_path, head + "".join(records[k] for k in order_of(table, "country", "-price"))


def order_of(table, *by):
    """The stable order of a table: nulls and empty text last, NaN before them, in both directions."""
    keys = []
    for name in by:
        column = table[name.removeprefix("-")].combine_chunks()
        values = column.to_pylist()
        missing = [2 if v is None or v == "" else int(v != v) for v in values]
        texts = [v.encode() if isinstance(v, str) else v for v in values]
        distinct = sorted({v for v, absent in zip(texts, missing, strict=True) if not absent})
        ranks = {value: rank for rank, value in enumerate(distinct)}
        sign = -1 if name.startswith("-") else 1
        keys += [missing, [0 if m else sign * ranks[v] for v, m in zip(texts, missing, strict=True)]]
    return np.lexsort(keys[::-1])


def test_sort_csv_keeps_records_in_order_on_1_to_3_ranks(csv):
    folder, expected = csv
    files, digests = set(), set()
    for ranks in (1, 2, 3):
        out = folder / str(ranks)
        words = ("--input", f"{folder}/*.csv", "--by", "country, -price", "--chunk", 9000, "--block", 20_000)
        summary = sort(*words, "--out", out, ranks=ranks)
        files.add((out / "sorted.csv").read_text())
        digests.add((summary["digest"], json.loads((out / "result.json").read_text())["digest"]))
        assert [*out.glob(".*")] == []
    assert files == {expected} and len(digests) == 1


def test_sort_csv_stopped_in_both_phases_resumes(csv):
    folder, expected = csv
    words = ("--input", f"{folder}/a.csv,{folder}/b.csv", "--by", "country,-price", "--chunk", 9000, "--block", 9000)
    whole = sort(*words, "--out", folder / "whole", ranks=2)
    out = folder / "stopped"
    sort(*words, "--out", out, "--stop-at", 3, ranks=3, code=75)
    for words, ranks, code in ((("--stop-at", whole["steps"] - 2), 1, 75), ((), 2, 0)):
        done = run_anyrank("resume", out, *words, "--json", "--quiet", ranks=ranks)
        assert done.returncode == code, done.stderr
    assert (out / "sorted.csv").read_text() == expected == (folder / "whole" / "sorted.csv").read_text()
    assert json.loads(done.stdout.splitlines()[-1])["digest"] == whole["digest"]


def test_sort_csv_dialect_and_line_ends_are_kept(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"n\xe4me;size\r\n\xe5;2,5\r\nb;10,25\r\n'c;d';1,5")
    words = ("--input", tmp_path / "a.csv", "--delimiter", ";", "--decimal", ",", "--quote", "'", "--encoding")
    sort(*words, "latin-1", "--by", "-size", "--out", tmp_path / "a", ranks=2)
    assert (tmp_path / "a" / "sorted.csv").read_bytes() == b"n\xe4me;size\r\nb;10,25\r\n\xe5;2,5\r\n'c;d';1,5\r\n"
    (tmp_path / "b.tsv").write_text("# x\n007\tb\n# y\n3\ta\n")
    words = ("--input", tmp_path / "b.tsv", "--header", "no", "--comment", "#", "--by", "c1")
    sort(*words, "--output", tmp_path / "text.csv", "--out", tmp_path / "b", ranks=2)
    assert (tmp_path / "text.csv").read_text() == "# x\n007\tb\n3\ta\n"  # leading zeros: keys are text
    sort(*words, "--types", "c1=int64", "--output", tmp_path / "number.csv", "--out", tmp_path / "c", ranks=2)
    assert (tmp_path / "number.csv").read_text() == "# x\n3\ta\n007\tb\n"


def test_sort_csv_bad_rows_are_refused_or_skipped(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n3,x\n1,y,z\nbad,u\n2,w\n")
    words = ("--input", path, "--by", "a", "--types", "a=int64")
    assert f"{path}: line 3 has 3 fields, not 2" in sort(*words, "--out", tmp_path / "a", ranks=2, code=2)
    sort(*words, "--on-bad", "skip", "--out", tmp_path / "b", ranks=2)
    assert (tmp_path / "b" / "sorted.csv").read_text() == "a,b\n2,w\n3,x\n"
    result = json.loads((tmp_path / "b" / "result.json").read_text())
    assert (result["rows"], result["left_out"]) == (2, 2)


@pytest.mark.parametrize("content", ["a,b\n", "a,b", "a,b\n1,2\n"])
def test_sort_csv_with_fewer_rows_than_ranks_is_complete(tmp_path, content):
    (tmp_path / "a.csv").write_text(content)
    sort("--input", tmp_path / "a.csv", "--by", "-b,a", "--out", tmp_path / "a", ranks=3)
    assert (tmp_path / "a" / "sorted.csv").read_text() == content.rstrip("\n") + "\n"


@pytest.fixture
def parquet(tmp_path):
    """Two Parquet files with columns of many types, and the whole table."""

    def some(values):
        return [None if RNG.random() < 0.1 else value for value in values]

    numbers = RNG.integers(-9, 9, ROWS)
    table = pa.table(
        {
            "id": pa.array(range(ROWS), pa.int32()),
            "country": pa.array(some(RNG.choice(COUNTRIES[:2] + COUNTRIES[3:], ROWS).tolist())).dictionary_encode(),
            "price": pa.array(some(RNG.choice([1.5, -2.5, 0.0, np.nan], ROWS).tolist()), pa.float32()),
            "time": pa.array(some(numbers.tolist()), pa.timestamp("ms", "Europe/Oslo")),
            "day": pa.array(numbers.astype("M8[D]")),
            "wide": pa.array(some([Decimal(int(n)) * 10**20 for n in numbers]), pa.decimal128(38, 2)),
            "flag": pa.array(some((numbers > 0).tolist())),
            "big": pa.array(RNG.integers(0, 1 << 64, ROWS, np.uint64)),
            "bytes": pa.array(some([b"%02d" % (n + 9) for n in numbers]), pa.binary(2)),
        },
    ).replace_schema_metadata({"origin": "a test"})
    pq.write_table(table.slice(0, 1200), tmp_path / "a.parquet", row_group_size=500, compression="zstd")
    pq.write_table(table.slice(1200), tmp_path / "b.parquet", row_group_size=700)
    return tmp_path, table


@pytest.mark.parametrize(
    "by", ["country,-price", "-country,wide", "-wide,flag,-id", "flag,-time,bytes", "-day,-bytes", "big"]
)
def test_sort_parquet_keeps_types_and_order_on_1_to_3_ranks(parquet, by):
    folder, table = parquet
    files = set()
    for ranks in (1, 2, 3) if by == "country,-price" else (3,):
        out = folder / str(ranks)
        sort(
            "--input", f"{folder}/*.parquet", "--by", by, "--chunk", 9000, "--block", 30_000, "--out", out, ranks=ranks
        )
        files.add((out / "sorted.parquet").read_bytes())
    assert len(files) == 1
    result, plain = (
        pq.read_table(out / "sorted.parquet"),
        table.set_column(1, "country", table["country"].cast("string")),
    )
    expected = table.take(order_of(plain, *by.split(",")))
    assert result.schema.equals(table.schema, check_metadata=True)
    assert result["id"].to_pylist() == expected["id"].to_pylist()
    assert result.drop(["price", "country"]).equals(expected.drop(["price", "country"]))
    assert result["country"].to_pylist() == expected["country"].to_pylist()
    kinds = {pq.read_metadata(out / "sorted.parquet").row_group(0).column(k).compression for k in range(9)}
    assert kinds == {"ZSTD"}
    nulls_last = [(key.removeprefix("-"), "descending" if key[0] == "-" else "ascending") for key in by.split(",")]
    if not {"price", "country"} & {name for name, _ in nulls_last}:
        numbered = plain.append_column("row", pa.array(range(ROWS)))
        arrow_order = pc.sort_indices(numbered, sort_keys=[*nulls_last, ("row", "ascending")])
        assert result["id"].to_pylist() == table["id"].take(arrow_order).to_pylist()


def test_sort_parquet_stopped_while_writing_resumes(parquet):
    folder, _ = parquet
    words = ("--input", f"{folder}/*.parquet", "--by", "-id", "--chunk", 9000, "--block", 30_000)
    whole = sort(*words, "--out", folder / "whole", ranks=1)
    out = folder / "stopped"
    sort(*words, "--out", out, "--stop-at", whole["steps"] - 2, ranks=2, code=75)
    done = run_anyrank("resume", out, "--json", "--quiet", ranks=3)
    assert done.returncode == 0, done.stderr
    assert (out / "sorted.parquet").read_bytes() == (folder / "whole" / "sorted.parquet").read_bytes()
    assert json.loads(done.stdout.splitlines()[-1])["digest"] == whole["digest"]


def test_sort_tables_bad_input_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "b.csv").write_text("a,c\n1,2\n")
    (tmp_path / "bad.parquet").write_text("PAR1")
    np.save(tmp_path / "a.npy", np.arange(3))
    pq.write_table(pa.table({"a": [1], "list": [[1]]}), tmp_path / "list.parquet")
    pq.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"a": [1], "b": [2], "more": [3]}), tmp_path / "a2.parquet")
    for names, words, message in (
        ("a.csv", (), "--by is missing: name the columns to sort by"),
        ("a.csv", ("--by", "x"), "has no column 'x'. They are a, b"),
        ("a.csv", ("--by", "a,-a"), "--by 'a,-a' must name each key once"),
        ("a.csv", ("--by", "a", "--key", "a"), "name keys twice"),
        ("a.csv", ("--by", "a", "--types", "a"), "--types 'a' must be COLUMN=TYPE"),
        ("a.csv", ("--by", "a", "--quote", "ab"), "--quote 'ab' must be one ASCII character"),
        ("a.csv", ("--by", "a", "--output", "x.parquet"), "must end in .csv, as --input does"),
        ("*.csv", ("--by", "a"), "b.csv has the columns a, c with the delimiter ','"),
        ("none.csv", ("--by", "a"), "cannot be read (No such file or directory)"),
        ("a.*", ("--by", "a"), "name one .npy or .h5 file, or CSV files, or Parquet files"),
        ("bad.parquet", ("--by", "a"), "bad.parquet cannot be read as a table"),
        ("a*.parquet", ("--by", "a"), "a2.parquet has column 'more', which"),
        ("list.parquet", ("--by", "a"), "column 'list' cannot be sorted: it has type list<element: int64>"),
    ):
        assert message in sort("--input", f"{tmp_path}/{names}", *words, "--out", tmp_path / "out", ranks=2, code=2)
        assert not (tmp_path / "out").exists()


def test_sort_by_is_parsed_with_quotes_and_directions():
    assert parse_by('a, -b , "-c,d"') == (Key("a"), Key("b", True), Key("-c,d"))
    assert parse_by('-"x"') == (Key("x", True),) and parse_by("-") == (Key("", True),) and parse_by("") == ()
    for text in ("a,a", "a,-a", "a,", ","):
        with pytest.raises(UsageError, match="must name each key once"):
            Sort(input="x.csv", by=text)


@pytest.mark.ranks(1, 2, 3, 4)
def test_text_codes_sort_like_the_texts_of_all_ranks(world):
    pool = [b"", b"a", b"a\0", b"b", b"b" * 200, b"b" * 200 + b"c", "ø".encode(), b"\xff"]
    for size in (0, 1, 5, len(pool)):
        own = [pool[k] for k in np.random.default_rng(world.rank).permutation(len(pool))[: size * (world.rank != 1)]]
        codes = text_codes(world, Text.of(own)).tolist()
        pairs = sorted({pair for part in world.comm.allgather([*zip(own, codes, strict=True)]) for pair in part})
        check_collective(world, [code for _, code in pairs] == sorted({code for _, code in pairs}), f"{pairs}")
        check_collective(world, len({text for text, _ in pairs}) == len(pairs), f"{pairs}")


@pytest.mark.ranks(1, 2)
def test_table_rows_texts_beyond_memory_are_refused(world, tmp_path):
    path = tmp_path / "a.csv"
    if world.rank == 0:
        path.write_text("a\n" + "".join(f"text {k}\n" for k in range(500)))
    world.barrier()
    rows = table_rows(str(path), [Key("a")], world, "error", {}, CsvOptions())
    with pytest.raises(AnyrankError, match=r"the texts of a take more than \d+ bytes on this rank.*--memory-limit"):
        rows.prepare(5000)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_sort_by_a_folder_name_is_refused(tmp_path, suffix):
    folder = tmp_path / "m=1"
    folder.mkdir()
    (folder / "a.csv").write_text("k,x\nb,1\na,2\n")
    if suffix == "parquet":
        (folder / "a.csv").unlink()
        pq.write_table(pa.table({"k": ["b", "a"], "x": [1, 2]}), folder / "a.parquet")
    done = run_anyrank("run", "sort", "--input", tmp_path, "--by", "m,-x", "--out", tmp_path / "o", ranks=None)
    assert done.returncode == 2 and "the key 'm' is the name of a folder" in done.stderr


@pytest.mark.ranks(2, 3)
def test_sort_parquet_error_of_one_rank_is_that_of_all(world, tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    on_root(world, lambda: pq.write_table(pa.table({"a": [3, 1, 2, 5]}), path, row_group_size=1))
    program, state = Sort(input=str(path), by="a", output=str(tmp_path / "o.parquet")), State(world)
    program.declare(state)
    if world.rank == 1:
        monkeypatch.setattr(ParquetRows, "to_arrow", lambda self, columns: 1 // 0)
    with pytest.raises(AnyrankError, match="rank 1: ZeroDivisionError"):
        while state.step < program.steps:
            program.step(state)
            state.step += 1


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "spare"), [("csv", 4), ("parquet", 47)])
def test_sort_tables_ten_times_the_memory_gives_the_same(tmp_path, suffix, spare):
    """The rows are ten times as large as the memory that --memory-limit leaves for them, beside libraries and code."""
    rows, path = 2_000_000 if suffix == "csv" else 6_000_000, tmp_path / f"a.{suffix}"
    ids = pa.array(RNG.integers(0, 10**15, rows))
    table = pa.table({"id": ids, "text": pc.binary_join_element_wise(*[ids.cast("string")] * 7, "-")})
    write = pa.csv.write_csv if suffix == "csv" else partial(pq.write_table, row_group_size=20_000, compression="none")
    write(table, path)
    words = ("--input", path, "--by", "id", "--block", 3_000_000)
    refused = sort(*words, "--memory-limit", "1MB", "--out", tmp_path / "refused", ranks=2, code=2)
    enough = int(re.search(r"Use --memory-limit (\d+)MB or more", refused)[1]) + spare
    assert path.stat().st_size > 10 * (16 + spare) * 10**6
    summary = sort(*words, "--memory-limit", f"{enough}MB", "--out", tmp_path / "limited", ranks=2)
    assert summary["memory"]["peak"] <= enough * 10**6
    sort(*words, "--out", tmp_path / "whole", ranks=1)
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("limited", "whole")]
    assert results[0]["digest"] == results[1]["digest"] and results[0]["rows"] == rows
    files = [(tmp_path / name / f"sorted.{suffix}").read_bytes() for name in ("limited", "whole")]
    assert files[0] == files[1]


def test_sort_parquet_block_beyond_the_memory_is_refused(tmp_path):
    pq.write_table(pa.table({"a": RNG.integers(0, 10**15, 3 * 10**6)}), tmp_path / "a.parquet", compression="none")
    words = ("--input", tmp_path / "a.parquet", "--by", "a", "--out", tmp_path / "o", "--memory-limit")
    enough = int(re.search(r"Use --memory-limit (\d+)MB or more", sort(*words, "1MB", ranks=2, code=2))[1])
    message = sort(*words, f"{enough + 30}MB", ranks=2, code=2)
    assert re.search(
        r"--block 134217728 takes \d+ bytes of memory while it is written.* Use a smaller --block", message
    )
    assert message.count("anyrank:") == 1
