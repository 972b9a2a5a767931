"""Bayesian optimization on a cube by the upper confidence bound of a Gaussian process."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
NUM_DRAWN = 2000  # candidates over the whole cube
NUM_NEAR = 500  # and around the best so far
NEAR = 0.1  # standard deviation of these
NOISE = 1e-6  # variance, of normalised values


def suggest(points: Points, values: Sequence[float], rng: np.random.Generator, kappa: float) -> Points:
    """The next point (dimensions,) of [-1, 1]^dimensions, given points (n, dimensions) with values.

    Maximizes mean + kappa * deviation of a Gaussian process (Matern 5/2, one length scale, values
    normalised) over 2,000 random points and 500 around the best one so far, the later of equals.
    Without any values it is a random point. Cost: O(n^3), some milliseconds for tens of points.

    Reference: Srinivas et al., Gaussian Process Optimization in the Bandit Setting, ICML 2010
    [recalled].
    """
    dimensions = points.shape[1]
    if len(values) == 0:
        return np.asarray(rng.uniform(-1, 1, dimensions))
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Matern

    observed = np.asarray(values, float)
    best = points[np.flatnonzero(observed == observed.max())[-1]]
    drawn = rng.uniform(-1, 1, (NUM_DRAWN, dimensions))
    near = np.clip(best + rng.normal(0, NEAR, (NUM_NEAR, dimensions)), -1, 1)
    candidates = np.concatenate([drawn, near])
    process = GaussianProcessRegressor(Matern(nu=2.5), alpha=NOISE, normalize_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length scale at its bound
        process.fit(points, observed)
        mean, deviation = process.predict(candidates, return_std=True)
    chosen: Points = candidates[int(np.argmax(mean + kappa * deviation))]
    return chosen
