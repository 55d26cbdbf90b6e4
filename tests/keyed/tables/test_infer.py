"""Types that are inferred: reading numbers as numbers finds the same types as reading them as text."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyrank.keyed.tables.csv import CsvFile, Records
from anyrank.keyed.tables.dialect import CsvOptions
from anyrank.keyed.tables.infer import likely_type, possible_types
from anyrank.keyed.tables.source import BadRows

CELLS = [
    "",
    "0",
    "-7",
    "12",
    "+5",
    "007",
    "0x1A",
    " 3",
    "4 ",
    "1.5",
    "1,5",
    "-2e3",
    "nan",
    "NA",
    "true",
    "9" * 16,
    "9" * 19,
]
CELLS += ["9" * 25, "2024-01-01", "2024-01-01T10:00:00Z", "word", '"8"', '""', '"a""b"', '"two\nlines"', "\u00a05"]


@pytest.mark.parametrize("role", ["key", "number", "operand", "time"])
@given(
    blocks=st.lists(st.lists(st.sampled_from(CELLS), min_size=1, max_size=4), min_size=1, max_size=4),
    decimal=st.sampled_from([".", ","]),
)
def test_infer_numbers_read_as_numbers_have_the_same_types(tmp_path_factory, role, blocks, decimal):
    path = tmp_path_factory.getbasetemp() / "infer.csv"
    path.write_text("x;y\n", encoding="utf-8")
    file = CsvFile(path, 4, CsvOptions(delimiter=";", decimal=decimal))
    known = as_text = None
    for cells in blocks:
        data = "".join(f"{cell};1\n" for cell in cells).encode()
        fast, slow = Records(file, 4, data), Records(file, 4, data)
        if not fast.convert({"x": likely_type(role, known)}):
            fast.read({"x": pa.large_binary()}, BadRows(skip=True))
        slow.read({"x": pa.large_binary()}, BadRows(skip=True))
        known = possible_types(fast.columns["x"], role, file.dialect, known)
        as_text = possible_types(slow.columns["x"], role, file.dialect, as_text)
        assert known == as_text
