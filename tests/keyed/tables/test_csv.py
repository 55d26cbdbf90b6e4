"""CSV: complete lines for any cut; a bad line is refused with its number, or left out and counted."""

from __future__ import annotations

import pytest
from keyed.tables.samples import rows_of

from anyrank.errors import UsageError
from anyrank.keyed.tables import TableFiles
from anyrank.keyed.values import ColumnSpec, parse_key
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
        files.block = block or files.block
        return files, rows_of(files, chunk or max(1, files.size))

    return read


NUMBER = ColumnSpec("x", number=True)


def test_csv_quotes_crlf_blank_lines_and_nulls_are_read(table):
    text = '\ufeffname,x,"a ""b"""\r\n"a, b",1,2\r\n\r\n,NA,""\r\n"say ""hi""",null,z\r\nlast,-4,'
    files, result = table(text, "name", NUMBER, 'a "b"')
    assert result == {
        "name": ["a, b", None, 'say "hi"', "last"],
        "x": [1, None, None, -4],
        'a "b"': ["2", None, "z", None],
    }
    assert files.kinds == {"name": "text", "x": "int64", 'a "b"': "text"}


def test_csv_types_are_those_of_the_first_rows_or_given(table):
    files, _ = table("i,f,b,d,e,u\n1,2.5,true,2024-01-01,,18446744073709551615\n", *"ifbdeu")
    assert [*files.kinds.values()] == ["int64", "float64", "bool", "text", "text", "float64"]
    files, result = table("i,u\n007,18446744073709551615\n", *"iu", types={"i": "text", "u": "uint64"})
    assert result == {"i": ["007"], "u": [2**64 - 1]}
    with pytest.raises(UsageError, match="--types no: no CSV file has this column"):
        table("i\n1\n", "i", types={"no": "text"})
    files, result = table("i\tj\n1\t2\n", *"ij", suffix="tsv")
    assert result == {"i": [1], "j": [2]}


def test_csv_integers_and_floats_of_files_become_floats(alone, tmp_path):
    for name, lines in (("a", "1\n2"), ("b", "0.5"), ("c", ""), ("d", "NA\n\n4")):
        (tmp_path / f"{name}.csv").write_text("x,y\n" + "".join(f"{line},\n" for line in lines.split()))
    files = TableFiles(str(tmp_path), [NUMBER], alone)
    assert files.kinds == {"x": "float64"} and rows_of(files, files.size) == {"x": [1.0, 2.0, 0.5, None, 4.0]}
    (tmp_path / "e.csv").write_text("x\nword\n")
    with pytest.raises(UsageError, match=r"'x' is float64 in .*a.csv and text in .*e.csv"):
        TableFiles(str(tmp_path), [NUMBER], alone)


@pytest.mark.parametrize("text", ["", "x", "x\n", "x\n\n\r\n", "\n1\n"])
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
        (',"\n"\n', "line 4 opens a quote that it does not close"),
    ],
)
@pytest.mark.parametrize("block", [8, 1000])
def test_csv_bad_line_is_refused_with_its_number(table, line, message, block):
    with pytest.raises(UsageError, match=message):
        table("x,t\n1,2024-01-01\n\n" + line + "6,2024-01-03\n", NUMBER, "date(t)", block=block, types={"x": "int64"})


@pytest.mark.parametrize("block", [1, 30, 1000])
def test_csv_bad_lines_are_left_out_and_counted(table, block):
    files, result = table(BROKEN, NUMBER, "date(t)", "t", block=block, on_bad="skip", types={"x": "int64"})
    assert result == {"x": [1, 6], "date(t)": [19723, 19725], "t": ["2024-01-01", "2024-01-03"]}
    assert files.bad.count == 4 and "log.csv: line 4 has 1 fields" in files.bad.first


def test_csv_invalid_utf8_is_kept_as_escapes(table):
    files, result = table(b"k,x\n\xff\xfe,1\nk,2\n\xff,zz\n", "k", NUMBER, on_bad="skip", types={"x": "int64"})
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
