"""What irls takes, of which dtype its results are, and its errors."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import smoothloss as sl

X, Y = mx.random.normal((9, 2)), mx.random.normal((9,))
HUBER = sl.RobustNorm(sl.huber_loss, delta=1.345)


def test_a_loss_is_a_norm_a_function_a_record_a_class_or_an_instance() -> None:
    want = sl.irls(X, Y, sl.RobustNorm(sl.huber_loss)).coefficients.tolist()
    for loss in (sl.huber_loss, sl.HuberLoss.loss, sl.HuberLoss, sl.HuberLoss(mx.array(1.0))):
        assert sl.irls(X, Y, loss).coefficients.tolist() == want
    assert sl.irls(X, Y, sl.HuberLoss(0.5)).coefficients.tolist() != want


@pytest.mark.parametrize(
    ("design", "targets", "result"),
    [
        (mx.float32, mx.float32, mx.float32),
        (mx.float16, mx.float16, mx.float16),
        (mx.float16, mx.float32, mx.float32),
        (mx.bfloat16, mx.bfloat16, mx.bfloat16),
        (mx.float64, mx.float32, mx.float64),
        (mx.int32, mx.int8, mx.float32),
        (np.float32, np.float32, mx.float32),
        (np.float64, np.float64, mx.float32),
        (np.float64, mx.float16, mx.float32),
        (np.float16, mx.float16, mx.float16),
    ],
)
def test_dtypes(design: Any, targets: Any, result: mx.Dtype) -> None:
    x, y = (
        (10 * v).astype(dtype) if isinstance(dtype, mx.Dtype) else np.array(10 * v, dtype)
        for v, dtype in ((X, design), (Y, targets))
    )
    fit = sl.irls(x, y, HUBER)
    assert [v.dtype for v in fit] == [result] * 3 + [mx.int32, mx.bool_]
    assert fit.converged.item()


def test_float64_of_numpy_is_used_as_it_is() -> None:
    """1e9 + x has no digits of x in float32."""
    x = np.arange(9.0)
    design = np.stack([np.ones(9), 1e9 + x / 8], 1)
    fit = sl.irls(design, 3 + x, HUBER)
    assert fit.coefficients[1].item() == pytest.approx(8, rel=1e-6)


@pytest.mark.float64
@pytest.mark.parametrize("unit", [1e-200, 1e-20, 1e20, 1e200])
def test_columns_of_any_units(unit: float) -> None:
    want = sl.irls(X.astype(mx.float64), Y, HUBER)
    units = np.array([1.0, unit])
    fit = sl.irls(mx.array(np.array(X) * units, mx.float64), Y, HUBER)
    np.testing.assert_allclose(np.array(fit.coefficients) * units, want.coefficients, rtol=1e-7)
    np.testing.assert_allclose(fit.weights, want.weights, rtol=1e-7)


@pytest.mark.float64
def test_a_direction_that_no_weight_shows_rests() -> None:
    """Welsch's weight is 0 at a residual of 100: two rows are left for three columns."""
    x = np.random.default_rng(0).normal(size=(9, 3))
    start = np.array([1.0, 2.0, 3.0])
    y = x @ start + np.array([0.3, -0.2] + [100.0] * 7)
    given = [mx.array(v, mx.float64) for v in (x, y, start)]
    fit = sl.irls(*given[:2], sl.WelschLoss(), scale=1.0, start=given[2])
    moved = x @ (np.array(fit.coefficients) - start)
    basis = np.linalg.qr(x)[0]
    shortest = basis @ np.linalg.pinv(basis[:2]) @ [0.3, -0.2]
    np.testing.assert_allclose(moved, shortest, atol=1e-3)
    assert fit.converged.item()


@pytest.mark.float64
def test_a_start_at_the_solution_is_one_step() -> None:
    x, y = mx.random.normal((3, 9, 3)).astype(mx.float64), mx.random.normal((3, 9))
    for named in ({}, {"weights": mx.random.uniform(shape=(3, 9))}):
        want = sl.irls(x, y, HUBER, tolerance=1e-11, max_iterations=1000, **named)
        again = sl.irls(x, y, HUBER, start=want.coefficients, **named)
        assert again.iterations.tolist() == [1] * 3 < want.iterations.tolist()
        np.testing.assert_allclose(again.coefficients, want.coefficients, rtol=1e-7)
        alone = sl.irls(x[1], y[1], HUBER, **{k: v[1] for k, v in named.items()})
        np.testing.assert_allclose(alone.coefficients, want.coefficients[1], rtol=1e-6)


