"""Rho, psi and the derivatives by thresholds, against mpmath."""

import itertools
from collections.abc import Callable

import device
import mlx.core as mx
import mpmath
import numpy as np
import pytest
from cases import (
    FLOATS,
    WITH_THRESHOLD,
    Entry,
    call,
    fitted,
    numbers,
    orders,
    partial,
)
from oracle import (
    as_numpy,
    exact,
    expected,
    in_float64,
    off_the_kinks,
    residual,
    to_mp,
    ulps,
    vectorised,
)

WIDE = FLOATS[0], FLOATS[3]


def data(
    entry: Entry, dtype: mx.Dtype, spread: float, n: int, reach: float = 8, targets: bool = True
) -> tuple[mx.array, ...]:
    """x, y and thresholds of random magnitude; the residual is often near those of its units.

    ``spread`` and ``reach`` are decades, of the thresholds and of the residual beyond them.
    """
    rng = np.random.default_rng(1)
    specs = entry.loss.thresholds
    unit = 10 ** (rng.uniform(-spread, spread, n) * any(s.has_residual_units for s in specs))
    ratio = np.where(rng.random(n) < 0.5, rng.uniform(0, 2, n), 10 ** rng.uniform(-reach, reach, n))
    y = targets * rng.normal(size=n) * unit * rng.choice([0, 1e-3, 1, 10], n)
    x = y + rng.choice([-1, 1], n) * ratio * unit
    theta = [unit if s.has_residual_units else rng.choice(numbers(s), n) for s in specs]
    row = tuple(mx.array(v, dtype) for v in (x, y, *theta))
    keep = off_the_kinks(entry, residual(*row[:2]), *(to_mp(as_numpy(t)) for t in row[2:]))
    assert keep.sum() > 0.9 * n
    return tuple(v[mx.array(np.flatnonzero(keep))] for v in row)


def error(entry: Entry, order: tuple[int, ...], got: mx.array, *row: np.ndarray) -> np.ndarray:
    """In ulp beyond what the record allows for rho and psi."""
    want = exact(entry, order, *row)
    bound = expected(entry, entry.textbook.ulps[len(order)], *row)
    free = 0 if order else expected(entry, entry.textbook.absolute, *row)
    far = abs(to_mp(as_numpy(got)) - want) > free
    return np.where(far, ulps(got, want), 0) - bound


@pytest.mark.parametrize("dtype", WIDE)
def test_value_and_psi_within_their_bounds(entry: Entry, dtype: mx.Dtype) -> None:
    x, y, *theta = data(entry, dtype, 15 if dtype == mx.float32 else 100, 1000)
    row = residual(x, y), *(to_mp(as_numpy(t)) for t in theta)
    for order in [(), (0,)]:
        assert error(entry, order, partial(entry, order)(x, y, *theta), *row).max() <= 0, order


@pytest.mark.parametrize("dtype", WIDE)
def test_residuals_from_1e_30_to_1e30(entry: Entry, dtype: mx.Dtype) -> None:
    x, y, *theta = data(entry, dtype, 0, 1000, 30, targets=False)
    row = residual(x, y), *(to_mp(as_numpy(t)) for t in theta)
    for order in [(), (0,)]:
        assert error(entry, order, partial(entry, order)(x, y, *theta), *row).max() <= 0, order


@pytest.mark.parametrize(
    "entry", [e for e in WITH_THRESHOLD if any(w in e.id for w in ("general", "quantile"))]
)
@pytest.mark.parametrize("dtype", WIDE)
def test_any_shape_at_all(entry: Entry, dtype: mx.Dtype) -> None:
    """Not only the special ones: uniform in +-15.9, and closer and closer to 0 and 2."""
    rng = np.random.default_rng(3)
    n = 3000
    close = rng.choice([0, 2], n) + rng.choice([-1, 1], n) * 10 ** rng.uniform(-7, 0, n)
    shape = np.where(rng.random(n) < 0.7, rng.uniform(-15.9, 15.9, n), close)
    each = [
        np.ones(n) if s.has_residual_units else np.clip(shape, s.low, s.high)
        for s in entry.loss.thresholds
    ]
    r = 10 ** np.where(rng.random(n) < 0.6, rng.uniform(-2, 2, n), rng.uniform(-15, 15, n))
    x, *theta = (mx.array(v, dtype) for v in (r * rng.choice([-1, 1], n), *each))
    row = [to_mp(as_numpy(v)) for v in (x, *theta)]
    keep = off_the_kinks(entry, *row)
    row, at = [v[keep] for v in row], mx.array(np.flatnonzero(keep))
    for order in [(), (0,)]:
        got = partial(entry, order)(x, mx.zeros_like(x), *theta)[at]
        assert error(entry, order, got, *row).max() <= 0, order


def grid(entry: Entry, units: tuple[float, ...]) -> list[np.ndarray]:
    """Every combination of thresholds: these for those of the residual's units, else all."""
    specs = entry.loss.thresholds
    each = np.meshgrid(*(units if s.has_residual_units else numbers(s) for s in specs))
    return [t.ravel() for t in each] if specs else []


