"""Fit the rate constants of A → B → C to measurements of B: differential evolution on all cores.

    python examples/calibration.py [WORKERS]

SciPy calls the model for all members of a generation at once, through the executor of a farm. A member is an
integration of the two equations a' = -k₁ a, b' = k₁ a - k₂ b. The result is the same with any number of workers. The
measurements are the exact solution (Bateman 1910) for k₁ = 0.7, k₂ = 0.2 with an error of 1 %.
"""

from __future__ import annotations

import sys

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import OptimizeResult, differential_evolution

from anyrank import farm

TRUE = 0.7, 0.2
TIMES = np.linspace(0.5, 20, 40)


def exact(k1: float, k2: float) -> np.ndarray:
    """Return the concentration of B at the times of the measurements."""
    return k1 / (k2 - k1) * (np.exp(-k1 * TIMES) - np.exp(-k2 * TIMES))


MEASURED = exact(*TRUE) * (1 + 0.01 * np.random.default_rng(1).standard_normal(len(TIMES)))


def misfit(rates: np.ndarray) -> float:
    """Return the sum of the squared differences between the model and the measurements."""
    k1, k2 = rates
    model = solve_ivp(lambda _, y: (-k1 * y[0], k1 * y[0] - k2 * y[1]), (0, TIMES[-1]), (1, 0), t_eval=TIMES, rtol=1e-6)
    return float(np.sum((model.y[1] - MEASURED) ** 2))


def fit(workers: int) -> OptimizeResult:
    """Return the best rate constants, with the model on some worker processes."""
    with farm.Executor(workers) as executor:
        return differential_evolution(
            misfit, [(0.01, 2), (0.01, 2)], workers=executor.map, updating="deferred", maxiter=15, popsize=8, seed=1
        )


if __name__ == "__main__":
    best = fit(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    print(f"k1 = {best.x[0]:.3f}, k2 = {best.x[1]:.3f} after {best.nfev} integrations; true: {TRUE[0]}, {TRUE[1]}")
