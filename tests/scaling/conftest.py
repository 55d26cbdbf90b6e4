"""Invented studies: their times follow a law, with noise, and with drift between rounds."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from anyrank.scaling.measured import PHASES, Sample, ScalingStudy

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
) -> ScalingStudy:
    """A study of a program that does `rate(p)` times 1e8 units per second on p ranks.

    Every round has its own speed, within ± `drift`; `noise` is the standard deviation of the logarithm of a time.
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
    settings = {"parameters": {"n": 512}, "options": {}, "grow": ("n",) if kind == "weak" else (), "unit": "cell-steps"}
    machine = {"host": "here", "processor": "A Processor, 4 cores", "cores": cores, "utc": "2026-11-21T21:00:00+00:00"}
    return ScalingStudy(kind, "heat", "heat.py", samples=tuple(samples), machine=machine, **settings)


@pytest.fixture
def make_study() -> Callable[..., ScalingStudy]:
    return invent


@pytest.fixture(autouse=True)
def no_sleep_in_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timed ranks do not sleep while they wait for messages, unlike ranks of other tests: it would be measured."""
    monkeypatch.delenv("MPIR_CVAR_ENABLE_HEAVY_YIELD", raising=False)
