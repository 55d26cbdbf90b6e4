"""Interpolation to another resolution: values of definitions written with fractions, the same on all ranks."""

from __future__ import annotations

from fractions import Fraction
from math import floor, fsum

import numpy as np
import pytest
from ranks import check_collective

from anyrank.errors import UsageError
from anyrank.state import State
from anyrank.storage.regrid import METHODS, Axis, regrid

SIZES = [(5, 8), (8, 5), (6, 12), (12, 6), (7, 7), (1, 4), (9, 1), (64, 3)]
KINDS = [(False, False), (False, True), (True, False), (True, True)]


def matrix(axis: Axis, method: str) -> np.ndarray:
    """The weights of the points of the file for each new point, by the definitions in the docstring of the module."""
    (old, new), result = axis.cells, np.zeros((axis.new, axis.old))
    shift = Fraction(0) if axis.faces else Fraction(1, 2)
    half_old, half_new = Fraction(1, 2 * old), Fraction(1, 2 * new)
    walls = not axis.periodic
    for i in range(axis.new):
        x = (i + shift) / new
        if method == "conservative":
            low, high = x - half_new, x + half_new
            if walls:
                low, high = max(low, Fraction(0)), min(high, Fraction(1))
            for j in range(-2 * old, 3 * old) if axis.periodic else range(axis.old):
                at = (j + shift) / old
                a, b = at - half_old, at + half_old
                if walls:
                    a, b = max(a, Fraction(0)), min(b, Fraction(1))
                result[i, j % axis.old] += float(max(min(b, high) - max(a, low), Fraction(0)) / (high - low))
        else:
            p = x * old - shift
            points = {floor(p + Fraction(1, 2)): 1.0}
            if method == "linear":
                points = {floor(p): float(1 - (p - floor(p))), floor(p) + 1: float(p - floor(p))}
            for j, weight in points.items():
                result[i, j % axis.old if axis.periodic else min(max(j, 0), axis.old - 1)] += weight
    return result


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("faces", "periodic"), KINDS)
@pytest.mark.parametrize("sizes", SIZES)
def test_stencil_equals_the_definition(method, faces, periodic, sizes):
    more = faces and not periodic
    axis = Axis(sizes[0] + more, sizes[1] + more, faces, periodic)
    points, weights = axis.stencil(method, np.arange(axis.new))
    found = np.zeros((axis.new, axis.old))
    for position, weight in zip(points, weights, strict=True):
        np.add.at(found, (np.arange(axis.new), position % axis.old), weight)
    np.testing.assert_allclose(found, matrix(axis, method), rtol=0, atol=1e-15)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-15)


def fields(world, split: str, n: int, boundary: str):
    """Fields at the centres, at the faces of each axis, and with components."""
    grid = State(world, split).grid((n, n + 2), dims=("y", "x"), boundary={"y": boundary, "x": "periodic"})
    return [
        grid.field("c"),
        grid.field("v", at="y"),
        grid.field("u", at="x", dtype="f4"),
        grid.field("w", at=("y", "x"), components=2, dtype="c16"),
    ]


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("boundary", ["reflect", "periodic"])
def test_regrid_does_not_depend_on_the_ranks(world, method, boundary):
    random = np.random.default_rng(1)
    for n in (5, 13, 24):
        for small, field in zip(fields(world, "auto", 9, boundary), fields(world, "bricks", n, boundary), strict=True):
            old = random.standard_normal(small.shape).astype(small.dtype)
            field[...] = regrid(old, field, method)
            alone = State(type(world)(world.comm.Split(world.rank))) if world.size > 1 else None
            whole = field.allgather()
            first = len(field.components)
            dense = [
                matrix(Axis(a, b, axis in field.on_faces, field.periodic[axis]), method)
                for axis, (a, b) in enumerate(zip(old.shape[first:], whole.shape[first:], strict=True))
            ]
            expected = np.einsum("ai,bj,...ij->...ab", *dense, old)
            close = np.allclose(whole, expected, rtol=0, atol=1e-6 if field.dtype == "f4" else 1e-14)
            check_collective(world, close, f"{field.name} {n}")
            if alone is not None:
                (same,) = (each for each in fields(alone.world, "rows", n, boundary) if each.name == field.name)
                check_collective(world, regrid(old, same, method).tobytes() == whole.tobytes(), f"bits of {field.name}")


@pytest.mark.ranks(1, 3)
@pytest.mark.parametrize(("faces", "boundary"), [("centre", "reflect"), ("y", "reflect"), ("y", "periodic")])
def test_conservative_keeps_the_integral(world, faces, boundary):
    old = State(world).grid((17,), dims=("y",), boundary=boundary).field("old", at=faces)
    values = np.random.default_rng(2).standard_normal(old.shape)

    def integral(array: np.ndarray, cells: int) -> float:
        weights = np.ones(len(array))
        if len(array) > cells:
            weights[[0, -1]] = 0.5
        return fsum((array * weights).tolist()) / cells

    for n in (5, 17, 40, 101):
        new = State(world).grid((n,), dims=("y",), boundary=boundary).field("new", at=faces)
        new[...] = regrid(values, new, "conservative")
        found, expected = integral(new.allgather(), n), integral(values, 17)
        check_collective(world, abs(found - expected) <= 4e-16 * np.abs(values).mean() * 4, f"{found} {expected}")


@pytest.mark.ranks(1)
def test_infinities_stay_where_they_are(world):
    old = np.array([0.0, np.inf, 0.0, 0.0])
    field = State(world).grid((8,), boundary="reflect").field("f")
    for method, bad in (("nearest", {2, 3}), ("linear", {1, 2, 3, 4}), ("conservative", {2, 3})):
        found = regrid(old, field, method)
        assert {*np.flatnonzero(~np.isfinite(found)).tolist()} == bad and not np.isnan(found).any(), method


def test_axis_that_cannot_be_interpolated_is_refused():
    with pytest.raises(UsageError, match="1 points cannot be interpolated to 5"):
        Axis(1, 5, True, False).check("u")
    with pytest.raises(UsageError, match=r"less than 2\^60"):
        Axis(2**31, 2**30, False, False).check("u")
