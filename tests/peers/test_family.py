"""The losses beside SciPy, scikit-learn, optax and statsmodels: equal, but where those are wrong.

When a newer version mends what the last table has, the row fails and can go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
import pytest

import smoothloss as sl
from smoothloss import RobustNorm as Norm

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
special = pytest.importorskip("scipy.special")
metrics = pytest.importorskip("sklearn.metrics")
norms = pytest.importorskip("statsmodels.robust.norms")

INF, NAN = float("inf"), float("nan")
THRESHOLDS = (1e-6, 0.1, 1.0, 1.345, 1e3, 1e7)
FUNCTIONS = {"rho": "rho", "psi": "psi", "weight": "weights", "psi_prime": "psi_deriv"}


def residuals(threshold: float) -> np.ndarray:
    """Of both signs: 0, tiny, eight decades to either side of 1, and around the threshold."""
    near = [0.5, 1 - 1e-9, 1 - 2**-53, 1, 1 + 2**-52, 1 + 1e-9, 2]
    sizes = np.concatenate([[0, 1e-100], np.logspace(-8, 8, 129), threshold * np.array(near)])
    return np.concatenate([sizes, -sizes])


def f32(r: Any) -> mx.array:
    return mx.array(np.array(r), mx.float32)


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
    "expectile": lambda t: m_quantile(0.3, norms.LeastSquares(), INF),
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
        r = r[abs(r) != threshold]  # where it jumps: see below
    # Their residual is targets - predictions.
    side = -1 if isinstance(theirs, norms.MQuantileNorm) else 1
    got = factor * np.array(getattr(ours, function)(f64(side * r)))
    # The rho of StudentT is a difference of logarithms, and its psi' one of terms up to 1.
    student = isinstance(theirs, norms.StudentT)
    noises = {"rho": 1e-14 * factor, "psi_prime": 1e-14} if student else {}
    got *= side if function == "psi" else 1
    assert_close(got, getattr(theirs, FUNCTIONS[function])(r), 4e-15, noises.get(function, 0.0))


def test_second_derivative_at_the_kink() -> None:
    """One side's is as good as the other's: ours is 0, that of statsmodels is 1, of optax 1/4."""
    assert Norm(sl.huber_loss).psi_prime(f64([1.0, -1.0])).tolist() == [0, 0]
    assert norms.HuberT(1.0).psi_deriv(np.array([1.0, -1.0])).tolist() == [1, 1]
    assert jax.grad(jax.grad(optax.huber_loss))(1.0) == 0.25


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


# optax: ours, theirs, and the absolute error of its gradient in epsilons, for a threshold t: Huber
# takes it as t - (t - r), and log-cosh is a difference of logarithms.
OPTAX: dict[str, Callable[[float], tuple[Any, Any, float]]] = {
    "huber": lambda t: (
        lambda x, y: sl.huber_loss(x, y, t),
        lambda x, y: optax.huber_loss(x, y, delta=t),
        4 * t,
    ),
    "l2": lambda t: (lambda x, y: sl.huber_loss(x, y, INF), optax.l2_loss, 0),
    "squared_error": lambda t: (lambda x, y: sl.mse_loss(x, y, "none"), optax.squared_error, 0),
    "log_cosh": lambda t: (sl.log_cosh_loss, optax.log_cosh, 4),
}


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTAX)
def test_optax(name: str, dtype: str, threshold: float) -> None:
    ours, theirs, noise = OPTAX[name](threshold)
    eps = float(np.finfo(dtype).eps)
    half = (residuals(threshold) / 2).astype(dtype)  # so the residual is exact
    row = [(f32 if dtype == "float32" else f64)(v) for v in (half, -half)]
    with jax.enable_x64(dtype == "float64"):
        value = theirs(half, -half)
        slopes = jax.grad(lambda x, y: theirs(x, y).sum(), (0, 1))(half, -half)
    assert value.dtype == dtype
    assert_close(ours(*row), value, 4 * eps, 4 * eps if name == "log_cosh" else 0)
    got = mx.grad(lambda x, y: ours(x, y).sum(), (0, 1))(*row)
    for mine, slope in zip(got, slopes, strict=True):
        assert_close(mine, slope, 4 * eps, noise * eps)


class Wrong(NamedTuple):
    """Two calls, as expressions, and what they give: a number, or the name of an error."""

    theirs: str
    gives: float | str
    ours: str
    exact: float | str


HALF = np.array([6e4], np.float16)
# fmt: off
WRONG = [
    # SciPy: delta^2 and (r/delta)^2 leave the floats; at delta = 0 it does not look at r.
    Wrong("special.pseudo_huber(1e200, 1.0)", NAN,
          "Norm(sl.pseudo_huber_loss, delta=1e200).rho(f64(1.0))", 0.5),
    Wrong("special.pseudo_huber(1.0, 1e200)", INF,
          "Norm(sl.pseudo_huber_loss, delta=1.0).rho(f64(1e200))", 1e200),
    Wrong("special.pseudo_huber(INF, 1.0)", NAN,
          "Norm(sl.pseudo_huber_loss, delta=INF).rho(f64(1.0))", 0.5),
    Wrong("special.pseudo_huber(0.0, NAN)", 0.0,
          "Norm(sl.pseudo_huber_loss, delta=0.0).rho(f64(NAN))", NAN),
    # scikit-learn: the difference is taken in float16.
    Wrong("metrics.mean_pinball_loss(HALF, -HALF)", NAN, "sl.quantile_loss(-HALF, HALF)", 6e4),
    # optax: t - (t - r) and log(e^r + e^-r) - log 2 cancel, and inf * 0.
    Wrong("jax.grad(optax.huber_loss)(1e-8)", 0.0, "Norm(sl.huber_loss).psi(f32(1e-8))", 1e-8),
    Wrong("optax.huber_loss(1.0, delta=INF)", NAN,
          "Norm(sl.huber_loss, delta=INF).rho(f32(1.0))", 0.5),
    Wrong("optax.log_cosh(jax.numpy.float32(1e-4))", 0.0,
          "Norm(sl.log_cosh_loss).rho(f32(1e-4))", 5e-9),
    Wrong("jax.grad(jax.grad(optax.log_cosh))(10.0)", 4.1223074e-9,
          "Norm(sl.log_cosh_loss).psi_prime(f32(10.0))", 8.2446145e-9),
    # statsmodels: 0 * inf in the arm not taken, the square of t, no check of t, the difference of
    # logarithms, and (2 + r^2)^2 beyond the largest float.
    Wrong("norms.HuberT(1.0).rho(1e200)", NAN, "Norm(sl.huber_loss).rho(f64(1e200))", 1e200),
    Wrong("norms.HuberT(1.0).psi(INF)", NAN, "Norm(sl.huber_loss).psi(f64(INF))", 1.0),
    Wrong("norms.HuberT(1e200).rho(1.0)", "OverflowError",
          "Norm(sl.huber_loss, delta=1e200).rho(f64(1.0))", 0.5),
    Wrong("norms.HuberT(-1.0).rho(0.5)", -1.0,
          "Norm(sl.huber_loss, delta=-1.0).rho(f64(0.5))", "ValueError"),
    Wrong("norms.StudentT(1.0, 2).rho(1e-8)", 0.0, "Norm(sl.cauchy_loss).rho(f64(1e-8))", 5e-17),
    Wrong("norms.StudentT(1.0, 2).psi_deriv(1e100)", 2e-200,
          "Norm(sl.cauchy_loss).psi_prime(f64(1e100))", -2e-200),
]
# fmt: on


def outcome(expression: str) -> Any:
    """Its value, or the name of its error; NumPy's warnings of overflow are expected."""
    try:
        with np.errstate(all="ignore"):
            return float(np.asarray(eval(expression)).item())
    except (OverflowError, ValueError) as error:
        return type(error).__name__


def same(a: float | str, b: float | str) -> bool:
    text = isinstance(a, str) or isinstance(b, str)
    return a == b if text else bool(np.isclose(a, b, rtol=1e-6, atol=0, equal_nan=True))


@pytest.mark.parametrize("row", WRONG, ids=lambda row: row.theirs)
def test_where_others_are_wrong(row: Wrong) -> None:
    theirs = outcome(row.theirs)
    assert not same(theirs, row.exact)
    # How a difference of logarithms is off depends on the processor.
    assert same(theirs, row.gives) or "log_cosh" in row.theirs
    assert same(outcome(row.ours), row.exact)
