"""Bayesian optimization on a cube by the upper confidence bound of a Gaussian process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
NUM_DRAWN = 1000  # candidates over the cube, and as many of its corners
NUM_NEAR = 500  # around the best so far, for each deviation
NEAR = (0.1, 0.4)
NOISE = 1e-6  # variance, of normalised values


def suggest(points: Points, values: Sequence[float], rng: np.random.Generator, kappa: float) -> Points:
    """The next point (dimensions,) of [-1, 1]^dimensions, given points (n, dimensions) with values.

    Maximizes mean + kappa * deviation of a Gaussian process (Matern 5/2, values normalised) over 1,000
    random points, 1,000 random corners and 1,000 around the best one so far, of equals the later.
    The length scale is sqrt(dimensions / 3), the root mean square norm of a point of the cube: a few
    points do not tell one. Cost: O(n^3), some milliseconds for tens of points.

    Reference: Srinivas et al., Gaussian Process Optimization in the Bandit Setting, ICML 2010
    [recalled].
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Matern

    observed, dimensions = np.asarray(values, float), points.shape[1]
    best = points[np.flatnonzero(observed == observed.max())[-1]]
    drawn = rng.uniform(-1, 1, (2 * NUM_DRAWN, dimensions))
    drawn[:NUM_DRAWN] = np.sign(drawn[:NUM_DRAWN])
    near = [np.clip(best + rng.normal(0, n, (NUM_NEAR, dimensions)), -1, 1) for n in NEAR]
    candidates = np.concatenate([drawn, *near])
    kernel = Matern(nu=2.5, length_scale=np.sqrt(dimensions / 3))
    process = GaussianProcessRegressor(kernel, alpha=NOISE, normalize_y=True, optimizer=None)
    mean, deviation = process.fit(points, observed).predict(candidates, return_std=True)
    chosen: Points = candidates[int(np.argmax(mean + kappa * deviation))]
    return chosen
