"""The README's table of defects: each row shown in mlx.nn.losses, and right here.

When a newer MLX mends one, its test fails and the row can go.
"""

import platform
import sys

import device
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from cases import floats

import smoothloss as sl

INF = float("inf")


def slope(loss: object, x: mx.array, **keywords: object) -> list[float]:
    f = lambda x: loss(x, mx.zeros_like(x), reduction="sum", **keywords)  # type: ignore[operator]
    return mx.grad(f)(x).tolist()


def test_beta_0() -> None:
    x = floats(-2, 0, 3)
    assert np.isnan(slope(nn.losses.smooth_l1_loss, x, beta=0.0)).all()
    assert slope(sl.smooth_l1_loss, x, beta=0.0) == [-1, 0, 1]


def test_infinite_residual() -> None:
    x = floats(INF, -INF)
    assert np.isnan(slope(nn.losses.smooth_l1_loss, x)).all()
    assert np.isnan(slope(nn.losses.huber_loss, x, delta=INF)).all()
    assert slope(sl.smooth_l1_loss, x) == [1, -1]
    assert slope(sl.huber_loss, x) == [1, -1]
    assert slope(sl.huber_loss, x, delta=INF) == [INF, -INF]


def test_nan_has_a_gradient_of_0_in_l1() -> None:
    x = floats(float("nan"))
    assert slope(nn.losses.l1_loss, x) == [0]
    assert np.isnan(slope(sl.l1_loss, x)).all()


def test_small_residuals_in_huber() -> None:
    x = floats(1e-8)
    assert slope(nn.losses.huber_loss, x) == [0]
    assert slope(sl.huber_loss, x) == x.tolist()
    half = mx.array([0.3], mx.float16)
    assert slope(nn.losses.huber_loss, half, delta=1e3) == [0.5]
    assert slope(sl.huber_loss, half, delta=1e3) == half.tolist()


def test_second_derivative_at_0() -> None:
    def curvature(loss: object) -> float:
        f = lambda x: loss(x, mx.array(0.0), reduction="sum")  # type: ignore[operator]
        return mx.grad(mx.grad(f))(mx.array(0.0)).item()

    assert curvature(nn.losses.smooth_l1_loss) == 0
    assert curvature(sl.smooth_l1_loss) == 1


def test_overflow_and_underflow_on_the_way() -> None:
    x, y = floats(1e20), floats(0)
    assert mx.isinf(nn.losses.smooth_l1_loss(x, y, beta=1e30)).item()
    assert sl.smooth_l1_loss(x, y, beta=1e30).item() == pytest.approx(5e9, rel=1e-6)
    tiny = floats(2.5e-31)
    assert nn.losses.smooth_l1_loss(tiny, y, beta=1e-30).item() == 0
    assert sl.smooth_l1_loss(tiny, y, beta=1e-30).item() == pytest.approx(3.125e-32, rel=1e-6)
    wide = mx.array([6e4], mx.float16)
    f = lambda loss: mx.grad(lambda x: loss(x, -x, reduction="sum"))(wide).item()
    assert np.isnan(f(nn.losses.smooth_l1_loss))
    assert f(sl.smooth_l1_loss) == 2


def test_float16_mean() -> None:
    x = mx.full((70_000,), 2, mx.float16)
    assert mx.isinf(nn.losses.l1_loss(x, mx.zeros_like(x))).item()
    assert sl.l1_loss(x, mx.zeros_like(x)).item() == 2


@pytest.mark.large_sums
def test_float32_mean_of_ten_million() -> None:
    x = mx.random.normal((10**7,))
    y = mx.zeros_like(x)
    true = np.array(sl.smooth_l1_loss(x, y, reduction="none")).mean(dtype=np.float64)
    assert abs(sl.smooth_l1_loss(x, y).item() / true - 1) < 1e-6
    if device.CPU and (sys.platform, platform.machine()) == ("linux", "x86_64"):
        # Others add in several lanes, or in a tree.
        assert abs(nn.losses.smooth_l1_loss(x, y).item() / true - 1) > 0.01


def test_negative_threshold() -> None:
    x = floats(0.5)
    assert mx.isfinite(nn.losses.smooth_l1_loss(x, x, beta=-1.0)).item()
    with pytest.raises(ValueError, match="beta"):
        sl.smooth_l1_loss(x, x, beta=-1.0)


def test_silent_broadcasting() -> None:
    x, y = mx.ones((4, 1)), mx.ones(4)
    assert nn.losses.huber_loss(x, y).shape == (4, 4)
    with pytest.raises(ValueError, match="same shape"):
        sl.huber_loss(x, y)


def test_unsigned_integers_wrap() -> None:
    x, y = mx.array([1], mx.uint8), mx.array([3], mx.uint8)
    assert nn.losses.l1_loss(x, y).item() == 254
    assert sl.l1_loss(x, y).item() == 2
