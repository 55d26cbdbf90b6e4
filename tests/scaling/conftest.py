"""Studies that were never run: their times are those of a law, with noise and drift between rounds."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from anyrank.scaling.measured import PHASES, Sample, Study

WORK = 1e9


def invent(
    rate: Callable[[np.ndarray], np.ndarray],
    ranks: Sequence[int],
    kind: str = "strong",
    repeat: int = 5,
    noise: float = 0.0,
    drift: float = 0.2,
    cores: int = 1024,
    seed: int = 1,
) -> Study:
    """A study of a program whose `rate` is that many times 1e8 units a second on so many ranks.

    Every round has a speed of its own, within ± `drift`; `noise` is the standard deviation of a time's logarithm.
    """
    draw, samples = np.random.default_rng(seed), []
    for number in range(1, repeat + 1):
        whole = draw.uniform(1 - drift, 1 + drift)
        for count in ranks:
            work = WORK * (count if kind == "weak" else 1)
            speed = 1e8 * float(rate(np.float64(count)))
            seconds = whole * np.exp(noise * draw.normal()) * work / speed
            compute = min(1.0, speed / 1e8 / count)
            shares = dict.fromkeys(PHASES, 0.0) | {"compute": compute, "exchange": 0.6 * (1 - compute)}
            shares |= {"idle": 0.3 * (1 - compute), "reduce": 0.1 * (1 - compute)}
            phases = {name: share * seconds for name, share in shares.items()}
            traffic = {"messages": 4.0, "bytes": 65536.0, "reductions": 1.0, "reduced": 8.0}
            samples.append(Sample(count, number, seconds, 100, work, 1, count > cores, phases, traffic, 1e-5))
    told = {"parameters": {"n": 512}, "options": {}, "grow": ("n",) if kind == "weak" else (), "unit": "cell-steps"}
    machine = {"host": "here", "processor": "A Processor, 4 cores", "cores": cores, "utc": "2026-11-21T21:00:00+00:00"}
    return Study(kind, "heat", "heat.py", samples=tuple(samples), machine=machine, **told)


@pytest.fixture
def invented() -> Callable[..., Study]:
    return invent


@pytest.fixture(autouse=True)
def no_sleep_in_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that are timed do not sleep in waits for messages, as those of other tests do: it would be measured."""
    monkeypatch.delenv("MPIR_CVAR_ENABLE_HEAVY_YIELD", raising=False)
