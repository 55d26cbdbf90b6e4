"""A program whose callback records every call."""

from pathlib import Path

import numpy as np

from anyrank import Callback, Program, State, param


class CallRecorder(Callback):
    """Writes one line for each call into a file of each rank."""

    def __init__(self, folder: str):
        self.folder, self.file = Path(folder), None

    def write(self, *words):
        self.file.write(" ".join(map(str, words)) + "\n")

    def on_start(self, state):
        self.file = (self.folder / f"rank-{state.world.rank}").open("a", buffering=1)
        self.write("start", state.step)

    def before_step(self, state):
        self.write("before", state.step, int(state.x.local.sum()))

    def after_step(self, state):
        self.write("after", state.step, int(state.x.local.sum()))

    def before_checkpoint(self, state):
        self.write("saving", state.step)

    def on_done(self, state):
        self.write("done", state.step)

    def on_checkpoint(self, saved):
        self.write("checkpoint", saved.step, "failed" if saved.error else "good")

    def on_end(self, state):
        self.write("end", state.step)

    def close(self):
        if self.file is not None:
            self.write("close")
            self.file.close()


class Watched(Program):
    """Counts, with a callback that records calls."""

    folder: str = param(..., "where the diaries are")
    fails_at: int = param(-1, "the step that raises an error")
    steps: int = param(3, "steps")

    def declare(self, state: State) -> None:
        state.field("x", (8,), np.int64)

    def callbacks(self):
        return [CallRecorder(self.folder)]

    def step(self, state: State) -> None:
        if state.step == self.fails_at:
            raise RuntimeError("as asked")
        state.x[...] = state.x.local + 1
