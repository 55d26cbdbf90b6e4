"""A program of which every rank does a known fraction of the work, and the rest is shared; it only sleeps."""

import time

from anyrank import Program, State, param


class Serial(Program):
    """Amdahl's law: a step on p ranks takes `milliseconds` × (fraction + (1 − fraction) / p)."""

    grows = ("milliseconds",)
    milliseconds: float = param(40.0, "what a step takes on one rank", gt=0)
    fraction: float = param(0.25, "what no other rank can help with", ge=0, le=1)
    steps: int = param(8, "steps", ge=0)
    lie: bool = param(False, "give another digest on each number of ranks")

    late = 0.0

    def declare(self, state: State) -> None:
        state.scalar("sum", 0)

    def step(self, state: State) -> None:
        share = (self.fraction + (1 - self.fraction) / state.world.size) * self.milliseconds / 1000
        began = time.perf_counter()
        time.sleep(max(0.0, share - self.late))
        self.late += time.perf_counter() - began - share  # a sleep ends late, so the next one is shorter
        state.sum += state.world.sum(1) if self.lie else 1

    def work(self) -> tuple[float, str]:
        return self.milliseconds, "ms"