def test_infinite_residuals_have_the_limits(entry: Entry) -> None:
    """Those of rho and psi at 1e300, in float32."""
    theta = grid(entry, (0.5, 2.0))
    if theta:  # near 0, a shape comes to its limit far beyond
        theta = [t[(theta[0] == 0) | (abs(theta[0]) > 0.1)] for t in theta]
    n = theta[0].size if theta else 1
    arrays = [mx.array(t, mx.float32) for t in theta]
    for sign in (1, -1):
        x = mx.full((n,), sign * mx.inf)
        far = np.full(n, sign * mpmath.mpf(10) ** 300)
        for order in [(), (0,)]:
            got = as_numpy(partial(entry, order)(x, mx.zeros(n), *arrays))
            want = exact(entry, order, far, *(to_mp(as_numpy(t)) for t in arrays))
            limit = np.array([mpmath.sign(w) * mpmath.inf if abs(w) > 100 else w for w in want])
            np.testing.assert_allclose(got, limit.astype(float), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("dtype", WIDE)
def test_every_derivative_to_second_order(entry: Entry, dtype: mx.Dtype) -> None:
    """Within a few ulp of the derivative, or of that of inputs a few ulp off."""
    # With y = 0 the residual is exact, and the bound is that of the formula alone.
    x, y, *theta = data(entry, dtype, 4, 150, 4, targets=False)
    row = [to_mp(as_numpy(v)) for v in (x, *theta)]
    regular = off_the_kinks(entry, *row)
    for spec, v in zip(entry.loss.thresholds, row[1:], strict=True):
        # Errors grow with a shape, and by one of 2 there is no derivative.
        if not spec.has_residual_units:
            regular &= np.array([abs(t) < 8 and t != 2 for t in v])
    x, y, *theta = (v[mx.array(np.flatnonzero(regular))] for v in (x, y, *theta))
    row = [v[regular] for v in row]
    assert len(row[0]) > 80
    eps, least = (float(getattr(mx.finfo(dtype), k)) for k in ("eps", "smallest_normal"))
    for order in orders(entry, 2):
        want = exact(entry, order, *row)
        size = abs(want)
        for i, v in enumerate(row):
            moved = exact(entry, order, *row[:i], v * (1 + mpmath.mpf(10) ** -12), *row[i + 1 :])
            size = size + abs(moved - want) * 1e12
        off = abs(to_mp(as_numpy(partial(entry, order)(x, y, *theta))) - want)
        by_number = any(i and not entry.loss.thresholds[i - 1].has_residual_units for i in order)
        bound = entry.textbook.by_shape if by_number else 4
        absolute = entry.textbook.by_shape_absolute if by_number else 0
        assert (off <= bound * eps * size + least + absolute * np.maximum(1, size)).all(), order


@pytest.mark.float64
def test_autodiff_of_rho_agrees_off_the_kink(entry: Entry) -> None:
    x, y, *theta = data(entry, mx.float64, 1, 1000, 3)
    r = x - y
    theta = [
        t if s.has_residual_units else mx.random.uniform(0.1, 0.9, t.shape).astype(t.dtype)
        for s, t in zip(entry.loss.thresholds, theta, strict=True)
    ]
    for i in range(1 + len(theta)):
        native = mx.grad(lambda *row: entry.loss.rho(*row).sum(), argnums=i)(r, *theta)
        ours = partial(entry, (i,))(r, mx.zeros_like(r), *theta)
        # MLX's derivative of a - b cancels where ours is exact, so to 1e-9 of the larger side.
        size = np.abs(as_numpy(r)) + 1
        assert (np.abs(as_numpy(native - ours)) <= 1e-9 * size).all(), i


@pytest.mark.float64
def test_finite_differences_of_the_library_itself(entry: Entry) -> None:
    rng = np.random.default_rng(2)
    n = 500
    theta = [rng.uniform(0.3, 0.9, n) for _ in entry.threshold_names]
    r = rng.uniform(-3, 3, n)
    near = [
        any(abs(v - kink) < 1e-3 for kink in entry.trait("kinks", *t))
        for v, *t in zip(r, *theta, strict=True)
    ]
    r = np.where(near, 5, r)
    y = rng.normal(size=n)
    row = [mx.array(v, mx.float64) for v in (y + r, y, *theta)]
    for order in orders(entry, 2):
        *lower, last = order
        at = last + 1 if last else 0
        h = 1e-4
        f = partial(entry, tuple(lower))
        ahead, behind = (f(*row[:at], row[at] + s * h, *row[at + 1 :]) for s in (1, -1))
        difference = as_numpy(ahead - behind) / (2 * h)
        got = as_numpy(partial(entry, order)(*row))
        np.testing.assert_allclose(got, difference, rtol=1e-5, atol=1e-5)


HALVES = [pytest.param(mx.float16, id="float16"), pytest.param(mx.bfloat16, id="bfloat16")]
GRID = (2.0**-24, 1e-3, 0.1, 0.5, 1.0, 3.0, 1000.0, 70000.0, 1e30)


def half_ulps(got: mx.array, want: np.ndarray, free: np.ndarray | float = 0) -> np.ndarray:
    """Like ``ulps``, vectorised, but of the error beyond ``free``.

    An overflow that rounding to nearest asks for counts as 0.
    """
    digits, least, top = (11, -24, 15) if got.dtype == mx.float16 else (8, -133, 127)
    exponent = np.frexp(np.where(want == 0, 1, want))[1]
    unit = np.exp2(np.maximum(exponent - digits, least))
    limit = (2 - 2.0**-digits) * 2.0**top  # half an ulp beyond the largest
    overflow, nearly = abs(want) >= limit, abs(want) >= limit * (1 - 2.0**-22)  # in float32
    g = as_numpy(got)
    with np.errstate(invalid="ignore"):
        error = np.maximum(abs(g - want) - free, 0) / unit
    error[(abs(want) < 2.0**-126) & (abs(g) <= 2 * abs(want))] = 0  # no normal number of float32
    rounded = np.isinf(g) & (np.sign(g) == np.sign(want))
    error[nearly & rounded] = 0
    return np.where(overflow & ~rounded, np.inf, error)


def halves(entry: Entry) -> list[tuple[float, ...]]:
    """Thresholds for the exhaustive tests: plain numbers are thinned out."""
    specs = entry.loss.thresholds
    each = (
        GRID if s.has_residual_units else numbers(s)[:: max(1, len(numbers(s)) // 4)] for s in specs
    )
    return list(itertools.product(*each))


def rho_and_psi(entry: Entry) -> list[Callable[..., mx.array]]:
    """As functions of (x, *scalar thresholds)."""

    def total(x: mx.array, *theta: mx.array) -> mx.array:
        return call(entry, reduction="none")(x, mx.zeros_like(x), *theta)

    return [total, mx.grad(lambda x, *theta: total(x, *theta).sum())]


@pytest.mark.parametrize("dtype", HALVES)
def test_all_65536_half_precision_residuals(entry: Entry, dtype: mx.Dtype) -> None:
    """Against the library in float64, which the next test holds against mpmath."""
    x = mx.arange(65536).astype(mx.uint16).view(dtype)
    r = as_numpy(x)
    nan = np.isnan(r)
    for values in halves(entry):
        units = [
            v for v, s in zip(values, entry.loss.thresholds, strict=True) if s.has_residual_units
        ]
        # What overflows float32 when divided by the threshold may count as infinite.
        kept = (abs(r) <= 1e38 * min([1, *units])) & (device.seen(r / 2) == r / 2)
        finite = np.flatnonzero(kept)
        theta = [mx.array(v, mx.float32) for v in values]
        for order, f in enumerate(rho_and_psi(entry)):
            got, want = f(x, *theta), in_float64(f, x[mx.array(finite)], *theta)
            assert got.dtype == dtype
            assert (np.isnan(as_numpy(got)) == nan).all()
            # Of float32, by which the half is off in addition to half an ulp.
            row = r[finite], *(float(t.item()) for t in theta)
            more = vectorised(entry, entry.textbook.ulps[order])(*row)
            free = vectorised(entry, entry.textbook.absolute)(*row) * (order == 0)
            error = half_ulps(got[mx.array(finite)], want, free)
            room = 0.5 + more * (2**-13 if dtype == mx.float16 else 2**-16)
            assert (error <= room).all(), (values, order)


@pytest.mark.float64
def test_half_precision_residuals_in_float64_are_exact(entry: Entry) -> None:
    for dtype in (mx.float16, mx.bfloat16):
        x = mx.arange(7, 65536, 991).astype(mx.uint16).view(dtype).astype(mx.float64)
        x = x[mx.array(np.flatnonzero(np.isfinite(as_numpy(x))))]
        for values in halves(entry):
            theta = [mx.full(x.shape, float(np.float32(v)), mx.float64) for v in values]
            row = to_mp(as_numpy(x)), *(to_mp(as_numpy(t)) for t in theta)
            keep = off_the_kinks(entry, *row)
            row = [v[keep] for v in row]
            for order, f in zip([(), (0,)], rho_and_psi(entry), strict=True):
                got = f(x, *theta)[mx.array(np.flatnonzero(keep))]
                assert error(entry, order, got, *row).max() <= 0, (values, order)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_pairs(entry: Entry, dtype: mx.Dtype) -> None:
    """x - y is not rounded to half either."""
    x, y = (mx.random.normal((20000,)).astype(dtype) * 30 for _ in range(2))
    theta = fitted(entry, mx.array(0.1))
    for order in [(), (0,)]:
        f = partial(entry, order)
        full = [mx.broadcast_to(t, x.shape) for t in theta]
        exactly = lambda x, y, *theta, f=f: f(x - y, mx.zeros_like(x), *theta)
        want = in_float64(exactly, x, y, *full)
        assert half_ulps(f(x, y, *full), want).max() <= 0.51
