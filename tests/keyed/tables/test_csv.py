"""CSV: complete lines for any cut; a bad line is refused with its number, or left out and counted."""

from __future__ import annotations

import pyarrow as pa
import pytest
from keyed.tables.samples import rows_of, type_names

from anyrank.errors import AnyrankError, UsageError
from anyrank.keyed.files import COMPRESSED
from anyrank.keyed.tables import TableFiles
from anyrank.keyed.tables.columns import ColumnSpec, parse_key
from anyrank.keyed.tables.dialect import CsvOptions
from anyrank.keyed.types import parse_type
from anyrank.world import World


@pytest.fixture(scope="module")
def alone():
    world = World()
    yield world
    world.close()


@pytest.fixture
def table(alone, tmp_path):
    def read(text, *columns, block=None, suffix="csv", chunk=None, **options):
        path = tmp_path / f"log.{suffix}"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        files = TableFiles(str(path), [parse_key(w) if isinstance(w, str) else w for w in columns], alone, **options)
        for file in files.files:
            file.block = block or file.block
        return files, rows_of(files, chunk or max(1, files.size))

    return read


TEXT, INT64, UINT64 = map(parse_type, ("text", "int64", "uint64"))
NUMBER = ColumnSpec("x", role="number")


def test_csv_quotes_crlf_blank_lines_and_nulls_are_read(table):
    text = '\ufeffname,x,"a ""b"""\r\n"a, b",1,2\r\n\r\n,NA,""\r\n"say ""hi""",null,z\r\nlast,-4,'
    files, result = table(text, "name", NUMBER, 'a "b"')
    assert result == {
        "name": ["a, b", None, 'say "hi"', "last"],
        "x": [1, None, None, -4],
        'a "b"': ["2", None, "z", None],
    }
    assert type_names(files) == {"name": "text", "x": "int64", 'a "b"': "text"}


def test_csv_types_are_those_of_all_rows_or_given(table):
    files, _ = table("i,f,b,d,e,u\n1,2.5,true,2024-01-01,,18446744073709551615\n", *"ifbdeu")
    assert [*type_names(files).values()] == ["int64", "float64", "text", "text", "text", "uint64"]
    files, result = table("i,u\n007,18446744073709551615\n", *"iu", types={"i": TEXT, "u": UINT64})
    assert result == {"i": ["007"], "u": [2**64 - 1]}
    with pytest.raises(UsageError, match="--types no: no CSV file has this column"):
        table("i\n1\n", "i", types={"no": TEXT})
    files, result = table("i\tj\n1\t2\n", *"ij", suffix="tsv")
    assert result == {"i": [1], "j": [2]}


def test_csv_integers_and_floats_of_files_become_floats(alone, tmp_path):
    for name, lines in (("a", "1\n2"), ("b", "0.5"), ("c", ""), ("d", "NA\n\n4")):
        (tmp_path / f"{name}.csv").write_text("x,y\n" + "".join(f"{line},\n" for line in lines.split()))
    files = TableFiles(str(tmp_path), [NUMBER], alone)
    assert type_names(files) == {"x": "float64"} and rows_of(files, files.size) == {"x": [1.0, 2.0, 0.5, None, 4.0]}
    (tmp_path / "e.csv").write_text("x\nword\n")
    with pytest.raises(UsageError, match="column 'x' is text and must be numbers to be added"):
        TableFiles(str(tmp_path), [NUMBER], alone)


@pytest.mark.parametrize("text", ["", "x", "x\n", "x\n\n\r\n", "\n\n"])
def test_csv_without_rows_is_empty_and_without_header_refused(table, text):
    if text.strip() == "x":
        assert table(text, "x")[1] == {"x": []}
    else:
        with pytest.raises(UsageError, match=r"log.csv: the first line must have distinct column names"):
            table(text, "x")


def test_csv_every_cut_reads_every_line_once(table):
    text = "n,x\n" + "".join(f"{n},{'y' * (n % 5)}\n" for n in range(12))
    for chunk in range(1, len(text) + 1):
        _, result = table(text, "n", block=7, chunk=chunk)
        assert result["n"] == [*range(12)], chunk


