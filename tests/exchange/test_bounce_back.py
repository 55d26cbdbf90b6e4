"""Bounce-back walls of a lattice Boltzmann method (D2Q9), as a boundary function that permutes components."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ranks import check_collective

from anyrank import Kernel, State
from anyrank.kernel import BODIES
from anyrank.world import World

#: The velocities (x, y), the component of the opposite velocity, and the weights.
C = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, 1), (-1, -1), (1, -1))
OPPOSITE = (0, 3, 4, 1, 2, 7, 8, 5, 6)
W = (4 / 9, *(1 / 9,) * 4, *(1 / 36,) * 4)
FORCE = 1e-5
#: With this relaxation time the walls are exactly half a cell outside the nearest centres (X. He et al., Analytic
#: solutions of simple flows and analysis of nonslip boundary conditions, J. Stat. Phys. 87 (1997) 115-136).
EXACT = 0.5 + math.sqrt(3 / 16)


def stream_and_collide(new, f, tau):
    """Take the populations that arrive at each cell, and collide."""
    rows, columns = new.shape[-2:]
    collide(new, [f[k, 1 - cy : 1 - cy + rows, 1 - cx : 1 - cx + columns] for k, (cx, cy) in enumerate(C)], tau)


def collide(new, arrived, tau):
    """Relax the populations to their equilibrium, and add the force along x."""
    rho, u, v = moments(arrived)
    for k, (cx, cy) in enumerate(C):
        along = 3 * (cx * u + cy * v)
        equilibrium = W[k] * rho * (1 + along + 0.5 * along * along - 1.5 * (u * u + v * v))
        new[k] = arrived[k] - (arrived[k] - equilibrium) / tau + 3 * W[k] * FORCE * cx


STEP = Kernel(stream_and_collide)


def moments(f):
    rho = sum(f[1:], f[0])
    return rho, (f[1] - f[3] + (f[5] - f[6]) - (f[7] - f[8])) / rho, (f[2] - f[4] + (f[5] + f[6]) - (f[7] + f[8])) / rho


def bounce_back(along):
    """The boundary function: what left a cell towards a ghost cell comes back to it as the opposite population.

    A population with the velocity c arrives from the ghost cell at −c, so the ghost cell gets it from the cell at +c;
    `along` is the axis of the wall, 0 for x and 1 for y, on which the two are not at the same position.
    """

    def outside(inside, y, x, step):
        nearest, parts = inside[0], zip(OPPOSITE, C, strict=True)
        return np.stack([np.roll(nearest[opposite], -c[along], axis=1 - along) for opposite, c in parts])

    return outside


def lattice(state, cells, initial, closed=False):
    """A field of populations between two walls along x, or four."""
    sides = {"y": bounce_back(0), "x": bounce_back(1) if closed else "periodic"}
    f = state.grid(cells, dims=("y", "x"), boundary=sides).field("f", components=9)
    f[...] = initial[f.layout.slices]
    return f


def on_one_array(f, steps, closed):
    """The same by NumPy: populations that would arrive from outside are those that left, reversed."""
    y, x = np.indices(f.shape[1:])
    for _ in range(steps):
        arrived = []
        for k, (cx, cy) in enumerate(C):
            outside = (y - cy < 0) | (y - cy >= f.shape[1]) | (closed & ((x - cx < 0) | (x - cx >= f.shape[2])))
            arrived.append(np.where(outside, f[OPPOSITE[k]], np.roll(f[k], (cy, cx), (0, 1))))
        new = np.empty_like(f)
        collide(new, arrived, 0.7)
        f = new
    return f


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("closed", [False, True])
def test_bounce_back_at_walls_and_corners_is_that_of_one_array(world, closed):
    initial = np.array(W)[:, None, None] * (1 + 0.1 * np.random.default_rng(3).random((9, 12, 13)))
    expected = on_one_array(initial, 5, closed)
    for body, split, halo_steps in (
        ("auto", "rows", 1),
        ("auto", "columns", 2),
        ("auto", "bricks", 3),
        ("shim", "auto", 1),
    ):
        BODIES.prefer(body)
        f = lattice(State(world, split, halo_steps=halo_steps), (12, 13), initial, closed)
        for _ in range(5):
            f.advance(STEP, 0.7)
        check_collective(world, np.array_equal(f.allgather(), expected), f"{body}, {split}, {halo_steps}")
    BODIES.prefer("auto")


def flow_error(n, tau, steps):
    """The largest error of the velocity of a flow between two walls, relative to the maximum of the parabola."""
    f = lattice(State(World()), (n, 3), np.broadcast_to(np.array(W)[:, None, None], (9, n, 3)))
    for _ in range(steps):
        f.advance(STEP, tau)
    y, u = np.arange(n) + 0.5, moments(f.local)[1][:, 0] - FORCE / 2  # with half of the force of the last step
    curvature = 3 * FORCE / (2 * (tau - 0.5))
    return np.abs(u - curvature * y * (n - y)).max() / (curvature * n * n / 4)


def test_bounce_back_poiseuille_flow_is_the_parabola():
    """Up to the square of the Mach number: at this relaxation time the error of the scheme vanishes."""
    assert flow_error(6, EXACT, 600) < 1e-8


def test_bounce_back_poiseuille_flow_converges_in_second_order():
    coarse, fine = flow_error(4, 1.0, 250), flow_error(8, 1.0, 1000)
    assert fine < 0.006 and coarse / fine == pytest.approx(4, rel=1e-6)
