"""A program with a field of each kind, whose values depend only on the global index and the step."""

import time

import numpy as np

from anyrank import Program, State, param

#: Every kind of field, and every kind of part.
ALL = (
    "T,v,w,u,mask,wave,count,half,line,box,T[y=3],T[x=2:8],T[y=-1,x=0],T[x=1:9:3],mean(T),mean(u, x),"
    "mean(T[x=2:5], y),mean(wave, x),box[s=1],u[component=1],scattered[b=2]"
)


class Plate(Program):
    """Adds 1 to every number at every step."""

    n: int = param(13, "cells along y", ge=1)
    steps: int = param(25, "steps", ge=0)
    slowly: float = param(0.0, "seconds of a step")

    def declare(self, state: State) -> None:
        lengths = {"spacing": (0.5, 0.25), "origin": (1.0, 0.0), "unit": "m"}
        plate = state.grid((self.n, self.n + 4), dims=("y", "x"), boundary={"y": "reflect", "x": "periodic"}, **lengths)
        plate.field("T", unit="K", description="temperature", frames=True)
        plate.field("v", at="y", unit="m/s")
        plate.field("w", at="x")
        plate.field("u", components=2, unit="m/s")
        for name, kind in {"mask": bool, "wave": np.complex128, "count": np.int64, "half": np.float16}.items():
            plate.field(name, kind)
        state.field("line", (3,), dims=("z",), dtype=np.uint8)  # of four ranks some own none of it
        state.field("box", (4, 3, 5), dims=("r", "s", "t"), dtype=np.float32)
        state.field("scattered", (2, 3, 4, 2), dims=("a", "b", "c", "d"))
        state.scalar("hits", 0)

    def setup(self, state: State) -> None:
        for field in state.fields():
            field[...] = values_of(field.name, field.shape, field.dtype, 0)[field.layout.slices]

    def step(self, state: State) -> None:
        time.sleep(self.slowly)
        for field in state.fields():
            values = values_of(field.name, field.shape, field.dtype, state.step + 1)
            field[...] = values[field.layout.slices]


class Open(Plate):
    """A plate whose number of steps only its own `done` knows."""

    def done(self, state: State) -> bool:
        return state.step >= self.steps


def values_of(name: str, shape: tuple, dtype: np.dtype, step: int) -> np.ndarray:
    """The values of a whole field; all bits vary."""
    random = np.random.default_rng([step, *name.encode()])
    if np.dtype(dtype).kind in "biu":
        return random.integers(0, 2 if np.dtype(dtype).kind == "b" else 200, shape).astype(dtype)
    values = random.standard_normal(shape)
    return (values + 1j * random.standard_normal(shape) if np.dtype(dtype).kind == "c" else values).astype(dtype)