BROKEN = "x,t\n1,2024-01-01\n\n2\n3,a,b\nfour,2024-01-02\n5,2024-02-30\n6,2024-01-03\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2\n", "line 4 has 1 fields, not 2: '2'"),
        ("3,a,b\n", "line 4 has 3 fields, not 2: '3,a,b'"),
        ("four,2024-01-02\n", "line 4: x 'four' is not int64, the type of the column"),
        ("5,2024-02-30\n", "line 4: t '2024-02-30' is not a time"),
        ('3,x"y,"\n"\n', "line 4 has 3 fields, not 2"),
        ('"3\n",x"y\n', 'line 4 has a quote and a line end inside fields: \'"3\\\\n",x"y\' can be read as two rows'),
    ],
)
@pytest.mark.parametrize("block", [8, 1000])
def test_csv_bad_line_is_refused_with_its_number(table, line, message, block):
    with pytest.raises(UsageError, match=message):
        table(
            "x,t\n1,2024-01-01\n\n" + line + "6,2024-01-03\n",
            NUMBER,
            "date(t)",
            block=block,
            types={"x": INT64},
        )


@pytest.mark.parametrize("block", [1, 30, 1000])
def test_csv_bad_lines_are_left_out_and_counted(table, block):
    files, result = table(BROKEN, NUMBER, "date(t)", "t", block=block, on_bad="skip", types={"x": INT64})
    assert result == {"x": [1, 6], "date(t)": [19723, 19725], "t": ["2024-01-01", "2024-01-03"]}
    assert files.bad.count == 4 and "log.csv: line 4 has 1 fields" in files.bad.first


def test_csv_invalid_utf8_is_kept_as_escapes(table):
    files, result = table(b"k,x\n\xff\xfe,1\nk,2\n\xff,zz\n", "k", NUMBER, on_bad="skip", types={"x": INT64})
    assert result == {"k": ["\\xff\\xfe", "k"], "x": [1, 2]} and files.bad.count == 1


def test_csv_times_with_and_without_zones_are_read(table):
    times = {
        "2024-01-02": 1704153600,
        "2024-01-02 03:04": 1704164640,
        "2024-01-02T03:04:05": 1704164645,
        "2024-01-02T03:04:05.250Z": 1704164645,
        "2024-01-02T03Z": 1704164400,
        "2024-01-02T00:30:00+01:00": 1704151800,
        "2024-01-01 23:30:00-0130": 1704157200,
        "1969-12-31T23:59:59+00": -1,
    }
    _, result = table("t\n" + "\n".join(times), "date(t)", "hour(t)", "year(t)")
    assert result["date(t)"] == [time // 86400 for time in times.values()]
    assert result["hour(t)"] == [time % 86400 // 3600 for time in times.values()]
    assert result["year(t)"] == [2024] * 7 + [1969]
    for wrong in ("2024-13-01", "2024-01-02T25:00:00Z", "yesterday", "2024-01-02T03:04:05+99:99", "20240102T030405"):
        with pytest.raises(UsageError, match=r"line 3: t '.*' is not a time"):
            table(f"t\n2024-01-02T03:04:05Z\n{wrong}\n", "date(t)")


def test_csv_null_times_are_null(table):
    _, result = table("t,x\n2024-01-02,1\n,2\n", "date(t)", NUMBER)
    assert result == {"date(t)": [19724, None], "x": [1, 2]}
    _, result = table("t\n5\nNA\n", "date(t)")
    assert result == {"date(t)": [0, None]}


QUOTED = 'k,"x ""y""\n z",n\n"a\nb",1,6 pipes\r\n"say ""hi"",",2,"\r"\n\n"",,"\n\n"\nlast,4,5\'\r6,,""""\n'
QUOTED_ROWS = {
    "k": ["a\nb", 'say "hi",', None, "last", "6"],
    'x "y"\n z': ["1", "2", None, "4", None],
    "n": ["6 pipes", "\r", "\n\n", "5'", '"'],
}


@pytest.mark.parametrize("segment", [1, 3, 16, 1 << 20])
def test_csv_quoted_line_ends_are_read_at_every_cut(alone, tmp_path, monkeypatch, segment):
    monkeypatch.setattr("anyrank.keyed.tables.csv.SEGMENT", segment)
    monkeypatch.setattr("anyrank.keyed.tables.csv.WINDOW", 2)
    (tmp_path / "log.csv").write_bytes(QUOTED.encode())
    types = dict.fromkeys(QUOTED_ROWS, TEXT)
    files = TableFiles(str(tmp_path), [*map(ColumnSpec, QUOTED_ROWS)], alone, types=types)
    for block in (1, 9, 1000):
        files.files[0].block = block
        for chunk in range(1, len(QUOTED) + 1):
            assert rows_of(files, chunk) == QUOTED_ROWS, (block, chunk)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ("0 -7 12", "int64"),
        ("9223372036854775808 1", "uint64"),
        ("9223372036854775808 -1", "decimal(38, 0)"),
        ("1.5 2 -3e-5 nan", "float64"),
        ("007 7", "text"),
        ("+7", "text"),
        ("0x1A 26", "text"),
        ("true 1", "text"),
        ("1.5 9007199254740993", "text"),
        ("18446744073709551616", "decimal(38, 0)"),
        ("2024-01-01", "text"),
        ("1. 2", "text"),
    ],
)
def test_csv_keys_stay_as_written(table, values, name):
    rows = [[value] for value in values.split()]
    for order in (rows, rows[::-1]):
        for block in (1, 1000):
            files, result = table("k\n" + "\n".join(row[0] for row in order), "k", block=block)
            assert type_names(files) == {"k": name}
            if name == "text":
                assert result["k"] == [row[0] for row in order]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ("007 +1.0", "float64"),
        ("9223372036854775808 -1", "decimal(38, 0)"),
        ("123456789012345678901234567890", "decimal(38, 0)"),
        ("true false", "bool"),
        ("true 1", "text"),
        ("1 x", "text"),
        ("2024-01-01 NA", "date"),
        ("2024-01-01T00:00:00 9999-12-31T23:59:59", "timestamp[us]"),
        ("2024-01-01T00:00:00Z", "timestamp[us, tz=UTC]"),
        ("NA null", "float64"),
    ],
)
def test_csv_numbers_have_the_type_of_all_values(table, values, name):
    for order in (values.split(), values.split()[::-1]):
        for block in (1, 1000):
            spec = ColumnSpec("x", role="any" if name == "text" else "value")
            if name == "text":
                with pytest.raises(UsageError, match="column 'x' is text and must be numbers or times to be compared"):
                    table("x,y\n" + "".join(f"{v},\n" for v in order), ColumnSpec("x", role="value"), block=block)
            else:
                files, _ = table("x,y\n" + "".join(f"{v},\n" for v in order), spec, block=block)
                assert type_names(files) == {"x": name}


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("k;x\na,b;1,5\n", {"decimal": ","}),
        ("k\tx\na,b\t1.5\n", {}),
        ("k|x\na,b|1.5\n", {}),
        ("# one, two, three\nk,x\n#\n'a,b',1.5\n# \"\n", {"comment": "#", "quote": "'"}),
        ("a,b;1.5\n", {"header": False, "delimiter": ";"}),
    ],
)
def test_csv_dialects_are_found_or_given(table, text, options):
    key, number = ("k", "x") if options.get("header", True) else ("c1", "c2")
    _, result = table(text, key, ColumnSpec(number, role="number"), options=CsvOptions(**options))
    assert result == {key: ["a,b"], number: [1.5]}


