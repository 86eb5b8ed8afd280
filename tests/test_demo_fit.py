"""The demo's fits against oracles in NumPy float64 and published figures."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from smoothloss._demo import data, report
from smoothloss._demo.fit import LOSSES, Fit, fit

Array = npt.NDArray[np.float64]
Line = tuple[float, float]

PHONES = data.phones()


def table(x: Array, y: Array) -> data.Table:
    return data.Table("x", "y", x, y)


@functools.cache
def phones(loss: str) -> Fit:
    return fit(loss, PHONES)


# Oracles. Each returns (slope, intercept).


def least_squares(x: Array, y: Array, weights: Array | float = 1.0) -> Line:
    center = x.mean()
    root = np.sqrt(weights) * np.ones_like(x)
    design = root[:, None] * np.stack([x - center, np.ones_like(x)], 1)
    slope, level = np.linalg.lstsq(design, root * y, rcond=None)[0]
    return slope, level - slope * center


def residuals(x: Array, y: Array, line: Line) -> Array:
    return y - line[0] * x - line[1]


def least_absolute(x: Array, y: Array) -> list[Line]:
    """All the best among the lines through two points, where one of the minima is."""
    lines = [
        ((y[j] - y[i]) / (x[j] - x[i]), y[i] - (y[j] - y[i]) / (x[j] - x[i]) * x[i])
        for i, j in itertools.combinations(range(len(x)), 2)
    ]
    sums = [np.abs(residuals(x, y, line)).sum() for line in lines]
    return [line for line, s in zip(lines, sums, strict=True) if s <= min(sums) * (1 + 1e-12)]


def reweighted(x: Array, y: Array, threshold: Callable[[Array], float], rounds: int) -> Line:
    """Iterated least squares with Huber's weights."""
    line = least_squares(x, y)
    for _ in range(rounds):
        r = np.abs(residuals(x, y, line))
        delta = threshold(r)
        line = least_squares(x, y, delta / np.maximum(r, delta))
    return line


def mad(r: Array) -> float:
    return float(np.median(np.abs(r))) / 0.6744897501960817


def huber(x: Array, y: Array) -> Line:
    line = reweighted(x, y, lambda r: 1.345 * mad(r), 1000)
    psi = np.clip(r := residuals(x, y, line), -1.345 * mad(r), 1.345 * mad(r))
    assert abs(psi.sum()) <= 1e-10 * np.abs(psi).sum()
    assert abs(psi @ (x - x.mean())) <= 1e-10 * np.abs(psi) @ np.abs(x - x.mean())
    return line


def smooth_l1(x: Array, y: Array) -> Line:
    """Reweighting comes near the minimum, and Newton's method to it."""
    slope, intercept = reweighted(x, y, lambda _: 1.0, 1000)
    design = np.stack([x, np.ones_like(x)], 1)
    for _ in range(20):
        r = residuals(x, y, (slope, intercept))
        inside = design[np.abs(r) < 1]
        gradient = np.clip(r, -1, 1) @ design
        step = np.linalg.solve(inside.T @ inside, gradient)
        slope, intercept = slope + step[0], intercept + step[1]
    assert np.abs(np.clip(residuals(x, y, (slope, intercept)), -1, 1) @ design).max() < 1e-9
    return slope, intercept


ORACLES: dict[str, Callable[[Array, Array], Line]] = {
    "mse": least_squares,
    "smooth_l1": smooth_l1,
    "huber": huber,
}


