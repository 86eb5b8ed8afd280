"""Weights and means of them: values and gradients against float64, at every shape and scale."""

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from cases import BY_NAME, FLOATS, Entry, thresholds
from oracle import as_numpy, at_doubles

import smoothloss as sl

SHAPE = (40, 3, 50)
SHAPES = [(40, 3, 50), (40, 1, 50), (1, 3, 1), (40, 1, 1), (1, 1, 50), (1, 1, 1)]
AXES = [None, 0, 1, 2, (0, 2), (1, 2)]


def exact(
    x: np.ndarray, w: np.ndarray, axis: object, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean of squares in float64, its gradient by w, and the size of its two parts."""
    axes = tuple(range(x.ndim)) if axis is None else axis
    wide = np.where(mask, np.broadcast_to(w, x.shape), 0)
    total = wide.sum(axes, keepdims=True)
    total = np.where(total == 0, np.inf, total)
    rho = np.where(mask, x, 0) ** 2
    mean = (wide * rho / total).sum(axes, keepdims=True)
    shared = tuple(a for a, n in enumerate(w.shape) if n == 1)
    by_w = (mask * (rho - mean) / total).sum(shared, keepdims=True)
    size = (mask * (rho + mean) / abs(total)).sum(shared, keepdims=True)
    return mean.squeeze(axes), by_w, size


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.large_sums
def test_a_weighted_mean_of_any_shape(shape: tuple[int, ...], axis: object, masked: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=SHAPE).astype(np.float32)
    w = rng.uniform(0.5, 2, shape).astype(np.float32)
    mask = rng.random(SHAPE) < (0.7 if masked else 2)
    where = mx.array(mask) if masked else None
    value, by_w, size = exact(x.astype(float), w.astype(float), axis, mask)
    y = mx.zeros(SHAPE)

    def f(w: mx.array) -> mx.array:
        return sl.mse_loss(mx.array(x), y, weights=w, where=where, axis=axis)

    np.testing.assert_allclose(as_numpy(f(mx.array(w))), value, 1e-6)
    for step in (lambda f: f, mx.compile) if axis in (None, 1) and w.size > 40 else (lambda f: f,):
        got = step(mx.grad(lambda w: f(w).sum()))(mx.array(w))
        assert (abs(as_numpy(got) - by_w) <= 1e-6 * size).all()
    tangent = rng.normal(size=shape).astype(np.float32)
    pushed = mx.jvp(f, [mx.array(w)], [mx.array(tangent)])[1][0].sum().item()
    assert pushed == pytest.approx((by_w * tangent).sum(), abs=1e-5 * (size * abs(tangent)).sum())


def test_a_weight_that_all_of_a_mean_share_has_no_gradient() -> None:
    x, w = mx.full((10**6, 2), 1.1), mx.array([[1.0, 3.0]])
    g = mx.grad(lambda w: sl.l1_loss(x, 0 * x, weights=w, axis=1).sum())(w)
    assert (mx.abs(g) <= 1e-6 * 1.1 * 10**6 / 4).all()


@pytest.mark.parametrize("size", [1e-30, 1e-25, 1.0, 1e20, 1e37])
@pytest.mark.parametrize("n", [2, 100, 20_000])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.large_sums
def test_weights_of_any_size(size: float, n: int, masked: bool) -> None:
    """A mean does not depend on the scale of its weights, and its gradient is inverse to it."""
    rng = np.random.default_rng(n)
    x, w = (rng.uniform(0.5, 2, n).astype(np.float32) for _ in range(2))
    mask = np.arange(n) % 7 != 3 if masked else np.ones(n, bool)
    where = mx.array(mask) if masked else None
    value, by_w, most = exact(x.astype(float), w.astype(float), None, mask)
    weights = mx.array(w) * size
    rng_y = mx.zeros(n)
    f = lambda x, w: sl.mse_loss(x, rng_y, weights=w, where=where)
    got, (by_x, g) = mx.value_and_grad(f, argnums=(0, 1))(mx.array(x), weights)
    assert got.item() == pytest.approx(float(value), rel=1e-6)
    slope = 2 * mask * x * w / (mask * w.astype(float)).sum()
    np.testing.assert_allclose(as_numpy(by_x), slope, 2e-6)
    assert f(mx.array(x), weights).item() == pytest.approx(float(value), rel=1e-6)
    kept = (most / size > 1e-37) & (most / size < 1e37)  # beyond, float32 holds no such numbers
    assert (abs(as_numpy(g) - by_w / size) <= 1e-6 * most / size)[kept].all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_gradients_by_narrow_weights_are_rounded_once(dtype: mx.Dtype) -> None:
    x, y = mx.array([600.0, 200.0]), mx.zeros(2)
    g = mx.grad(lambda w: sl.l1_loss(x, y, weights=w))(mx.ones(2, dtype))
    assert g.dtype == dtype
    assert g.tolist() == [100, -100]
    x = mx.array(np.random.default_rng(0).uniform(1, 1.01, 64), mx.float32)
    w = mx.array(np.random.default_rng(1).uniform(0.5, 2, 64), mx.float32).astype(dtype)
    f = lambda w: sl.huber_loss(x, mx.zeros(64), reduction="mean", weights=w) * 1e4
    wide = mx.float64 if dtype == mx.float64 else mx.float32
    assert mx.allclose(
        mx.grad(f)(w).astype(wide), mx.grad(f)(w.astype(wide)), mx.finfo(dtype).eps, 0
    )


@pytest.mark.every(2)
@pytest.mark.float64
def test_gradients_by_the_weights_of_every_loss(entry: Entry) -> None:
    """First and second order, forward and reverse, of data and weights, against formulas."""
    rng = np.random.default_rng(3)
    n = 7
    x, w = rng.normal(size=n), rng.uniform(0.5, 2, n)
    theta = thresholds(entry, 0.7)
    rho = at_doubles(entry, (), x, *theta.values()).astype(float)
    psi = at_doubles(entry, (0,), x, *theta.values()).astype(float)
    free = 1e-6 if entry.textbook.absolute != "0" else 1e-12
    total, y = w.sum(), mx.zeros(n, mx.float64)
    mean = (w * rho).sum() / total
    by_w, by_x = (rho - mean) / total, w * psi / total
    twice = -(by_w[:, None] + by_w) / total
    mixed = (np.diag(psi) - by_x) / total  # by w, then by x

    def f(x: mx.array, w: mx.array) -> mx.array:
        return entry.function(x, y, **theta, reduction="mean", weights=w)

    row = [mx.array(v, mx.float64) for v in (x, w)]
    eye = [mx.array(v, mx.float64) for v in np.eye(n)]
    for got, want in zip(mx.grad(f, argnums=(0, 1))(*row), (by_x, by_w), strict=True):
        np.testing.assert_allclose(as_numpy(got), want, 1e-7, free)
    slope: Callable[[mx.array, mx.array], mx.array] = mx.grad(f, argnums=1)
    for i, e in enumerate(eye):
        pushed = mx.jvp(lambda w: f(row[0], w), [row[1]], [e])[1][0].item()
        assert pushed == pytest.approx(by_w[i], rel=1e-7, abs=free)
        for argnum, want in ((0, mixed[i]), (1, twice[i])):
            pulled = mx.grad(lambda *row, e=e: (slope(*row) * e).sum(), argnums=argnum)(*row)
            np.testing.assert_allclose(as_numpy(pulled), want, 1e-7, free)
    for argnum, want in ((0, mixed), (1, twice)):
        for i, e in enumerate(eye):
            tangents = [e if argnum == k else mx.zeros_like(e) for k in range(2)]
            along = mx.jvp(slope, row, tangents)[1][0]
            np.testing.assert_allclose(as_numpy(along), want[:, i], 1e-7, free)


@pytest.mark.parametrize("name", ["weights", "where"])
def test_as_many_axes_as_the_data(name: str) -> None:
    """One for each row must not be taken for one for each column where the data are square."""
    x, y = mx.ones((3, 3)), mx.zeros((3, 3))
    few, deep, long = mx.array([1.0, 0.0, 1.0]), mx.ones((3, 3, 1)), mx.ones((3, 2))
    if name == "where":
        few, deep, long = few > 0, deep > 0, long > 0
    cure = rf"Pass {name}\[:, None\] or {name}\[None, :\]\."
    with pytest.raises(ValueError, match=cure):
        sl.l1_loss(x, y, **{name: few})
    with pytest.raises(ValueError, match=rf"Pass {name}\.reshape\(\(3, 3\)\)\."):
        sl.l1_loss(x, y, **{name: deep})
    for cured in (few[:, None], few[None, :], deep.reshape((3, 3))):
        assert sl.l1_loss(x, y, **{name: cured}).item() == 1
    with pytest.raises(ValueError, match=rf"Pass {name}\[:, None\]\."):
        sl.l1_loss(x[:, :2], y[:, :2], **{name: few})
    with pytest.raises(ValueError, match=rf"Pass {name}\.T\."):  # reshaped, it would be mixed up
        sl.l1_loss(x[:2], y[:2], **{name: long})
    with pytest.raises(ValueError, match=r"Reshape it to as many axes as the data"):
        sl.l1_loss(x, y, **{name: mx.concatenate([few] * 3)})
    none = mx.array(True) if name == "where" else mx.array(2.0)
    assert sl.l1_loss(x, y, "sum", **{name: none}).item() == (9 if name == "where" else 18)


def test_thresholds_keep_numpy_s_rule() -> None:
    x = mx.full((2, 3), 9.0)
    g = mx.grad(lambda x: sl.huber_loss(x, 0 * x, mx.array([1.0, 2.0, 3.0]), "sum"))(x)
    assert g.tolist() == [[1, 2, 3]] * 2
    with pytest.raises(ValueError, match=r"Pass delta\[:, None\]\."):
        sl.huber_loss(x, 0 * x, mx.array([1.0, 2.0]))


def test_an_own_loss_without_derivatives_has_weighted_means() -> None:
    loss = sl.Loss("square_loss", mx.square)
    x, w = mx.array([1.0, 2.0, 3.0]), mx.array([1.0, 2.0, 1.0])
    f = lambda w: loss(x, mx.zeros(3), weights=w)
    assert f(w).item() == 4.5
    assert mx.allclose(mx.grad(f)(w), (mx.square(x) - 4.5) / 4)
    assert BY_NAME["mse_loss"].function(x, mx.zeros(3), weights=w).item() == 4.5