def test_csv_encoding_is_converted(table):
    _, result = table("Straße,x\nJosé,1\n".encode("latin-1"), "Straße", options=CsvOptions(encoding="latin-1"))
    assert result == {"Straße": ["José"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delimiter": "::"}, "--delimiter '::' must be one ASCII character"),
        ({"delimiter": '"'}, "--delimiter, --quote and --comment must differ"),
        ({"comment": "\n"}, "--comment '\\\\n' must be one ASCII character that does not end a line"),
        ({"encoding": "klingon"}, "--encoding 'klingon' is not an encoding"),
        ({"encoding": "hex"}, "--encoding 'hex' is not an encoding"),
    ],
)
def test_csv_options_that_are_invalid_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        CsvOptions(**options).check()


@pytest.mark.parametrize(
    ("encoding", "stated"), [("utf-16", ""), ("utf-16-le", "utf-16-le"), ("utf-16", "utf-16"), ("utf-32", "utf-32")]
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_csv_in_utf_16_is_converted(alone, tmp_path, encoding, stated, suffix):
    text = QUOTED.encode().decode().encode(encoding)
    (tmp_path / f"log.csv{suffix}").write_bytes(compress(text, suffix) if suffix else text)
    (tmp_path / "utf-8.csv").write_text(QUOTED)
    options = {"options": CsvOptions(encoding=stated)} if stated else {}
    files = TableFiles(str(tmp_path / f"log.csv{suffix}"), [ColumnSpec("k"), ColumnSpec("n")], alone, **options)
    for file in files.files:
        file.block = 7
    expected = rows_of(TableFiles(str(tmp_path / "utf-8.csv"), [ColumnSpec("k"), ColumnSpec("n")], alone), 1000)
    assert expected["k"] and rows_of(files, 13) == expected


def test_csv_in_broken_utf_16_is_refused(alone, tmp_path):
    (tmp_path / "log.csv").write_bytes("k\n1\n".encode("utf-16") + b"\0\xd8")
    with pytest.raises(UsageError, match=r"log.csv is not written in utf-16 \(.*\). Name its --encoding"):
        TableFiles(str(tmp_path), [ColumnSpec("k")], alone)


def test_csv_of_one_endless_record_is_refused(alone, tmp_path, monkeypatch):
    monkeypatch.setattr("anyrank.keyed.tables.csv.LONGEST", 1 << 12)
    for name, data in (("a.csv", b"k\n" + bytes(1 << 15)), ("a.csv.gz", compress(b"k\n" + bytes(1 << 15), ".gz"))):
        (tmp_path / name).write_bytes(data)
        monkeypatch.setattr("anyrank.keyed.tables.csv.CsvFile.block", 1 << 11)
        with pytest.raises(UsageError, match=f"{name}: the record at byte 2 has more than 4096 bytes. Divide it"):
            TableFiles(str(tmp_path / name), [ColumnSpec("k")], alone)


def test_csv_value_of_another_type_has_a_fix_that_keeps_it(table):
    for value, type_ in (("2.5", "float64"), ("x", "text")):
        with pytest.raises(UsageError, match=f"line 3: x '{value}' is not int64.*Use --types 'x={type_}' to keep such"):
            table(f"x\n1\n{value}\n", "x", types={"x": INT64})


def compress(data, suffix):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, COMPRESSED[suffix]) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_csv_that_is_compressed_is_read_once(alone, tmp_path, suffix):
    (tmp_path / f"log.csv{suffix}").write_bytes(compress(QUOTED.encode(), suffix))
    (tmp_path / "z.csv").write_bytes(QUOTED.encode())
    files = TableFiles(str(tmp_path), [*map(ColumnSpec, QUOTED_ROWS)], alone, types=dict.fromkeys(QUOTED_ROWS, TEXT))
    for block in (1, 9, 1000):
        files.files[0].block = block
        for chunk in (1, 7, 50, 1000):
            assert rows_of(files, chunk) == {name: 2 * rows for name, rows in QUOTED_ROWS.items()}