def outliers(seed: int, n: int = 40) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-3, 10, n)
    y = 2 - 0.7 * x + rng.standard_t(2, n)
    y[: n // 5] += 40
    return x, y


# Fits


def test_phones_are_the_published_data() -> None:
    assert (PHONES.x_name, PHONES.y_name) == ("year", "calls")
    np.testing.assert_array_equal(PHONES.x, np.arange(50, 74))
    assert PHONES.y.sum() == pytest.approx(1199.8, abs=1e-9)
    assert PHONES.y[14:20].tolist() == [119, 124, 142, 159, 182, 212]


@pytest.mark.parametrize(
    ("loss", "slope", "intercept"), [("mse", 5.0415, -260.059), ("huber", 2.0396, -102.530)]
)
def test_phones_match_published_figures(loss: str, slope: float, intercept: float) -> None:
    assert phones(loss).converged
    assert phones(loss).slope == pytest.approx(slope, rel=2e-5)
    assert phones(loss).intercept == pytest.approx(intercept, rel=1e-5)


def test_phones_match_published_scale() -> None:
    assert phones("huber").scale == pytest.approx(9.0093, rel=1e-5)


@pytest.mark.parametrize("loss", ORACLES)
def test_phones_match_oracle(loss: str) -> None:
    line = ORACLES[loss](PHONES.x, PHONES.y)
    assert (phones(loss).slope, phones(loss).intercept) == pytest.approx(line, rel=2e-6)


def test_phones_have_many_best_lines_under_l1() -> None:
    best = least_absolute(PHONES.x, PHONES.y)
    slopes = [slope for slope, _ in best]
    found = phones("l1")
    least = np.abs(residuals(PHONES.x, PHONES.y, best[0])).sum()
    reached = np.abs(residuals(PHONES.x, PHONES.y, (found.slope, found.intercept))).sum()
    assert least == pytest.approx(844.0, rel=1e-12)
    assert reached == pytest.approx(least, rel=1e-6)
    assert min(slopes) <= found.slope <= max(slopes)
    assert f"{min(slopes):.4f} to {max(slopes):.4f}" in report.L1_NOTE


@pytest.mark.parametrize("loss", ORACLES)
@pytest.mark.parametrize("seed", range(3))
def test_outliers_match_oracle(loss: str, seed: int) -> None:
    x, y = outliers(seed)
    f = fit(loss, table(x, y))
    assert f.converged
    assert (f.slope, f.intercept) == pytest.approx(ORACLES[loss](x, y), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_outliers_reach_the_least_sum(seed: int) -> None:
    x, y = outliers(seed)
    f = fit("l1", table(x, y))
    least = np.abs(residuals(x, y, least_absolute(x, y)[0])).sum()
    assert f.converged
    assert np.abs(residuals(x, y, (f.slope, f.intercept))).sum() == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("unit", [1e-25, 1e-3, 1e9, 1e25])
@pytest.mark.parametrize("loss", LOSSES)
def test_far_from_unit_scale(loss: str, unit: float) -> None:
    x, y = outliers(0)
    f = fit(loss, table(1e6 + 1e5 * x, unit * y))
    # At these units every residual is inside beta = 1, or every one outside.
    oracle: Callable[[Array, Array], Line] = {
        "mse": least_squares,
        "l1": lambda x, y: least_absolute(x, y)[0],
        "smooth_l1": least_squares if unit < 1 else lambda x, y: least_absolute(x, y)[0],
        "huber": huber,
    }[loss]
    slope, intercept = oracle(x, y)
    assert f.converged
    assert f.slope * 1e5 / unit == pytest.approx(slope, rel=1e-5)
    assert (f.intercept + f.slope * 1e6) / unit == pytest.approx(intercept, rel=1e-5)


def test_beta_is_in_units_of_the_data() -> None:
    """Residuals lie on both sides of beta = 1, so the answer is no other loss's."""
    x, y = outliers(0)
    f = fit("smooth_l1", table(x - 1e6, 3 + y))
    slope, intercept = smooth_l1(x, y)
    assert f.slope == pytest.approx(slope, rel=1e-5)
    assert f.intercept - f.slope * 1e6 - 3 == pytest.approx(intercept, rel=1e-4)


@pytest.mark.parametrize("unit", [1.0, 1e-20])
@pytest.mark.parametrize("outlier", [1e9, 1e25, -1e30])
def test_outliers_of_any_size(outlier: float, unit: float) -> None:
    """Once far away, an outlier pulls the same, however far; but squared error follows it."""
    x, y = outliers(0)
    near, far = y.copy(), unit * y
    near[:3], far[:3] = np.copysign(1e4, outlier), outlier
    fits = {loss: fit(loss, table(x, far)) for loss in LOSSES}
    assert all(f.converged for f in fits.values())

    def line(f: Fit) -> Line:
        return f.slope / unit, f.intercept / unit

    least = np.abs(residuals(x, near, least_absolute(x, near)[0])).sum()
    assert np.abs(residuals(x, near, line(fits["l1"]))).sum() == pytest.approx(least, rel=1e-6)
    assert line(fits["huber"]) == pytest.approx(huber(x, near), rel=1e-4)
    if unit == 1:
        assert line(fits["smooth_l1"]) == pytest.approx(smooth_l1(x, near), rel=1e-4)
    mse = fits["mse"]
    assert (mse.slope, mse.intercept) == pytest.approx(least_squares(x, far), rel=1e-4)


@pytest.mark.parametrize("bulk", [0.0, 7.0, 1e-40])
def test_outlier_of_a_constant(bulk: float) -> None:
    x, y = np.arange(12.0), np.full(12, bulk)
    y[3], y[7] = bulk / 2, 1e25
    for loss in ("l1", "huber"):
        f = fit(loss, table(x, y))
        assert f.converged
        assert (f.slope, f.intercept) == pytest.approx((0, bulk), abs=1e-6)


@pytest.mark.parametrize("noise", [0.0, 6e-17])
def test_more_than_half_are_equal_but_for_rounding(noise: float) -> None:
    x = np.arange(20.0)
    y = 0.3 + 0.1 * np.maximum(x - 10, 0) + noise * (x % 2)
    f = fit("l1", table(x, y))
    least = np.abs(residuals(x, y, least_absolute(x, y)[0])).sum()
    assert f.converged
    assert np.abs(residuals(x, y, (f.slope, f.intercept))).sum() == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_values_whose_mean_is_rounded(loss: str) -> None:
    x = 1e16 + np.array([0.0, 2, 4, 6])
    f = fit(loss, table(x, np.array([0.0, 2, 0, 4])))
    assert f.converged
    if loss == "mse":
        assert f.slope == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("path", [np.nan, np.inf])
def test_no_convergence_without_a_number(path: float) -> None:
    assert not Fit("l1", np.nan, np.nan, np.nan, 100, path).converged


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("slope", "intercept"), [(2.0, 5.0), (-3e-4, 1e4), (0.0, 7.0)])
def test_perfect_line(loss: str, slope: float, intercept: float) -> None:
    x = np.arange(24.0)
    f = fit(loss, table(x, intercept + slope * x))
    assert f.converged
    assert f.slope == pytest.approx(slope, rel=1e-5, abs=1e-12)
    assert f.intercept == pytest.approx(intercept, rel=1e-5)
    assert 0 <= f.scale <= 1e-5 * max(abs(slope), 1)


@pytest.mark.parametrize("loss", LOSSES)
def test_three_points(loss: str) -> None:
    f = fit(loss, table(np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, 1.0])))
    assert f.converged
    assert np.isfinite([f.slope, f.intercept, f.scale]).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_steps_are_compiled_once(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[float] = []
    objective = LOSSES[loss]

    def counting(predictions: mx.array, targets: mx.array, unit: float) -> mx.array:
        traced.append(unit)
        return objective(predictions, targets, unit)

    monkeypatch.setitem(LOSSES, loss, counting)
    assert fit(loss, PHONES).steps > 300
    assert len(traced) == 1
