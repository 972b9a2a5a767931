"""Bayesian optimization on a cube by the upper confidence bound of a Gaussian process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
NUM_DRAWN = 400  # of each kind
MOST_NONZERO = 3
NEAR = (0.1, 0.4)
NOISE = 1.0  # variance, of values that have mean 0 and variance 1


def proposed(best: Points, rng: np.random.Generator) -> Points:
    """Points of [-1, 1]^dimensions to choose from, given the best so far (dimensions,).

    The axes both ways; 400 random points, 400 random corners, 400 with at most three coordinates that
    are not 0, and 200 around the best for each of two deviations.
    """
    size = len(best)
    axes = np.concatenate([np.eye(size), -np.eye(size)])
    inside, corners, sparse = rng.uniform(-1, 1, (3, NUM_DRAWN, size))
    kept = rng.random((NUM_DRAWN, size)).argsort(axis=1) < rng.integers(
        1, MOST_NONZERO + 1, (NUM_DRAWN, 1)
    )
    around = rng.normal(0, np.repeat(NEAR, NUM_DRAWN // 2)[:, None], (NUM_DRAWN, size))
    near = np.clip(best + around, -1, 1)
    return np.concatenate([axes, inside, np.sign(corners), sparse * kept, near])


def bounds(points: Points, values: Sequence[float], candidates: Points, kappa: float) -> Points:
    """Upper confidence bounds (candidates,): mean + kappa * deviation of a Gaussian process.

    Points (n, dimensions) of [0, 1]^dimensions have the values (n,); candidates are as the points.
    Matern 5/2; the values are normalised, and as noisy as they vary. The square of the length scale is
    dimensions / 3, twice the mean square distance of two random points: a few points do not tell one.
    It takes some milliseconds for tens of points.

    Reference: Srinivas et al., Gaussian Process Optimization in the Bandit Setting, ICML 2010
    [recalled].
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Matern

    kernel = Matern(nu=2.5, length_scale=np.sqrt(points.shape[1] / 3))
    process = GaussianProcessRegressor(kernel, alpha=NOISE, normalize_y=True, optimizer=None)
    mean, deviation = process.fit(points, np.asarray(values)).predict(candidates, return_std=True)
    found: Points = mean + kappa * deviation
    return found
