"""Iteratively reweighted least squares: what it solves, where it starts, where it ends."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from cases import STACK_LOSS, Entry, thresholds

import smoothloss as sl
from smoothloss._demo.data import phones
from smoothloss._demo.fit import fit as descend

pytestmark = pytest.mark.float64  # of the data; float32 is in test_irls_arguments.py

NAN = float("nan")
HUBER = sl.RobustNorm(sl.huber_loss, delta=1.345)
WELSCH = sl.RobustNorm(sl.welsch_loss, scale=2.11)


def data(m: int = 4, n: int = 20, p: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """m regressions with an intercept, each with errors of a few outliers."""
    rng = np.random.default_rng(seed)
    design = np.concatenate([np.ones((m, n, 1)), rng.normal(size=(m, n, p - 1))], -1)
    targets = (design @ rng.normal(size=(m, p, 1)))[..., 0] + rng.standard_t(2, size=(m, n))
    return design, targets


def f64(values: Any) -> mx.array:
    return mx.array(np.array(values), mx.float64)


def fit64(design: Any, targets: Any, loss: Any = HUBER, **named: Any) -> sl.RobustFit:
    return sl.irls(f64(design), f64(targets), loss, **named)


def close(got: Any, want: Any, size: float = 1e-9) -> None:
    np.testing.assert_allclose(np.array(got), np.array(want), rtol=size, atol=size)


def by_numpy(a: np.ndarray, y: np.ndarray, norm: sl.RobustNorm, steps: int = 120) -> Any:
    """The loop as a statistician writes it."""
    line = np.linalg.lstsq(a, y, rcond=None)[0]
    for _ in range(steps):
        r = a @ line - y
        scale = np.median(abs(r)) / 0.6744897501960817
        w = np.array(norm.weight(f64(r / scale)))
        line = np.linalg.solve(a.T * w @ a, a.T * w @ y)
    return line, scale, w


@pytest.mark.parametrize("norm", [HUBER, WELSCH, sl.RobustNorm(sl.cauchy_loss, scale=1.7)])
def test_it_is_the_loop_by_hand(norm: sl.RobustNorm) -> None:
    design, targets = data()
    got = fit64(design, targets, norm)
    assert got.converged.all()
    for i in range(len(design)):
        line, scale, w = by_numpy(design[i], targets[i], norm)
        close(got.coefficients[i], line, 1e-6)
        close(got.scale[i], scale, 1e-6)
        close(got.weights[i], w, 1e-6)


def test_the_figures_of_the_textbooks() -> None:
    """Huber's fits of R's rlm; iterated to the end, that of the phones is what descent finds."""
    design = np.column_stack([np.ones(21), STACK_LOSS[:, :3]])
    stack = fit64(design, STACK_LOSS[:, 3])
    close(stack.coefficients, [-41.0265, 0.8294, 0.9261, -0.1278], 5e-5)
    close(stack.scale, 2.441, 5e-4)
    table = phones()
    line = fit64(np.stack([np.ones_like(table.x), table.x], 1), table.y)
    close(line.coefficients, [-102.530, 2.0396], 5e-4)
    close(line.scale, 9.0093, 5e-5)
    descent = descend("huber", table)
    assert line.coefficients[1].item() == pytest.approx(descent.slope, rel=1e-4)
    assert line.coefficients[0].item() == pytest.approx(descent.intercept, rel=1e-4)


def test_under_every_loss_the_weighted_residuals_balance(entry: Entry) -> None:
    """The coefficients solve the equation of the estimate: psi is orthogonal to the columns."""
    design, targets = data(2, n=24)
    norm = sl.RobustNorm(entry.function, **thresholds(entry, 1.5))
    got = fit64(design, targets, norm, tolerance=1e-10, max_iterations=2000)
    corner = norm.traits.smoothness == 0
    r = (design @ np.array(got.coefficients)[..., None])[..., 0] - targets
    u = r / np.array(got.scale)[:, None]
    psi = np.where(abs(u) < 1e-6, 0, np.array(norm.psi(f64(u)))) if corner else norm.psi(f64(u))
    pull = np.einsum("mn,mnp->mp", np.array(psi), design)
    # At a corner, a residual of 0 pulls with anything up to the bound of psi.
    rest = (abs(u) < 1e-6).sum(-1) * abs(design).max() if corner else 1e-6 * np.array([1, 1])
    assert (abs(pull).max(-1) <= rest + 1e-6).all()


def test_a_fixed_scale_is_the_minimum_of_the_loss() -> None:
    design, targets = data()
    scale = np.array([0.5, 1.0, 2.0, 4.0])
    got = fit64(design, targets, sl.HuberLoss(1.345), scale=f64(scale))
    close(got.scale, scale, 0)
    loss = lambda b: sl.huber_loss(
        (f64(design) @ b[..., None])[..., 0], f64(targets), f64(1.345 * scale[:, None]), "sum"
    )
    assert np.abs(np.array(mx.grad(loss)(got.coefficients))).max() < 1e-5
    one = fit64(design[1], targets[1], sl.HuberLoss(1.345), scale=1.0)
    close(one.coefficients, got.coefficients[1])


def test_none_depends_on_the_others() -> None:
    design, targets = data(7)
    whole = fit64(design, targets)
    assert len(set(whole.iterations.tolist())) > 2
    for i in range(7):
        alone = fit64(design[i], targets[i])
        close(alone.coefficients, whole.coefficients[i], 1e-13)
        assert alone.iterations.item() == whole.iterations[i].item()
        assert (alone.coefficients.shape, alone.scale.shape, alone.weights.shape) == (
            (3,),
            (),
            (20,),
        )


def test_leading_axes_broadcast() -> None:
    design, targets = data(6)
    got = fit64(design.reshape(2, 3, 20, 3), targets.reshape(2, 3, 20))
    close(got.coefficients.reshape(6, 3), fit64(design, targets).coefficients, 1e-13)
    assert got.converged.shape == got.iterations.shape == got.scale.shape == (2, 3)
    shared = fit64(design[0], targets)
    repeated = fit64(np.broadcast_to(design[0], design.shape), targets)
    close(shared.coefficients, repeated.coefficients)
    crossed = fit64(design[:2, None], targets[None, :3])
    assert crossed.weights.shape == (2, 3, 20)
    close(crossed.coefficients[1, 2], fit64(design[1], targets[2]).coefficients)
    none = sl.irls(mx.zeros((0, 5, 2)), mx.zeros((0, 5)), HUBER)
    assert none.coefficients.shape == (0, 2) and none.weights.shape == (0, 5)


def test_weights_count_rows() -> None:
    design, targets = data(1)
    times = np.random.default_rng(3).integers(0, 4, 20)
    got = fit64(design, targets, weights=mx.array(times[None]))
    want = fit64(np.repeat(design, times, 1), np.repeat(targets, times, 1))
    close(got.coefficients, want.coefficients, 1e-7)
    close(got.scale, want.scale, 1e-7)
    many, once = fit64(design, targets, weights=1e6), fit64(design, targets)
    close(many.coefficients, once.coefficients)
    assert many.iterations.tolist() == once.iterations.tolist()


def test_where_selects_rows_whatever_the_others_hold() -> None:
    design, targets = data(2)
    mask = np.arange(20) % 5 > 0
    want = fit64(design[:, mask], targets[:, mask])
    design[0, ~mask, 1], targets[:, ~mask] = NAN, np.inf
    got = fit64(design, targets, where=mx.array(mask[None]))
    close(got.coefficients, want.coefficients, 1e-7)
    close(got.weights[:, mx.array(np.flatnonzero(mask))], want.weights, 1e-7)
    for scale in ({}, {"scale": 1.0}):
        nothing = fit64(design, targets, where=mx.zeros((1, 20), mx.bool_), **scale)
        assert mx.isnan(nothing.coefficients).all() and not nothing.converged.any()


def test_one_bad_regression_spoils_no_other() -> None:
    design, targets = data(5)
    want = fit64(design, targets)
    design[0, 3, 1], targets[1, 2], targets[3, 0] = NAN, NAN, math.inf
    w = np.ones((5, 20))
    w[4, 0] = -1
    got = fit64(design, targets, weights=mx.array(w))
    close(got.coefficients[2], want.coefficients[2])
    assert got.converged.tolist() == [False, False, True, False, False]
    bad = mx.array([0, 1, 3, 4])
    assert all(mx.isnan(v[bad]).all().item() for v in got[:3])


LOSSES = [
    HUBER,
    sl.PseudoHuberLoss(1.3),
    sl.CauchyLoss(1.7),
    WELSCH,
    sl.GemanMcClureLoss(),
    sl.L1Loss(),
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("unit", [1e-200, 1e-30, 1.0, 1e30, 1e200])
def test_data_of_which_more_than_half_fit_exactly_end_at_that_fit(loss: Any, unit: float) -> None:
    """Their scale falls to 0, and the outlier is left with no weight."""
    x = np.arange(1.0, 17.0)
    y = unit * np.where(x < 16, 2 + x, 1000.0)
    got = fit64(np.stack([np.ones_like(x), x], 1), y, loss)
    close(np.array(got.coefficients) / unit, [2, 1], 1e-12)
    assert got.scale.item() == 0 and got.converged.item()
    weights = np.array(got.weights)
    assert weights[-1] < 1e-6 * weights[0] and (weights[:-1] == weights[0]).all()


def test_data_of_which_all_fit_exactly() -> None:
    design, _ = data()
    b = np.arange(12.0).reshape(4, 3)  # the first targets are not all equal, the fit is 0, 1, 2
    got = sl.irls(design, np.einsum("mnp,mp->mn", design, b), HUBER)
    close(got.coefficients, b, 1e-6)
    assert got.converged.all() and not got.scale.any() and (got.weights == 1).all()
    zero = sl.irls(design, np.zeros((4, 20)), HUBER)
    assert not zero.coefficients.any() and zero.converged.all() and (zero.weights == 1).all()
    most = fit64(design[0], np.arange(20.0) // 15)  # 0 but for the last five
    assert most.converged.item() and not most.scale.item()
    close(most.coefficients, [0, 0, 0], 1e-12)
    square = fit64(design[:, :3], data()[1][:, :3])  # n = p
    assert square.converged.all() and not square.scale.any()


def test_an_outlier_of_any_size_leaves_digits_to_the_rest() -> None:
    design, targets = data(1)
    targets[0, 0] = 1e12
    far = fit64(design, targets, WELSCH, start="l1")
    without = fit64(design[:, 1:], targets[:, 1:], WELSCH, start=far.coefficients)
    assert abs(np.array(far.coefficients) - np.array(without.coefficients)).max() < 0.3
    assert far.weights[0, 0].item() == 0 and far.converged.item()


def test_float32_data_are_fitted_in_float64() -> None:
    """Years and their squares: the condition number of the normal equations is 1e17."""
    year = np.arange(1950.0, 1974.0)
    design = np.stack([np.ones(24), year, year**2], 1)
    targets = np.random.default_rng(0).normal(size=24) + (year - 1960) ** 2
    got = sl.irls(mx.array(design, mx.float32), mx.array(targets, mx.float32), HUBER)
    centred = np.stack([np.ones(24), year - 1962, (year - 1962) ** 2], 1)
    want = sl.irls(mx.array(centred, mx.float32), mx.array(targets, mx.float32), HUBER)
    assert got.coefficients[2].item() == pytest.approx(want.coefficients[2].item(), rel=1e-5)
    assert got.scale.item() == pytest.approx(want.scale.item(), rel=1e-5)


def test_a_design_of_deficient_rank_has_the_fit_of_its_columns() -> None:
    design, targets = data(2)
    twice = np.concatenate([design, design[..., 1:2], 0 * design[..., :1]], -1)
    got, want = fit64(twice, targets), fit64(design, targets)
    close(got.weights, want.weights, 1e-7)
    half = np.array(want.coefficients[:, 1]) / 2
    close(got.coefficients[:, 1], half, 1e-7)
    close(got.coefficients[:, 3], half, 1e-7)
    assert not got.coefficients[:, 4].any()


def test_a_start_decides_between_minima() -> None:
    """Nine points at 0 and eight at 10: each is a minimum of Welsch's loss."""
    targets = np.concatenate([np.linspace(-0.1, 0.1, 9), np.linspace(9.9, 10.1, 8)])
    ones = np.ones((17, 1))
    found = [
        fit64(ones, targets, sl.WelschLoss(1.0), scale=1.0, start=f64([start])).coefficients.item()
        for start in (0.5, 9.5)
    ]
    assert found == pytest.approx([0, 10], abs=1e-6)
    middle = fit64(ones, targets, sl.WelschLoss(1.0), scale=0.01)
    assert middle.converged.item() and not middle.weights.any()  # none has any weight: it rests
    median = fit64(ones, targets, sl.WelschLoss(1.0), scale=0.1, start="l1")
    assert median.coefficients.item() == pytest.approx(0, abs=0.05)
    assert fit64(ones, targets, sl.L1Loss()).coefficients.item() == pytest.approx(0.1, abs=1e-5)