@pytest.mark.parametrize("name", ["coefficients", "scale", "weights"])
def test_it_has_no_derivative_and_says_so(name: str) -> None:
    result = lambda y: getattr(sl.irls(X, y, HUBER), name).sum()
    with pytest.raises(TypeError, match="irls: a derivative of what it returns"):
        mx.grad(result)(Y)
    with pytest.raises(TypeError, match="irls: a derivative of what it returns"):
        mx.jvp(result, [Y], [Y])
    held = mx.grad(lambda y: (y * mx.stop_gradient(result(y))).sum())(Y)
    assert mx.allclose(held, mx.full((9,), result(Y)))


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({"design": [[1.0]]}, TypeError, "irls: `design` is of type list"),
        ({"targets": Y > 0}, TypeError, "irls: `targets` has dtype .*bool"),
        ({"design": Y}, ValueError, r"`design` has shape \(9,\).*pass design\[:, None\]"),
        ({"targets": Y[:, None]}, ValueError, r"`targets` \(9, 1\); .*Pass targets\[..., 0\]"),
        ({"targets": Y[:4]}, ValueError, r"expected \(..., n, p\) and \(..., n\). Lay the rows"),
        ({"targets": mx.array(1.0)}, ValueError, r"`targets` \(\); expected"),
        ({"design": X[:1], "targets": Y[:1]}, ValueError, "has 1 rows and 2 columns"),
        ({"design": X[:, :0]}, ValueError, "and 0 columns; expected at least one column"),
        (
            {"design": mx.zeros((2, 9, 2)), "targets": mx.zeros((3, 9))},
            ValueError,
            r"leading axes of `design` are \(2,\) and of `targets` \(3,\); they must broadcast",
        ),
        ({"loss": abs}, TypeError, "irls: `loss` is 'abs'"),
        (
            {"loss": sl.RobustNorm(sl.huber_loss, delta=mx.ones(9))},
            TypeError,
            r"irls: `delta` of the loss is an array of shape \(9,\); expected one number",
        ),
        ({"scale": 0.0}, ValueError, r"irls: `scale` is 0.0; expected a number in \(0, inf\]"),
        ({"scale": math.nan}, ValueError, "irls: `scale` is nan"),
        ({"scale": "mad"}, TypeError, "irls: `scale` is of type str"),
        ({"scale": mx.ones(3)}, ValueError, r"`scale` has shape \(3,\); expected one that broad"),
        (
            {"scale": lambda r, axis: mx.abs(r).mean()},
            ValueError,
            r"`scale` returned shape \(\) for residuals of shape \(1, 9\); expected .*\(1,\)",
        ),
        ({"scale": lambda r, axis: 1.0}, ValueError, "`scale` returned float"),
        ({"start": "ols"}, ValueError, "`start` is 'ols'; expected 'least_squares', 'l1' or an"),
        ({"start": mx.zeros(3)}, ValueError, r"`start` has shape \(3,\); .* broadcasts to \(2,\)"),
        ({"weights": mx.ones((9, 1))}, ValueError, r"irls: `weights` has shape \(9, 1\)"),
        ({"where": mx.ones(9)}, TypeError, "irls: `where` has dtype .*; expected a boolean array"),
        ({"tolerance": -1}, ValueError, r"`tolerance` is -1; expected a number in \[0, 1\)"),
        ({"tolerance": None}, ValueError, "`tolerance` is None"),
        ({"max_iterations": 0}, ValueError, "`max_iterations` is 0; expected a whole number"),
        ({"max_iterations": 1.5}, ValueError, "`max_iterations` is 1.5"),
    ],
)
def test_errors(named: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sl.irls(**{"design": X, "targets": Y, "loss": HUBER, **named})
