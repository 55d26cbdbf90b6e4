"""A program of which one element becomes NaN or infinite, for tests."""

from typing import Literal

from anyrank import Program, State, param


class Growing(Program):
    """Counts up; at one step one element of a field is not finite, and a step later it is finite again."""

    finite = True
    steps: int = param(8, "steps", ge=0)
    at: int = param(5, "the step after which it happens; 0 in setup")
    value: Literal["nan", "inf", "-inf"] = param("nan", "the value")
    point: list[int] = param([4, 2], "the element")
    also: bool = param(False, "an earlier element of a later field, too")
    once: bool = param(False, "only in a first execution")

    def declare(self, state: State) -> None:
        state.field("n", (6, 5), "int64")
        state.field("u", (6, 5), "float32", halo=1)
        state.field("z", (6, 5), "complex128")

    def setup(self, state: State) -> None:
        self.spoil(state, 0)

    def spoil(self, state: State, step: int) -> None:
        if step == self.at and not (self.once and (state.folder / "resumed").exists()):
            state.u.at(*self.point).write(float(self.value))
            if self.also:
                state.z.at(0, 0).write(complex(1, float(self.value)))

    def step(self, state: State) -> None:
        for field in state.fields():
            field[...] = state.step + 1
        self.spoil(state, state.step + 1)