def test_a_function_of_ones_own_gives_the_scale() -> None:
    design, targets = data()
    calls: list[dict] = []

    def mean_size(r: mx.array, axis: int, **named: Any) -> mx.array:
        calls.append(named)
        return mx.abs(r).mean(axis) * math.sqrt(math.pi / 2)

    got = fit64(design, targets, scale=mean_size)
    r = (design @ np.array(got.coefficients)[..., None])[..., 0] - targets
    close(got.scale, abs(r).mean(-1) * math.sqrt(math.pi / 2), 1e-7)
    assert got.converged.all() and calls[0] == {}
    fit64(design, targets, scale=mean_size, weights=mx.ones((4, 20)))
    assert calls[-1]["weights"].shape == (4, 20)
    nan = fit64(design, targets, scale=lambda r, axis: mx.full(r.shape[:1], NAN, r.dtype))
    assert mx.isnan(nan.coefficients).all() and not nan.converged.any()
    invalid = fit64(design, targets, scale=mx.array([1.0, -1.0, 0.0, 2.0]))
    assert invalid.converged.tolist() == [True, False, False, True]


def test_quantiles() -> None:
    """A tenth of the residuals is below, of either sign convention."""
    x = np.linspace(0, 1, 101)
    targets = 2 * x + np.random.default_rng(0).exponential(size=101)
    got = fit64(np.stack([np.ones(101), x], 1), targets, sl.QuantileLoss(0.9), max_iterations=2000)
    above = (targets > np.stack([np.ones(101), x], 1) @ np.array(got.coefficients)).mean()
    assert above == pytest.approx(0.1, abs=0.02)


def test_it_says_where_it_has_not_converged() -> None:
    design, targets = data()
    got = fit64(design, targets, max_iterations=2)
    assert not got.converged.any() and got.iterations.tolist() == [2] * 4
    loose = fit64(design, targets, tolerance=0.1)
    assert loose.converged.all()
    assert (loose.iterations < fit64(design, targets).iterations).all()
    assert fit64(design, targets, sl.MSELoss()).iterations.tolist() == [1] * 4
