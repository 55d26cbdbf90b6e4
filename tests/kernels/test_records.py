"""Records of CSV: every body gives the reference's results, and those of Python's csv module at any cut."""

from __future__ import annotations

import csv
import io
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyrank.device import open_device
from anyrank.kernel import Kernel
from anyrank.kernels.records import INSIDE, NEXT, OPERATIONS, QUOTED, RECORD, STATES, classes_of, example

BODIES = ["reference", "cython"]
CLASSES = classes_of(b",")
CELLS = st.text(st.sampled_from('ab,"\n\r#é'), max_size=4)


def body(operation, name):
    return Kernel("records", operation).load(name, open_device(name))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("size", [0, 1, 100, 20_000])
def test_records_bodies_give_the_references_results(operation, size):
    result = []
    for name in BODIES:
        arguments, amount, unit = example(operation, size)
        result.append((body(operation, name)(*arguments), *map(np.array, arguments)))
        assert (amount, unit) == (size, "bytes")
    assert all(np.array_equal(a, b) for a, b in zip(*result, strict=True))


@pytest.mark.parametrize("name", BODIES)
@given(
    table=st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=8),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_records_begin_where_the_csv_module_began_them(name, table, end):
    lines = []
    for row in table:
        text = io.StringIO()
        quoting = csv.QUOTE_ALL if {*"\r\n"} & {*"".join(row)} else csv.QUOTE_MINIMAL
        csv.writer(text, lineterminator=end, quoting=quoting).writerow(row)
        lines.append(text.getvalue().encode())
    data = np.frombuffer(b"".join(lines), np.uint8)
    starts, fields, unclear = (
        np.zeros(len(data), np.int64),
        np.zeros(len(data), np.int64),
        np.zeros(len(data), np.uint8),
    )
    count = body("records", name)(data, CLASSES, starts, fields, unclear)
    assert starts[:count].tolist() == np.cumsum([0, *map(len, lines)])[:-1].tolist()
    assert (fields[:count] == 2).all() and not unclear[:count].any()


@pytest.mark.parametrize("name", BODIES)
@given(text=st.text(st.sampled_from('ab,"\n\r'), max_size=30), cuts=st.lists(st.integers(0, 30), max_size=4))
def test_records_maps_of_parts_compose_to_the_map_of_all(name, text, cuts):
    data, transitions = np.frombuffer(text.encode(), np.uint8), body("transitions", name)
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    state, found, last = RECORD, np.zeros(5, np.int64), -1
    for begin, end in pairwise(ends):
        part, states = np.ascontiguousarray(data[begin:end]), np.zeros(STATES, np.int64)
        body("scan", name)(part, CLASSES, state, -1, found)
        transitions(part, CLASSES, states)
        state = int(states[state])
        assert state == found[0]
        last = begin + int(found[2]) if found[2] >= 0 else last
    whole = np.zeros(5, np.int64)
    body("scan", name)(data, CLASSES, RECORD, -1, whole)
    assert (state, last) == (whole[0], whole[2])


@given(
    text=st.lists(st.sampled_from(["a", ",", "\n", "\r", ',"b"', '\n"c,\n""d"', ',""']), max_size=30).map("".join),
    end=st.text(st.sampled_from('a"#\n\r'), max_size=3),
    state=st.integers(0, STATES - 1),
    after=st.integers(-1, 30),
)
def test_records_scan_of_text_gives_the_references_results(text, end, state, after):
    data, comments = np.frombuffer((text + end).encode(), np.uint8), classes_of(b",", b'"', b"#")
    results = [np.zeros(5, np.int64) for _ in BODIES]
    for name, found in zip(BODIES, results, strict=True):
        body("scan", name)(data, comments, state, after, found)
    assert results[0].tolist() == results[1].tolist()


def test_records_next_states_are_those_of_the_docstring():
    assert NEXT.shape == (STATES, 6) and (NEXT[QUOTED, [0, 1, 3, 4, 5]] == QUOTED).all()
    assert NEXT[INSIDE, 2] == INSIDE  # a quote inside a field is one of its characters


@pytest.mark.parametrize("arguments", [(7, 5), (-1, 5), (0, 4)])
def test_records_wrong_arguments_are_refused(arguments):
    state, results = arguments
    with pytest.raises(ValueError, match=r"state|results"):
        body("scan", "cython")(np.zeros(3, np.uint8), CLASSES, state, 0, np.zeros(results, np.int64))
    with pytest.raises(ValueError, match="has class 9"):
        body("scan", "cython")(np.zeros(3, np.uint8), np.full(256, 9, np.uint8), 0, 0, np.zeros(5, np.int64))
