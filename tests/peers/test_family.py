"""The losses beside SciPy, scikit-learn and statsmodels: equal, but where docs/parity.md says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import smoothloss as sl
from smoothloss import RobustNorm as Norm

special = pytest.importorskip("scipy.special")
metrics = pytest.importorskip("sklearn.metrics")
norms = pytest.importorskip("statsmodels.robust.norms")
optimize = pytest.importorskip("scipy.optimize")
sgd = pytest.importorskip("sklearn.linear_model._sgd_fast")

INF, NAN = float("inf"), float("nan")
THRESHOLDS = (1e-6, 0.1, 1.0, 1.345, 1e3, 1e7)
FUNCTIONS = {"rho": "rho", "psi": "psi", "weight": "weights", "psi_prime": "psi_deriv"}


def residuals(threshold: float) -> np.ndarray:
    """Of both signs: 0, tiny, eight decades to either side of 1, and around the threshold."""
    near = [0.5, 1 - 1e-9, 1 - 2**-53, 1, 1 + 2**-52, 1 + 1e-9, 2]
    sizes = np.concatenate([[0, 1e-100], np.logspace(-8, 8, 129), threshold * np.array(near)])
    return np.concatenate([sizes, -sizes])


def f64(r: Any) -> mx.array:
    return mx.array(np.array(r), mx.float64)


def assert_close(got: Any, want: Any, relative: float, absolute: float = 0.0) -> None:
    np.testing.assert_allclose(np.array(got), np.array(want), rtol=relative, atol=absolute)


# SciPy: ours of a threshold t, theirs. `pseudo_huber` takes a logarithm, which costs it digits for
# residuals far beyond the threshold.
SCIPY: dict[str, tuple[Any, Any]] = {
    "huber": (lambda t: Norm(sl.huber_loss, delta=t), special.huber),
    "smooth_l1": (lambda t: Norm(sl.smooth_l1_loss, beta=t), lambda t, r: special.huber(t, r) / t),
    "pseudo_huber": (lambda t: Norm(sl.pseudo_huber_loss, delta=t), special.pseudo_huber),
    "general": (
        lambda t: Norm(sl.general_loss, alpha=1.0, scale=t),
        lambda t, r: special.pseudo_huber(t, r) / t / t,
    ),
}


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("name", SCIPY)
def test_scipy(name: str, threshold: float) -> None:
    ours, theirs = SCIPY[name]
    r, digits = residuals(threshold), 2e-15 if name in ("huber", "smooth_l1") else 3e-14
    assert_close(ours(threshold).rho(f64(r)), theirs(threshold, r), digits)


@pytest.mark.parametrize("delta", [0.0, 1e-300, 1e-10, 1e10, 1e300, INF])
def test_huber_of_scipy_at_the_limits(delta: float) -> None:
    r = np.array([0, 1e-200, 1e-20, 1.0, 1e20, 1.5e154, 1e200, 1e308, INF, NAN])
    r = np.concatenate([r, -r])
    if delta == 0:
        r = r[~np.isinf(r)]  # 0 * inf, 0 here and NaN there
    assert_close(Norm(sl.huber_loss, delta=delta).rho(f64(r)), special.huber(delta, r), 1e-15)


def m_quantile(q: float, base: Any, kappa: float) -> tuple[Any, Norm, float]:
    return norms.MQuantileNorm(q, base), Norm(sl.quantile_huber_loss, quantile=q, kappa=kappa), 1


# statsmodels, of a threshold t: theirs, ours, and what ours is to be multiplied with, since theirs
# are all scaled to be half the square near 0.
STATSMODELS: dict[str, Callable[[float], tuple[Any, Norm, float]]] = {
    "huber": lambda t: (norms.HuberT(t), Norm(sl.huber_loss, delta=t), 1),
    "square": lambda t: (norms.LeastSquares(), Norm(sl.huber_loss, delta=INF), 1),
    "general_2": lambda t: (norms.LeastSquares(), Norm(sl.general_loss, alpha=2.0, scale=t), t * t),
    "general_0": lambda t: (norms.StudentT(t, 2), Norm(sl.general_loss, alpha=0.0, scale=t), t * t),
    "cauchy": lambda t: (norms.StudentT(t, 2), Norm(sl.cauchy_loss, scale=t), t * t),
    "cauchy_8": lambda t: (norms.StudentT(t, 8), Norm(sl.cauchy_loss, scale=2 * t), 4 * t * t),
    "student_t_4": lambda t: (
        norms.StudentT(t, 4),
        Norm(sl.student_t_loss, df=4.0, scale=t),
        t * t * 4 / 5,
    ),
    "tukey": lambda t: (norms.TukeyBiweight(t), Norm(sl.tukey_loss, c=t), 1),
    "quantile_huber_inf": lambda t: m_quantile(0.3, norms.LeastSquares(), INF),
    "expectile": lambda t: (
        norms.MQuantileNorm(0.3, norms.LeastSquares()),
        Norm(sl.expectile_loss, expectile=0.3),
        0.5,
    ),
    **{
        f"quantile_huber_{q}": lambda t, q=q: m_quantile(q, norms.HuberT(t), t)
        for q in (0.0, 0.1, 0.5, 0.9, 1.0)
    },
}


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", STATSMODELS)
def test_statsmodels(name: str, function: str, threshold: float) -> None:
    theirs, ours, factor = STATSMODELS[name](threshold)
    r = residuals(threshold)
    if function == "psi_prime":
        r = r[abs(r) != threshold]  # where it jumps
    # Their residual is targets - predictions.
    side = -1 if isinstance(theirs, norms.MQuantileNorm) else 1
    got = factor * np.array(getattr(ours, function)(f64(side * r)))
    # The rho of StudentT is a difference of logarithms, and its psi' one of terms up to 1. That of
    # Tukey is 1 - (1 - u^2)^3, and near c 1 - u^2 cancels in what is left.
    noises: dict[str, float] = {}
    if isinstance(theirs, norms.StudentT):
        noises = {"rho": 1e-14 * factor, "psi_prime": 1e-14}
    elif isinstance(theirs, norms.TukeyBiweight):
        noises = {"rho": 1e-15 * threshold**2, "psi": 1e-22 * threshold}
        noises |= {"weight": 1e-22, "psi_prime": 1e-14}
    got *= side if function == "psi" else 1
    assert_close(got, getattr(theirs, FUNCTIONS[function])(r), 4e-15, noises.get(function, 0.0))


# scikit-learn's losses of a prediction and a target, and the residual up to which they are 0.
INSENSITIVE = [
    (sl.epsilon_insensitive_loss, sgd.EpsilonInsensitive),
    (sl.squared_epsilon_insensitive_loss, sgd.SquaredEpsilonInsensitive),
]


@pytest.mark.parametrize(("ours", "theirs"), INSENSITIVE)
@pytest.mark.parametrize("epsilon", [0.0, *THRESHOLDS])
def test_scikit_learn_within_epsilon(ours: Any, theirs: Any, epsilon: float) -> None:
    peer, norm, r = theirs(epsilon), Norm(ours, epsilon=epsilon), residuals(epsilon)
    assert_close(norm.rho(f64(r)), [peer.py_loss(v, 0.0) for v in r.tolist()], 2e-15)
    assert_close(norm.psi(f64(r)), [peer.py_dloss(v, 0.0) for v in r.tolist()], 2e-15)


@pytest.mark.parametrize("scale", THRESHOLDS)
def test_arctan_of_scipy(scale: float) -> None:
    """Of their loss only the sum is to be had, of one residual here."""
    for r in (scale * v for v in (1e-3, 0.5, 1.0, 2.0, 1e3)):
        theirs = optimize.least_squares(
            lambda x, r=r: x - x + r, [0.0], loss="arctan", f_scale=scale, max_nfev=1
        )
        ours = scale**2 * sl.arctan_loss(f64([r]), f64([0.0]), scale)
        assert_close(ours, theirs.cost, 1e-14)


# scikit-learn: ours, theirs, and the quantile.
METRICS: dict[str, tuple[Any, Any, list[float]]] = {
    "l1": (sl.l1_loss, metrics.mean_absolute_error, []),
    "mse": (sl.mse_loss, metrics.mean_squared_error, []),
    **{
        f"quantile_{q}": (sl.quantile_loss, metrics.mean_pinball_loss, [q])
        for q in (0.0, 0.05, 0.5, 0.9, 1.0)
    },
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("name", METRICS)
def test_scikit_learn(name: str, columns: bool, weighted: bool) -> None:
    loss, metric, quantile = METRICS[name]
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 1000, 3))
    x[::10] = y[::10]  # ties
    named: dict[str, Any] = {"alpha": quantile[0]} if quantile else {}
    named["multioutput"] = "raw_values" if columns else "uniform_average"
    w = rng.random(1000) if weighted else None
    theirs = metric(y, x, sample_weight=w, **named)
    weights = f64(w[:, None]) if w is not None else None
    ours = loss(f64(x), f64(y), *quantile, weights=weights, axis=0 if columns else None)
    assert_close(ours, theirs, 1e-14)
