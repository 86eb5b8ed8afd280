"""The functions that the losses are made of: their bounds, and their limits."""

from pathlib import Path

import device
import mlx.core as mx
import mpmath
import numpy as np
import pytest
from cases import floats
from oracle import as_numpy, to_mp, ulps

import smoothloss as sl
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
@pytest.mark.cpu
def test_exp_errs_by_its_argument_in_ulp(dtype: mx.Dtype) -> None:
    x = mx.array(np.random.default_rng(0).uniform(-85, 0, 3000), dtype)
    assert (ulps(elementary.exp(x), exact(mpmath.exp, x)) <= 1 + 0.6 * abs(as_numpy(x))).all()
    assert elementary.exp(floats(-1e4, -INF, 0)).tolist() == [0, 0, 1]


def test_exp_needs_no_power_on_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Metal compiles a fast one, of which the exponent is rounded."""
    monkeypatch.setattr(elementary, "on_cpu", lambda: False)
    x = mx.array([0.0, -1.0, -80.0, -INF])
    gradient = mx.grad(lambda x: sl.welsch_loss(x, mx.zeros(4), reduction="sum"))(x)
    for out in (elementary.exp(x), gradient):
        mx.export_to_dot(str(tmp_path / "graph.dot"), out)
        text = (tmp_path / "graph.dot").read_text()
        assert '"Exp"' in text
        assert '"Power"' not in text
    np.testing.assert_allclose(elementary.exp(x), np.exp(as_numpy(x)), rtol=1e-5)


@pytest.mark.parametrize("dtype", WIDE)
def test_the_hypotenuse(dtype: mx.Dtype) -> None:
    rng = np.random.default_rng(0)
    c, a = (mx.array(10 ** rng.uniform(-37, 38, 3000), dtype) for _ in range(2))
    want = np.vectorize(mpmath.hypot, otypes=[object])(to_mp(as_numpy(c)), to_mp(as_numpy(a)))
    assert ulps(elementary.hypotenuse(c, a), want).max() <= 3
    assert elementary.hypotenuse(floats(1, 2, INF), floats(0, INF, 1)).tolist() == [1, INF, INF]
    assert mx.isnan(elementary.hypotenuse(mx.array(1.0), mx.array(NAN))).item()


@pytest.mark.parametrize("dtype", WIDE)
def test_the_logarithm_of_a_square_that_overflows(dtype: mx.Dtype) -> None:
    rng = np.random.default_rng(0)
    r, c = (mx.array(10 ** rng.uniform(-37, 38, 3000), dtype) for _ in range(2))
    got = elementary.log1p_far(mx.square(r / c), elementary.far_quotient(r, c))
    true = lambda r, c: mpmath.log1p((r / c) ** 2)
    want = np.vectorize(true, otypes=[object])(to_mp(as_numpy(r)), to_mp(as_numpy(c)))
    assert ulps(got, want).max() <= 4


def test_sign_and_clip_keep_nan() -> None:
    r = floats(-INF, -device.LEAST, -0.0, 0, device.LEAST, 2, NAN)
    assert as_numpy(elementary.sign(r))[:-1].tolist() == [-1, -1, 0, 0, 1, 1]
    assert as_numpy(elementary.clip(r, mx.array(1.0)))[[0, -2]].tolist() == [-1, 1]
    for f in (elementary.sign(r), elementary.clip(r, mx.array(1.0))):
        assert np.isnan(as_numpy(f)[-1])
    inside = elementary.inside(floats(0.5, 1, -1, NAN), mx.array(1.0), 7.0)
    np.testing.assert_array_equal(as_numpy(inside), [7, 0, 0, NAN])


@pytest.mark.parametrize("count", range(10))
@pytest.mark.float64
def test_polynomial(count: int) -> None:
    t = np.linspace(-2, 2, 41)
    coefficients = np.random.default_rng(0).normal(size=(count, 41))
    want = sum((c * t**k for k, c in enumerate(coefficients)), np.zeros(41))
    at = mx.array(t, mx.float64)
    got = elementary.polynomial([mx.array(c, mx.float64) for c in coefficients], at) + 0 * at
    np.testing.assert_allclose(as_numpy(got), want, rtol=1e-12, atol=1e-12)
