"""An ensemble: the period of the pendulum for 200 amplitudes, each integrated by a task of a farm.

    anyrank farm examples/sweep.py:period -n 2 --table amplitudes.csv --out runs/pendulum
    python examples/sweep.py                    # the same from Python, compared with the exact period

The exact period is 4 K(sin(a/2)) for an amplitude a, with the complete elliptic integral K; it is computed by the
arithmetic-geometric mean (Abramowitz and Stegun 1972, 17.6).
"""

from __future__ import annotations

import math

from anyrank import farm


def period(amplitude: float, steps: int = 2000) -> dict[str, float]:
    """Return the period of θ'' = -sin θ from rest at an amplitude in radians, by leapfrog, and its error."""
    exact = exact_period(amplitude)
    dt = exact / (4 * steps)
    angle, speed, time = amplitude, -math.sin(amplitude) * dt / 2, 0.0
    while angle > 0:  # a quarter of the period
        before = angle
        angle += speed * dt
        speed -= math.sin(angle) * dt
        time += dt
    found = 4 * (time - dt * angle / (angle - before))
    return {"period": found, "error": abs(found / exact - 1)}


def exact_period(amplitude: float) -> float:
    """Return 2π / AGM(1, cos(amplitude / 2))."""
    a, b = 1.0, math.cos(amplitude / 2)
    while abs(a - b) > 1e-15:
        a, b = (a + b) / 2, math.sqrt(a * b)
    return 2 * math.pi / a


if __name__ == "__main__":
    amplitudes = [0.01 * k for k in range(1, 201)]
    results = farm.map(period, amplitudes, ranks=2)
    print(f"period at {amplitudes[-1]:.2f} rad: {results[-1]['period']:.6f}")
    print(f"largest error of {len(results)} periods: {max(result['error'] for result in results):.1e}")
