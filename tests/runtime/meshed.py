"""A program that reads its first values from an input file, for tests."""

from pathlib import Path

from anyrank import Program, State, param


class Meshed(Program):
    """Counts up from the values of a file."""

    steps: int = param(6, "steps", ge=0)
    mesh: Path = param(..., "a .npy file of 12 numbers")
    others: list[Path] = param([], "other files")
    title: str = param("", "a text, which may be the name of a file")

    def declare(self, state: State) -> None:
        state.field("x", (12,))

    def setup(self, state: State) -> None:
        state.x.read(self.mesh)

    def step(self, state: State) -> None:
        state.x[...] = state.x.local + 1
