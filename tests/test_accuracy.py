"""Rho, psi and the derivatives by thresholds, against mpmath."""

import mlx.core as mx
import numpy as np
import pytest
from cases import FLOATS, orders, partial
from cases import entry as entry  # a fixture
from oracle import BOUNDS, TEXTBOOK, as_numpy, exact, residual, to_mp, ulps, wide_psi

from smoothloss._catalog import Entry

WIDE = FLOATS[0], FLOATS[3]


def data(dtype: mx.Dtype, spread: float, n: int = 1500) -> tuple[mx.array, ...]:
    """x, y and a threshold of random magnitude; the residual is often near the threshold."""
    rng = np.random.default_rng(1)
    threshold = 10 ** rng.uniform(-spread, spread, n)
    ratio = np.where(rng.random(n) < 0.5, rng.uniform(0, 2, n), 10 ** rng.uniform(-8, 8, n))
    y = rng.normal(size=n) * threshold * rng.choice([0, 1e-3, 1, 10], n)
    x = y + rng.choice([-1, 1], n) * ratio * threshold
    return tuple(mx.array(v, dtype) for v in (x, y, threshold))


def off_the_kink(x: mx.array, y: mx.array, theta: mx.array) -> np.ndarray:
    r, t = abs(residual(x, y)), to_mp(as_numpy(theta))
    return (r != 0) & (abs(r - t) > 1e-12 * t)


@pytest.mark.parametrize("dtype", WIDE)
def test_value_and_psi_within_their_bounds(entry: Entry, dtype: mx.Dtype) -> None:
    x, y, theta = data(dtype, 15 if dtype == mx.float32 else 100)
    keep = mx.array(np.flatnonzero(off_the_kink(x, y, theta)))
    assert keep.size > 1000
    x, y, *thresholds = (v[keep] for v in (x, y, *[theta] * len(entry.threshold_names)))
    wide = [to_mp(as_numpy(t)) for t in thresholds]
    for order, bound in zip([(), (0,)], BOUNDS[entry.name], strict=True):
        got = partial(entry, order)(x, y, *thresholds)
        assert ulps(got, exact(entry.name, order, residual(x, y), *wide)).max() <= bound


@pytest.mark.parametrize("dtype", WIDE)
def test_every_derivative_to_second_order(entry: Entry, dtype: mx.Dtype) -> None:
    # With y = 0 the residual is exact, and the bound is that of the formula alone.
    x, _, theta = data(dtype, 4)
    x, y = x, mx.zeros_like(x)
    keep = mx.array(np.flatnonzero(off_the_kink(x, y, theta)))
    x, y, *thresholds = (v[keep] for v in (x, y, *[theta] * len(entry.threshold_names)))
    wide = [to_mp(as_numpy(t)) for t in thresholds]
    for order in orders(entry, 2):
        got = partial(entry, order)(x, y, *thresholds)
        want = exact(entry.name, order, residual(x, y), *wide)
        assert ulps(got, want).max() <= 4, order


def test_autodiff_of_rho_agrees_off_the_kink(entry: Entry) -> None:
    x, y, theta = data(mx.float64, 1)
    keep = mx.array(np.flatnonzero(off_the_kink(x, y, theta)))
    r, *thresholds = (v[keep] for v in (x - y, *[theta] * len(entry.threshold_names)))
    for i in range(1 + len(thresholds)):
        native = mx.grad(lambda *row: entry.loss.rho(*row).sum(), argnums=i)(r, *thresholds)
        ours = partial(entry, (i,))(r, mx.zeros_like(r), *thresholds)
        # MLX's derivative of a - b cancels where ours is exact, so to 1e-9 of the larger side.
        size = np.abs(as_numpy(r)) + 1
        assert (np.abs(as_numpy(native - ours)) <= 1e-9 * size).all(), i


