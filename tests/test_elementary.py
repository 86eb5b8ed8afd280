"""The functions that the losses are made of: their bounds, and their limits."""

import mlx.core as mx
import mpmath
import numpy as np
import pytest
from cases import floats
from oracle import as_numpy, to_mp, ulps

from smoothloss.losses import _elementary as elementary

INF, NAN = float("inf"), float("nan")
WIDE = [mx.float32, mx.float64]


def exact(f: object, x: mx.array) -> np.ndarray:
    return np.vectorize(f, otypes=[object])(to_mp(as_numpy(x)))


@pytest.mark.parametrize("dtype", WIDE)
def test_log1p_within_an_ulp_and_a_half(dtype: mx.Dtype) -> None:
    rng = np.random.default_rng(0)
    x = mx.array(np.concatenate([10 ** rng.uniform(-36, 36, 3000), rng.uniform(0, 3, 3000)]), dtype)
    assert ulps(elementary.log1p(x), exact(mpmath.log1p, x)).max() <= 1.5
    assert elementary.log1p(mx.array(0.0, dtype)).item() == 0


@pytest.mark.parametrize("dtype", WIDE)
def test_exp_errs_by_its_argument_in_ulp(dtype: mx.Dtype) -> None:
    x = mx.array(np.random.default_rng(0).uniform(-85, 0, 3000), dtype)
    assert (ulps(elementary.exp(x), exact(mpmath.exp, x)) <= 1 + 0.6 * abs(as_numpy(x))).all()
    assert elementary.exp(floats(-1e4, -INF, 0)).tolist() == [0, 0, 1]


@pytest.mark.parametrize("dtype", WIDE)
def test_the_hypotenuse_and_its_logarithm(dtype: mx.Dtype) -> None:
    q = mx.array(10 ** np.random.default_rng(0).uniform(-30, 38, 3000), dtype)
    s, logarithm = elementary.hypotenuse(q)
    square = lambda v: 1 + v * v
    assert ulps(s, exact(lambda v: mpmath.sqrt(square(v)), q)).max() <= 1.5
    assert ulps(logarithm, exact(lambda v: mpmath.log1p(v * v), q)).max() <= 3
    limits = [v.tolist() for v in elementary.hypotenuse(floats(0, INF))]
    assert limits == [[1, INF], [0, INF]]
    assert all(mx.isnan(v).item() for v in elementary.hypotenuse(mx.array(NAN)))


def test_sign_and_clip_keep_nan() -> None:
    r = floats(-INF, -1e-45, -0.0, 0, 1e-45, 2, NAN)
    assert as_numpy(elementary.sign(r))[:-1].tolist() == [-1, -1, 0, 0, 1, 1]
    assert as_numpy(elementary.clip(r, mx.array(1.0)))[[0, -2]].tolist() == [-1, 1]
    for f in (elementary.sign(r), elementary.clip(r, mx.array(1.0))):
        assert np.isnan(as_numpy(f)[-1])
    inside = elementary.inside(floats(0.5, 1, -1, NAN), mx.array(1.0), 7.0)
    np.testing.assert_array_equal(as_numpy(inside), [7, 0, 0, NAN])


@pytest.mark.parametrize("count", range(10))
def test_polynomial(count: int) -> None:
    t = np.linspace(-2, 2, 41)
    coefficients = np.random.default_rng(0).normal(size=(count, 41))
    want = sum((c * t**k for k, c in enumerate(coefficients)), np.zeros(41))
    at = mx.array(t, mx.float64)
    got = elementary.polynomial([mx.array(c, mx.float64) for c in coefficients], at) + 0 * at
    np.testing.assert_allclose(as_numpy(got), want, rtol=1e-12, atol=1e-12)
