"""Robust regressions beside statsmodels, SciPy and scikit-learn: the same coefficients."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from cases import STACK_LOSS
from scipy import stats
from scipy.optimize import least_squares
from sklearn.linear_model import HuberRegressor
from statsmodels.robust import norms, scale
from statsmodels.robust.robust_linear_model import RLM

import smoothloss as sl


def f64(values: Any) -> mx.array:
    return mx.array(np.array(values), mx.float64)


def stack() -> tuple[np.ndarray, np.ndarray]:
    x, y = STACK_LOSS[:, :3], STACK_LOSS[:, 3]
    return np.column_stack([np.ones(21), (x - x.mean(0)) / x.std(0)]), y


def heavy() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(60), rng.normal(size=(60, 3))])
    return x, x @ [1.0, -2.0, 0.5, 3.0] + rng.standard_t(1.5, size=60)


DATA = pytest.mark.parametrize("data", [stack, heavy])


def fit(data: Any, loss: Any, **named: Any) -> sl.RobustFit:
    x, y = map(f64, data())
    return sl.irls(x, y, loss, tolerance=1e-12, max_iterations=5000, **named)


# Ours, theirs, and what their weights are times ours.
PAIRS = [
    (sl.HuberLoss(1.345), norms.HuberT(1.345), 1),
    (sl.HuberLoss(0.5), norms.HuberT(0.5), 1),
    (sl.CauchyLoss(1.686), norms.StudentT(1.686, 2), 1.686**2),
    (sl.MSELoss(), norms.LeastSquares(), 0.5),
]


@DATA
@pytest.mark.parametrize(("loss", "norm", "factor"), PAIRS)
def test_rlm_of_statsmodels(data: Any, loss: Any, norm: Any, factor: float) -> None:
    x, y = data()
    theirs = RLM(y, x, M=norm).fit(maxiter=5000, tol=1e-15)
    ours = fit(data, loss)
    np.testing.assert_allclose(ours.coefficients, theirs.params, rtol=1e-6)
    np.testing.assert_allclose(ours.scale, theirs.scale, rtol=1e-6)
    np.testing.assert_allclose(factor * np.array(ours.weights), theirs.weights, atol=1e-6)


@DATA
@pytest.mark.parametrize("size", [0.7, 2.5])
@pytest.mark.parametrize("name", ["huber", "soft_l1", "cauchy", "linear"])
def test_least_squares_of_scipy(data: Any, name: str, size: float) -> None:
    x, y = data()
    start = np.linalg.lstsq(x, y, rcond=None)[0]
    exact = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-13, "max_nfev": 10_000}
    theirs = least_squares(lambda b: x @ b - y, start, loss=name, f_scale=size, **exact).x
    loss = {
        "huber": sl.HuberLoss(size),
        "soft_l1": sl.PseudoHuberLoss(size),
        "cauchy": sl.CauchyLoss(size / 2**0.5),
        "linear": sl.MSELoss(),
    }[name]
    np.testing.assert_allclose(fit(data, loss, scale=1.0).coefficients, theirs, rtol=1e-5)


@DATA
@pytest.mark.parametrize("epsilon", [1.1, 1.35, 2.0])
def test_huber_of_scikit_learn_at_its_scale(data: Any, epsilon: float) -> None:
    """It estimates the scale along with the coefficients, by another equation."""
    x, y = data()
    model = HuberRegressor(
        epsilon=epsilon, alpha=0, fit_intercept=False, max_iter=100_000, tol=1e-12
    )
    theirs = model.fit(x, y)
    ours = fit(data, sl.HuberLoss(epsilon), scale=float(theirs.scale_))
    np.testing.assert_allclose(ours.coefficients, theirs.coef_, rtol=1e-4)


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("center", [None, 0.0, 1.5])
def test_mad_of_statsmodels(axis: int | None, center: float | None) -> None:
    for n in (7, 8):
        r = np.random.default_rng(n).normal(size=(n, 5))
        given = {} if center is None else {"center": center}
        theirs = scale.mad(r, axis=axis, **given)
        np.testing.assert_allclose(sl.mad(f64(r), axis, **given), theirs, rtol=1e-14)


@pytest.mark.parametrize("threshold", [0.5, 1.345, 3.0])
def test_efficiency_by_the_norms_of_statsmodels(threshold: float) -> None:
    for theirs, ours in (
        (norms.HuberT(threshold), sl.RobustNorm(sl.huber_loss, delta=threshold)),
        (norms.StudentT(threshold, 2), sl.RobustNorm(sl.cauchy_loss, scale=threshold)),
    ):
        slope = stats.norm.expect(lambda r: r * theirs.psi(r), lb=0, ub=threshold)
        slope += stats.norm.expect(lambda r: r * theirs.psi(r), lb=threshold, ub=40)
        square = stats.norm.expect(lambda r: theirs.psi(r) ** 2, lb=0, ub=threshold)
        square += stats.norm.expect(lambda r: theirs.psi(r) ** 2, lb=threshold, ub=40)
        assert ours.efficiency() == pytest.approx(2 * slope**2 / square, rel=1e-7)
