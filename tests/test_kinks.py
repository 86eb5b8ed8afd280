"""The edges of losses with kinks or limits: exact values, overflow and underflow."""

import device
import mlx.core as mx
import numpy as np
import pytest
from cases import BY_NAME, FLOATS, Entry, floats, partial, same_bits
from hypothesis import given, strategies as st
from oracle import as_numpy

import smoothloss as sl

INF, NAN = float("inf"), float("nan")
KINKED = [pytest.param(BY_NAME[name], id=name) for name in ("smooth_l1_loss", "huber_loss")]


@pytest.mark.parametrize("beta", [0.0, 1e-50, mx.array(0.0), mx.zeros(9)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_smooth_l1_at_beta_0_is_l1_to_the_bit(beta: object, dtype: mx.Dtype) -> None:
    if dtype == mx.float64 and isinstance(beta, float):
        beta = 0.0  # 1e-50 is a float64
    x, y = floats(0, -0.0, 1e-45, -0.3, 7, 1e38, INF, -INF, NAN, dtype=dtype), mx.zeros(9, dtype)
    smooth = lambda x: sl.smooth_l1_loss(x, y, beta, "none")
    l1 = lambda x: sl.l1_loss(x, y, "none")
    assert same_bits(smooth(x), l1(x))
    for order in (1, 2):
        smooth, l1 = (lambda x, f=f: mx.grad(lambda x: f(x).sum())(x) for f in (smooth, l1))
        assert same_bits(smooth(x), l1(x)), order


@pytest.mark.parametrize("dtype", FLOATS)
def test_infinite_residuals(dtype: mx.Dtype) -> None:
    x, y = floats(INF, -INF, INF, dtype=dtype), floats(0, 0, -INF, dtype=dtype)
    sign = floats(1, -1, 1, dtype=dtype)
    for f, slope in (
        (lambda x: sl.l1_loss(x, y, "sum"), 1),
        (lambda x: sl.smooth_l1_loss(x, y, 0.5, "sum"), 1),
        (lambda x: sl.huber_loss(x, y, 3.0, "sum"), 3),
        (lambda x: sl.huber_loss(x, y, INF, "sum"), INF),
        (lambda x: sl.mse_loss(x, y, "sum"), INF),
    ):
        value, g = mx.value_and_grad(f)(x)
        assert value.item() == INF
        assert same_bits(g, sign * slope)
    huber_at_0 = mx.value_and_grad(lambda x: sl.huber_loss(x, y, 0.0, "sum"))(x)
    assert huber_at_0[0].item() == 0
    assert (huber_at_0[1] == 0).all()
    assert mx.isnan(sl.smooth_l1_loss(x, y, INF, "none")).all()


def test_a_difference_that_overflows_is_an_infinite_residual() -> None:
    x, y = floats(3e38, -3e38), floats(-3e38, 3e38)
    assert mx.grad(lambda x: sl.smooth_l1_loss(x, y, 1.0, "sum"))(x).tolist() == [1, -1]
    assert mx.grad(lambda x: sl.huber_loss(x, y, 2.0, "sum"))(x).tolist() == [2, -2]
    x, y = floats(6e4, dtype=mx.float16), floats(-6e4, dtype=mx.float16)
    assert mx.grad(lambda x: sl.smooth_l1_loss(x, y, 1.0, "sum"))(x).tolist() == [1]


def test_infinite_thresholds() -> None:
    x, y = floats(0, -0.3, 1e19, -3e38), mx.zeros(4)
    assert sl.smooth_l1_loss(x, y, INF, "none").tolist() == [0] * 4
    assert mx.abs(mx.grad(lambda x: sl.smooth_l1_loss(x, y, INF))(x)).tolist() == [0] * 4
    assert same_bits(sl.huber_loss(x, y, INF), (0.5 * x) * x)
    assert same_bits(mx.grad(lambda x: sl.huber_loss(x, y, INF, "sum"))(x), x)
    assert sl.huber_loss(x, y, 0.0).tolist() == [0] * 4


@pytest.mark.parametrize("dtype", FLOATS)
@given(threshold=st.floats(2.0**-14, 60000, width=16))
def test_at_the_threshold_and_one_float_inside(dtype: mx.Dtype, threshold: float) -> None:
    b = mx.array(threshold, dtype)
    threshold = b.item()
    kind = {mx.float16: mx.uint16, mx.bfloat16: mx.uint16, mx.float64: mx.uint64}
    bits = kind.get(dtype, mx.uint32)
    inside = (b.view(bits) - 1).view(dtype)
    x = mx.stack([b, -b, inside, -inside])
    y = mx.zeros_like(x)
    for f, slope in ((sl.smooth_l1_loss, 1.0), (sl.huber_loss, threshold)):
        g = mx.grad(lambda x, f=f: f(x, y, threshold, reduction="sum"))(x)
        assert as_numpy(g[:2]).tolist() == [slope, -slope]
        if dtype in (mx.float32, mx.float64) or slope != 1:
            assert (mx.abs(g[2:]) < mx.array(slope, dtype)).all()
        curvature = mx.grad(lambda x, f=f: mx.grad(lambda x: f(x, y, threshold).sum())(x).sum())
        if f is sl.huber_loss:
            assert curvature(x).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("entry", KINKED)
def test_second_derivative_at_zero_and_at_the_kink(entry: Entry) -> None:
    r = floats(-2, -1, -0.5, 0, 0.5, 1, 2) * 0.25
    theta = mx.full(r.shape, 0.25)
    inside = 4.0 if entry.name == "smooth_l1_loss" else 1.0
    assert partial(entry, (0, 0))(r, mx.zeros(7), theta).tolist() == [0, 0, *[inside] * 3, 0, 0]
    outside = 0.0 if entry.name == "smooth_l1_loss" else 1.0
    mixed = partial(entry, (0, 1))(r, mx.zeros(7), theta).tolist()
    at = -0.5 / 0.25 if entry.name == "smooth_l1_loss" else 0.0
    assert mixed == [-outside, -outside, -at, 0, at, outside, outside]
    assert mixed == partial(entry, (1, 0))(r, mx.zeros(7), theta).tolist()


def test_l1_and_mse_second_derivatives() -> None:
    r = floats(-INF, -1, 0, 1e-40, 3e38, INF)
    assert (partial(BY_NAME["l1_loss"], (0, 0))(r, mx.zeros(6)) == 0).all()
    assert (partial(BY_NAME["mse_loss"], (0, 0))(r, mx.zeros(6)) == 2).all()


def test_the_derivative_by_beta_is_half_the_square_of_psi() -> None:
    entry = BY_NAME["smooth_l1_loss"]
    each = np.meshgrid([0, -0.0, 1e-40, -0.3, 0.5, 2, 1e20, INF], [0.0, 1e-38, 0.5, 2])
    x, beta = (mx.array(v.ravel(), mx.float32) for v in each)
    y = mx.zeros_like(x)
    g, psi = partial(entry, (1,))(x, y, beta), partial(entry, (0,))(x, y, beta)
    assert same_bits(g, -0.5 * psi * psi)
    assert (as_numpy(g)[:2] == 0).all()  # r = 0, beta = 0


def test_neither_overflow_nor_underflow_on_the_way() -> None:
    def one(f: object, r: float, threshold: float) -> float:
        return f(floats(r), floats(0), threshold, "sum").item()  # type: ignore[operator]

    assert one(sl.smooth_l1_loss, 1e20, 1e30) == pytest.approx(5e9, rel=1e-6)
    assert one(sl.smooth_l1_loss, 2.5e-31, 1e-30) == pytest.approx(3.125e-32, rel=1e-6)
    assert one(sl.smooth_l1_loss, 3e38, 1e38) == pytest.approx(2.5e38, rel=1e-6)
    assert one(sl.huber_loss, 1e38, 1e-30) == pytest.approx(1e8, rel=1e-6)
    small = 0 if device.FLUSHES else 3e-2
    assert one(sl.huber_loss, 3e38, 1e-40) == pytest.approx(small, rel=1e-4)
    r = floats(1e-45, 3e-45, 1e-42, -1e-40)
    for beta in (1e-45, 1e-42, 1e-39):
        g = mx.grad(lambda r, b=beta: sl.smooth_l1_loss(r, mx.zeros(4), b, "sum"))(r)
        assert (mx.isfinite(g) & (mx.abs(g) <= 1)).all()
    g = mx.grad(lambda r: sl.huber_loss(r, mx.zeros(1), 1.0, "sum"))(floats(1e-8))
    assert g.item() == np.float32(1e-8)


def test_non_zero_whenever_the_true_value_is_normal() -> None:
    rng = np.random.default_rng(0)
    r, theta = (10 ** rng.uniform(-37, 38, 20000) for _ in range(2))
    least = np.finfo(np.float32).tiny
    x, t = (mx.array(v, mx.float32) for v in (r, theta))
    for f, true in (
        (sl.smooth_l1_loss, np.where(r < theta, r * r / theta / 2, r - theta / 2)),
        (sl.huber_loss, np.where(r < theta, r * r / 2, theta * (r - theta / 2))),
    ):
        got = as_numpy(f(x, mx.zeros_like(x), t, reduction="none"))
        assert (got[true > 1.001 * least] > 0).all()
        assert np.isfinite(got[true < 3.4e38]).all()


# A loss, its threshold, residuals, and psi and psi' there, kinks included.
AT = [
    ("tukey_loss", 2.0, (0, 1, -2, 3, INF), (0, 0.5625, 0, 0, 0), (1, -0.1875, 0, 0, 0)),
    ("tukey_loss", 0.0, (0, 1, -INF), (0, 0, 0), (0, 0, 0)),
    ("tukey_loss", INF, (0, -3, 1e38), (0, -3, 1e38), (1, 1, 1)),
    ("fair_loss", 2.0, (0, 2, -2, INF, -INF), (0, 1, -1, 2, -2), (1, 0.25, 0.25, 0, 0)),
    ("fair_loss", 0.0, (0, 1, -INF), (0, 0, 0), (0, 0, 0)),
    ("fair_loss", INF, (0, -3, 1e38), (0, -3, 1e38), (1, 1, 1)),
    ("expectile_loss", 0.25, (0, 1, -1, INF), (0, 1.5, -0.5, INF), (0.5, 1.5, 0.5, 1.5)),
    ("expectile_loss", 1.0, (0, 3, INF, -INF), (0, 0, 0, -INF), (2, 0, 0, 2)),
    ("expectile_loss", 0.0, (0, -3, INF, -INF), (0, 0, INF, 0), (0, 0, 2, 0)),
    ("epsilon_insensitive_loss", 0.5, (0, 0.5, -0.5, 0.75, -INF), (0, 0, 0, 1, -1), (0,) * 5),
    ("epsilon_insensitive_loss", INF, (0, -3e38), (0, 0), (0, 0)),
    ("squared_epsilon_insensitive_loss", 0.5, (0, 0.5, -0.5, -2), (0, 0, 0, -3), (0, 2, 2, 2)),
    ("squared_epsilon_insensitive_loss", INF, (0, -3e38), (0, 0), (0, 0)),
    ("berhu_loss", 2.0, (0, -1, 2, -2, 4, INF), (0, -1, 1, -1, 2, INF), (0, 0, 0.5, 0.5, 0.5, 0.5)),
    ("berhu_loss", INF, (0, -3e38), (0, -1), (0, 0)),
    ("arctan_loss", 1.0, (0, INF, -INF), (0, 0, 0), (1, 0, 0)),
]


@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize(("name", "threshold", "r", "psi", "psi_prime"), AT)
def test_the_two_derivatives_at_kinks_and_limits(
    name: str, threshold: float, r: tuple, psi: tuple, psi_prime: tuple, as_array: bool
) -> None:
    theta = mx.array(threshold) if as_array else threshold
    norm = sl.RobustNorm(BY_NAME[name].loss, **{BY_NAME[name].threshold_names[0]: theta})
    assert norm.psi(floats(*r)).tolist() == as_numpy(floats(*psi)).tolist()
    assert norm.psi_prime(floats(*r)).tolist() == as_numpy(floats(*psi_prime)).tolist()


@pytest.mark.parametrize("dtype", FLOATS)
def test_insensitive_losses_at_epsilon_0_are_l1_and_the_square(dtype: mx.Dtype) -> None:
    r = floats(0, -0.0, -0.3, 7, 1e38, INF, -INF, NAN, dtype=dtype)
    for name, other in (
        ("epsilon_insensitive_loss", sl.l1_loss),
        ("squared_epsilon_insensitive_loss", sl.mse_loss),
    ):
        ours, theirs = sl.RobustNorm(BY_NAME[name].loss, epsilon=0.0), sl.RobustNorm(other)
        for f in ("rho", "psi", "psi_prime", "weight"):
            a, b = getattr(ours, f)(r), getattr(theirs, f)(r)
            assert mx.array_equal(a, b, equal_nan=True), (name, f)


@pytest.mark.float64
def test_student_t_is_cauchy_of_1_and_the_square_of_infinitely_many() -> None:
    r = mx.array([0, 1e-3, -0.4, 3, -1e4, INF, NAN], mx.float64)
    for df, other, scale in ((1.0, sl.cauchy_loss, 0.5**0.5), (INF, sl.general_loss, 1.0)):
        shape = {"alpha": 2.0} if df == INF else {}
        ours = sl.RobustNorm(sl.student_t_loss, df=df)
        theirs = sl.RobustNorm(other, scale=scale, **shape)
        for f in ("rho", "psi", "psi_prime", "weight"):
            a, b = as_numpy(getattr(ours, f)(r)), as_numpy(getattr(theirs, f)(r))
            np.testing.assert_allclose(a, b, rtol=1e-14)


@pytest.mark.float64
def test_expectile_is_twice_quantile_huber_without_a_kappa() -> None:
    r = mx.array([0, 1e-3, -0.4, 3, -1e4, 1e200], mx.float64)
    for tau in (0.0, 0.3, 1.0):
        ours = sl.RobustNorm(sl.expectile_loss, expectile=tau)
        theirs = sl.RobustNorm(sl.quantile_huber_loss, quantile=tau, kappa=INF)
        for f in ("rho", "psi", "psi_prime", "weight"):
            a, b = as_numpy(getattr(ours, f)(r)), 2 * as_numpy(getattr(theirs, f)(r))
            np.testing.assert_allclose(a, b, rtol=1e-15)


def test_thresholds_far_from_1_neither_overflow_nor_underflow_on_the_way() -> None:
    for name, c, r, value in (
        ("tukey_loss", 1e19, 1.5e19, 1e38 / 6),
        ("tukey_loss", 1e25, 1e3, 5e5),
        ("tukey_loss", 1e-18, 1.0, 1e-36 / 6),
        ("fair_loss", 1e25, 1e3, 5e5),
        ("fair_loss", 1e-30, 1e20, 1e-10),
        ("fair_loss", 1e-10, 3e38, 3e28),
        ("berhu_loss", 1e30, 1e20, 1e20),
        ("berhu_loss", 1e-30, 1e-3, 0.5e24),
    ):
        norm = sl.RobustNorm(BY_NAME[name].loss, **{BY_NAME[name].threshold_names[0]: c})
        assert norm.rho(floats(r)).item() == pytest.approx(value, rel=1e-6), name
