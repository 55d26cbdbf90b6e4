"""Mistakes in a program: one message with name, value, rule and fix, once for all ranks, status 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ranks import run_anyrank

WRONG = Path(__file__).with_name("wrong.py")
#: The case of `wrong.py`, and parts of its message.
CASES = {
    "boundary": ("grid: boundary of axis y: 'open' must be one of antireflect, ", "or a function."),
    "name": ("'T' is declared twice",),
    "layer": ("field T, upper side of axis y: the result of function cut has the shape (1, 11), and a layer",),
    "whole": (
        "field T: values of shape (12, 12) cannot be stored in this part of the block, of shape (",
        "layout.slices",
    ),
    "component": ("field u: index 9 is out of bounds for axis 0 with size 9.", "the components first. Use state.u.at("),
    "point": ("field T: the point (12, 0) has the index 12 along axis 0, which must be a whole number from 0 to 11",),
    "file": ("field T: its shape is (12, 10), and that of the array in plate.npy is (10, 12). They must be equal",),
    "returned": ("kernel returned returned a value of type ndarray", "its first argument, such as new[...] = values"),
    "distant": ("kernel distant at wrong.py:19: ", "T has a halo of 1x1. A kernel that reads neighbours at a distance"),
}


@pytest.mark.parametrize("case", CASES)
def test_program_mistake_is_refused_once_with_status_2(tmp_path, case):
    np.save(tmp_path / "plate.npy", np.zeros((10, 12)))
    done = run_anyrank("run", WRONG, "--case", case, "--out", "run", ranks=3, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    text = " ".join(done.stderr.split())
    assert "Traceback" not in text and not (tmp_path / "run" / "result.json").exists()
    assert [text.count(part) for part in CASES[case]] == [1] * len(CASES[case]), done.stderr