def test_finite_differences_of_the_library_itself(entry: Entry) -> None:
    x, y, theta = data(mx.float64, 0)
    r = np.abs(as_numpy(x - y))
    apart = (r > 1e-3) & (np.abs(r - as_numpy(theta)) > 1e-3) & (r < 1e3)
    keep = mx.array(np.flatnonzero(apart))
    x, y, *thresholds = (v[keep] for v in (x, y, *[theta] * len(entry.threshold_names)))
    for order in orders(entry, 2):
        *lower, last = order
        row = [x, y, *thresholds]
        at = last + 1 if last else 0
        h = 1e-4
        f = partial(entry, tuple(lower))
        ahead, behind = (f(*row[:at], row[at] + s * h, *row[at + 1 :]) for s in (1, -1))
        difference = as_numpy(ahead - behind) / (2 * h)
        got = as_numpy(partial(entry, order)(*row))
        np.testing.assert_allclose(got, difference, rtol=1e-5, atol=1e-5)


HALVES = [pytest.param(mx.float16, id="float16"), pytest.param(mx.bfloat16, id="bfloat16")]
GRID = (2.0**-24, 1e-3, 0.1, 0.5, 1.0, 3.0, 1000.0, 70000.0, 1e30)


def half_ulps(got: mx.array, want: np.ndarray) -> np.ndarray:
    """Like ``ulps``, vectorised; an overflow that rounding to nearest asks for counts as 0."""
    digits, least, top = (11, -24, 15) if got.dtype == mx.float16 else (8, -133, 127)
    exponent = np.frexp(np.where(want == 0, 1, want).astype(np.float64))[1]
    unit = np.exp2(np.maximum(exponent - digits, least).astype(np.longdouble))
    g = as_numpy(got).astype(np.longdouble)
    overflow = abs(want) >= (2 - 2.0**-digits) * 2.0**top  # half an ulp beyond the largest
    with np.errstate(invalid="ignore"):
        error = abs(g - want) / unit
    rounded = np.isinf(g) & (np.sign(g) == np.sign(want))
    return np.where(overflow, np.where(rounded, 0, np.inf), error)


@pytest.mark.parametrize("dtype", HALVES)
def test_all_65536_half_precision_residuals(entry: Entry, dtype: mx.Dtype) -> None:
    x = mx.arange(65536).astype(mx.uint16).view(dtype)
    r = as_numpy(x).astype(np.longdouble)
    finite = np.isfinite(as_numpy(x))
    for value in GRID if entry.loss.thresholds else (None,):
        theta = () if value is None else (mx.full((), value, mx.float32),)
        wide = [np.array(t).astype(np.longdouble) for t in theta]
        rho, psi = partial(entry, ()), partial(entry, (0,))
        for f, want in (
            (rho, TEXTBOOK[entry.name](r[finite], *wide)),
            (psi, wide_psi(entry.name, r[finite], *wide)),
        ):
            got = f(x, mx.zeros_like(x), *theta)
            assert got.dtype == dtype
            error = half_ulps(got[mx.array(np.flatnonzero(finite))], want)
            assert (error <= 0.5001).all(), (value, error.max())
            nan = np.isnan(as_numpy(x))
            assert np.isnan(as_numpy(got)[nan]).all()
            assert not np.isnan(as_numpy(got)[~nan]).any()


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_pairs(entry: Entry, dtype: mx.Dtype) -> None:
    """x - y is not rounded to half either."""
    x, y = (mx.random.normal((20000,)).astype(dtype) * 30 for _ in range(2))
    theta = [mx.array(0.1)] * len(entry.threshold_names)
    r = (as_numpy(x) - as_numpy(y)).astype(np.longdouble)
    wide = [np.array(t).astype(np.longdouble) for t in theta]
    got = partial(entry, ())(x, y, *theta)
    assert half_ulps(got, TEXTBOOK[entry.name](r, *wide)).max() <= 0.5001
    got = partial(entry, (0,))(x, y, *theta)
    assert half_ulps(got, wide_psi(entry.name, r, *wide)).max() <= 0.5001