def test_csv_bad_line_of_a_compressed_file_is_named(alone, tmp_path):
    (tmp_path / "log.csv.gz").write_bytes(compress(b'k,x\r\n"a\n",1\nb\n', ".gz"))
    files = TableFiles(str(tmp_path), [ColumnSpec("k")], alone)
    with pytest.raises(UsageError, match=r"log.csv.gz: line 4 has 1 fields, not 2: 'b'"):
        rows_of(files, 1000)


def test_csv_that_is_not_what_its_suffix_says_is_refused(alone, tmp_path):
    (tmp_path / "log.csv.gz").write_bytes(b"k,x\n1,2\n")
    with pytest.raises(UsageError, match=r"log.csv.gz cannot be read as a table: .*log.csv.gz cannot be decompressed"):
        TableFiles(str(tmp_path), [ColumnSpec("k")], alone)
    (tmp_path / "log.csv.gz").write_bytes(compress(b"k,x\n" + b"1,2\n" * 100_000, ".gz")[:-100])
    with pytest.raises(AnyrankError, match=r"log.csv.gz cannot be decompressed"):
        files = TableFiles(str(tmp_path), [ColumnSpec("k")], alone)
        rows_of(files, files.size)


def test_csv_in_another_encoding_is_refused(table):
    with pytest.raises(UsageError, match=r"log.csv is not written in --encoding ascii. Name its encoding"):
        table("k\nJosé\n".encode("latin-1"), "k", options=CsvOptions(encoding="ascii"))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("end", ['"a,1\n', 'b,"', 'b,"\nc,1\n'])
def test_csv_quote_that_is_not_closed_is_refused(alone, tmp_path, end, compressed):
    text = ("k,x\nb,2\n" + end).encode()
    (tmp_path / ("log.csv" + ".gz" * compressed)).write_bytes(compress(text, ".gz") if compressed else text)
    with pytest.raises(UsageError, match=r"log.csv.* ends in a field whose quote is not closed"):
        TableFiles(str(tmp_path), [ColumnSpec("k"), ColumnSpec("x")], alone, on_bad="skip")


def test_csv_text_after_a_closed_quote_is_part_of_the_field(table):
    assert table('k,x\n"b"c,1\n', "k", "x")[1] == {"k": ["bc"], "x": [1]}
