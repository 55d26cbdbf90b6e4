"""Weather: the shallow-water equations on a doubly periodic plane."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np

from anyrank import exact
from anyrank.elementary import cos, sin
from anyrank.exchange import gather
from anyrank.kernel import Kernel
from anyrank.output.picture import Map, draw_maps
from anyrank.program import Program, param
from anyrank.state import Field, State, advance

SHALLOW_WATER = Kernel("shallow_water")
DX = DY = 100_000.0
DT = 90.0
ALPHA = 0.001
AMPLITUDE = 1_000_000.0
#: The picture samples fields to about this number of points per side.
PICTURE_SIDE = 512

Mesh = tuple[np.ndarray, np.ndarray, np.ndarray]


class WeatherState(State):
    """The members of the State and their types."""

    p: Field
    u: Field
    v: Field
    p_old: Field
    u_old: Field
    v_old: Field


class Weather(Program[WeatherState]):
    """Shallow-water weather on a periodic plane: pressure p, velocities u and v.

    The potential-enstrophy conserving scheme of Sadourny (J. Atmos. Sci. 32, 1975, 680-689) with leapfrog
    steps of 90 s, a time filter of 0.001 and cells of 100 km, as in the benchmark of Swarztrauber (NCAR
    1984, published as NCAR/SWM): --rows 64 --columns 64 --steps 4000 reproduces its reference bit for bit.

        anyrank run weather -n 2 --rows 64 --columns 64 --steps 4000                 1 s
        anyrank run weather -n 2 --rows 768 --columns 1024 --steps 24000 --initial shear  30 s
    """

    grows = ("rows",)
    deep_halos = True

    rows: int = param(64, "cells along i", ge=1)
    columns: int = param(64, "cells along j", ge=1)
    steps: int = param(4000, "time steps of 90 s", ge=0)
    initial: Literal["benchmark", "shear"] = param("benchmark", "initial state: NCAR's, or two shear layers")
    seed: int = param(1, "seed of the shear layers' ripples", ge=0, lt=2**64)

    def declare(self, state: WeatherState) -> None:
        """Declare three fields with a halo, and their old time level for the time filter."""
        units = {
            "p": ("m2 s-2", "pressure"),
            "u": ("m s-1", "velocity along i"),
            "v": ("m s-1", "velocity along j"),
        }
        shape, dims = (self.rows, self.columns), ("row", "column")
        for name, (unit, text) in units.items():
            state.field(name, shape, unit=unit, description=text, halo=1, dims=dims)
        for name, (unit, text) in units.items():
            state.field(f"{name}_old", shape, unit=unit, description=f"{text}, filtered old level", dims=dims)

    def setup(self, state: WeatherState) -> None:
        """Set both time levels to the initial state."""
        i, j = state.p.layout.indices  # on the host, where sin and cos are computed
        state.p[...], state.u[...], state.v[...] = self.start(state, i, j)
        state.p_old[...], state.u_old[...], state.v_old[...] = state.p.local, state.u.local, state.v.local

    def step(self, state: WeatherState) -> None:
        """Do one leapfrog step; the first is a forward Euler step."""
        first = state.step == 0
        old = (state.p_old, state.u_old, state.v_old)
        tdt = DT if first else DT + DT
        advance([state.p, state.u, state.v], SHALLOW_WATER, *old, tdt, ALPHA, DX, DY, first)

    def observe(self, state: WeatherState) -> dict[str, Any]:
        """Return the mean and the extremes of the pressure, and the kinetic energy per mass."""
        return {
            "mean_pressure": exact.mean(state.p),
            "lowest_pressure": exact.min(state.p),
            "highest_pressure": exact.max(state.p),
            "kinetic_energy": sum(exact.dots([(state.u, state.u), (state.v, state.v)]))
            / (2 * self.rows * self.columns),
        }

    def result(self, state: WeatherState) -> dict[str, Any]:
        """Return the mean pressure (conserved) and the fastest winds."""
        return {
            "mean_pressure": exact.mean(state.p),
            "fastest_u": max(exact.max(state.u), -exact.min(state.u)),
            "fastest_v": max(exact.max(state.v), -exact.min(state.v)),
        }

    def work(self) -> tuple[float, str]:
        """Return the number of cells per step."""
        return float(self.rows * self.columns), "cell-steps"

    def start(self, state: WeatherState, i: np.ndarray, j: np.ndarray) -> Mesh:
        """Return the initial p, u, v at global indices, which broadcast together; indices wrap around."""
        i, j = i % self.rows, j % self.columns
        return self._benchmark(i, j) if self.initial == "benchmark" else self._shear(state, i, j)

    def _benchmark(self, i: np.ndarray, j: np.ndarray) -> Mesh:
        """Return NCAR's initial state, in the benchmark's order of operations."""
        tpi = math.pi + math.pi
        di, dj = tpi / self.rows, tpi / self.columns
        el = self.columns * DX
        pcf = math.pi * math.pi * AMPLITUDE * AMPLITUDE / (el * el)

        def psi(row: np.ndarray, column: np.ndarray) -> np.ndarray:
            values: np.ndarray = (AMPLITUDE * sin((row + 0.5) * di)) * sin((column + 0.5) * dj)
            return values

        p = pcf * (cos((2 * i) * di) + cos((2 * j) * dj)) + 50000.0
        # The benchmark sets u for rows 1 to M and v for columns 1 to N, then copies the last values to the first.
        row, column = np.where(i == 0, self.rows, i), np.where(j == 0, self.columns, j)
        u = -(psi(row, j + 1) - psi(row, j)) / DY
        v = (psi(i + 1, column) - psi(i, column)) / DX
        return p, u, v

    def _shear(self, state: WeatherState, i: np.ndarray, j: np.ndarray) -> Mesh:
        """Return uniform pressure, and two opposite jets along j with random perturbations, which become vortices."""
        tpi = math.pi + math.pi
        x, y = i * (tpi / self.rows), j * (tpi / self.columns)
        waves = np.arange(1, 17)
        phase = state.random().uniform(waves, high=tpi)
        wind = 40.0 * np.clip(8.0 * cos(x), -1.0, 1.0)
        ripple = sum(sin(k * y + a) for k, a in zip(waves.tolist(), phase.tolist(), strict=True))
        zero = np.zeros(np.broadcast_shapes(i.shape, j.shape))
        return zero + 50000.0, zero + 0.5 * ripple, zero + wind

    def picture(self, state: WeatherState, folder: Path) -> Path | None:
        """Draw pressure and vorticity at the start and at the end into weather.png."""
        stride = max(1, max(self.rows, self.columns) // PICTURE_SIDE)
        state.u.exchange()
        state.v.exchange()
        u, v = state.u.array, state.v.array
        spin = (v[1:-1, 1:-1] - v[:-2, 1:-1]) / DX - (u[1:-1, 1:-1] - u[1:-1, :-2]) / DY
        p_end = state.p.gather(stride)
        spin_end = gather(state.p.layout, state.device.to_host(spin), stride)
        if p_end is None or spin_end is None:
            return None
        i, j = np.ogrid[0 : self.rows : stride, 0 : self.columns : stride]
        p, u, v = self.start(state, i, j)
        before = (v - self.start(state, i - 1, j)[2]) / DX - (u - self.start(state, i, j - 1)[1]) / DY
        hours = self.steps * DT / 3600
        rows = [
            [
                Map(f"pressure, {when}", p_, "m²/s²"),
                Map(f"vorticity, {when}", z_, "1/s", "RdBu_r", centred=True),
            ]
            for when, p_, z_ in (("start", p, before), (f"after {hours:.0f} h", p_end, spin_end))
        ]
        return draw_maps(folder / "weather.png", f"Shallow water, {self.rows} × {self.columns} cells", rows)
