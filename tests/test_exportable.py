"""Losses inside ``exportable()``, of MLX's own operations, beside the same outside."""

import itertools
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from cases import FLOATS, Entry, Line, call, exports, fitted, nested, orders, same_bits, thresholds
from oracle import as_numpy

import smoothloss as sl
from smoothloss._engine import exportable

R = [0.0, -0.0, 1e-45, 1e-40, -1e-38, 1e-20, 1e-4, 0.3, -0.5, 0.5, 1.0, -1.0, 1.5, 2.0, -7.0, 30.0]
R += [-50.0, 1e3, 1e10, -1e19, 1e30, -3e38, np.inf, -np.inf, np.nan]
NAN = len(R) - 1
INFINITE = slice(NAN - 2, NAN)
# Of these, MLX differentiates a form of its own, if thresholds are ordinary numbers.
PLAIN = {"mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "log_cosh_loss"}


def close(got: mx.array, want: mx.array, *, order: int, ulps: float = 1) -> np.ndarray:
    """Where two results agree: within an ulp, or so near 0 that a half of it has no digits.

    A derivative that overflows is the largest number.
    """
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    limits = mx.finfo(want.dtype)
    wide = mx.float64 if want.dtype == mx.float64 else mx.float32
    largest = float(mx.finfo(wide).max)
    a, b = as_numpy(got), as_numpy(want)
    if order:
        a, b = (np.clip(v, -largest, largest) for v in (a, b))
    tiny = 3 * float(limits.smallest_normal) * float(limits.eps)
    with np.errstate(invalid="ignore"):
        near = abs(a - b) <= ulps * float(limits.eps) * abs(b) + (tiny if order > 1 else 0)
    return near | (a == b) | (np.isnan(a) & np.isnan(b))


def both(f: Callable[..., mx.array], *row: mx.array) -> tuple[mx.array, mx.array]:
    """What ``f`` gives inside and outside."""
    with sl.exportable():
        inside = f(*row)
    return inside, f(*row)


SCALES = (1.0, 0.5, 2.0, 1e-30, 1e30)


@pytest.mark.every(3)
@pytest.mark.parametrize("dtype", FLOATS)
def test_numbers_as_thresholds(entry: Entry, dtype: mx.Dtype) -> None:
    """Value, gradient and second derivative, at kinks and infinity, of subnormals and NaN."""
    x = mx.array(R, dtype)
    y = mx.zeros_like(x)
    ends = [t.low for t in entry.loss.thresholds if np.isfinite(t.low) and not t.open_low]
    for theta in [*(fitted(entry, s) for s in SCALES), *([ends] if len(ends) == 1 else [])]:
        for order in ((), (0,), (0, 0)):
            f = nested(call(entry, reduction="none"), order)
            inside, outside = both(lambda x, f=f, theta=theta: f(x, y, *theta), x)
            good = close(inside, outside, order=len(order))
            if len(order) == 2:
                infinite = np.isinf(np.array(x.astype(mx.float32)))  # more of half types
                good |= infinite  # there the second derivative inside is 0
                if entry.name in PLAIN:
                    good[NAN] = True
            assert good.all(), (theta, order, np.array(R)[~good])


def test_all_derivatives_by_arrays_of_thresholds(entry: Entry) -> None:
    x = mx.array(R)
    values = [fitted(entry, s) for s in (*SCALES, 1e-3)]
    second = values[2:] + values[:2]  # of two thresholds, one large and one small as well
    pairs = [[*a[:1], *b[1:]] for a, b in zip(values, second, strict=True)]
    for theta in values + pairs * (len(entry.threshold_names) > 1):
        row = [x, mx.zeros_like(x), *(mx.full(x.shape, v) for v in theta)]
        for order in [(), *orders(entry, 2)]:
            f = nested(call(entry, reduction="none"), [i + 1 if i else 0 for i in order])
            inside, outside = both(f, *row)
            good = close(inside, outside, order=len(order))
            if len(order) == 2:
                good[INFINITE] = True
                good |= np.isnan(np.array(outside))  # a difference of infinities
                assert not np.isnan(np.array(inside))[:NAN].any()
            assert good.all(), (theta, order, np.array(R)[~good], inside, outside)


def test_infinite_and_invalid_thresholds(entry: Entry) -> None:
    """The value, and the gradient by the data; by an infinite threshold it is 0."""
    x = mx.array([*R, 1.0])
    for value in (np.inf, -np.inf, 0.0, -1.0, np.nan):
        for i in range(len(entry.threshold_names)):
            theta = fitted(entry, 1.0)
            theta[i] = value
            row = [x, mx.zeros_like(x), *(mx.full(x.shape, v) for v in theta)]
            for order in ((), (0,)):
                inside, outside = both(nested(call(entry, reduction="none"), order), *row)
                good = close(inside, outside, order=len(order))
                if order and np.isinf(value):
                    good[INFINITE] = True
                assert good.all(), (theta, order, inside, outside)


@pytest.mark.every(5)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.cpu
def test_weights_masks_and_axes(entry: Entry, dtype: mx.Dtype, reduction: str) -> None:
    """Value and gradients by all arguments, and no NaN from what a mask leaves out."""
    rng = np.random.default_rng(0)
    shape = (4, 3, 5)
    mask = rng.random(shape) < 0.6
    mask[1] = False
    poison = rng.choice([np.nan, np.inf, -np.inf, 0.0], shape)
    data = rng.normal(size=(2, *shape))
    theta = fitted(entry, rng.uniform(0.5, 2, (3, 1)))
    for masked, axis, w in itertools.product(
        (False, True),
        (None, 0, 1, (0, 2), ()) if reduction != "none" else (None,),
        (None, (4, 3, 5), (4, 1, 1), (1, 3, 1)),
    ):
        x, y = (mx.array(np.where(mask, v, poison) if masked else v).astype(dtype) for v in data)
        row = [x, y, *(mx.array(t, mx.float32) for t in theta)]
        if w is not None:
            row.append(mx.array(rng.uniform(0.5, 2, w), mx.float32).astype(dtype))

        def f(*row: mx.array) -> mx.array:
            extra = {"where": mx.array(mask)} if masked else {}
            if w is not None:
                *row, extra["weights"] = row
            if reduction != "none":
                extra["axis"] = axis
            return call(entry, reduction=reduction, **extra)(*row)

        def steps(*row: mx.array) -> list[mx.array]:
            out, grads = mx.value_and_grad(
                lambda *row: f(*row).astype(mx.float32).sum(), argnums=list(range(len(row)))
            )(*row)
            return [f(*row), out, *grads]

        with sl.exportable():
            inside = steps(*row)
        for a, b in zip(inside, steps(*row), strict=True):
            assert a.dtype == b.dtype
            bound = max(2 * float(mx.finfo(dtype).eps), 4e-6) * max(1, float(mx.abs(b).max()))
            assert float(mx.abs(a - b).max()) <= bound


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -1.0])
def test_a_threshold_left_out_may_be_anything(entry: Entry, nothing: float) -> None:
    x, y, mask = mx.full((2, 3), nothing), mx.zeros((2, 3)), mx.array([[True] * 3, [False] * 3])
    x = mx.where(mask, 1.0, x)
    good = fitted(entry, mx.full((2, 1), 0.7))
    bad = [mx.where(mx.array([[True], [False]]), t, nothing) for t in good]
    n = 2 + len(good)
    f = mx.grad(call(entry, reduction="mean", where=mask), argnums=[i for i in range(n) if i != 1])
    inside, outside = both(f, x, y, *bad)
    pairs = zip(inside, outside, strict=True) if n > 2 else [(inside, outside)]
    for a, b in pairs:
        assert not mx.isnan(a).any()
        assert mx.allclose(a, b, 1e-6)


def test_means_over_nothing(entry: Entry) -> None:
    x, y = mx.array([np.nan, 2.0]), mx.zeros(2)
    for extra in (
        {"where": mx.zeros(2) > 0},
        {"weights": mx.zeros(2), "where": mx.array([False, True])},
    ):
        f = mx.value_and_grad(call(entry, reduction="mean", **extra))
        with sl.exportable():
            value, g = f(x, y)
        assert value.item() == 0
        assert g.tolist() == [0, 0]
        twice = mx.grad(lambda x, f=f: mx.grad(call(entry, reduction="mean", **extra))(x, y).sum())
        assert both(twice, x)[0].tolist() == [0, 0]


@pytest.mark.parametrize("value", [0.1, 1.1, 0.7])
@pytest.mark.large_sums
def test_means_of_a_million_equal_values(value: float) -> None:
    """The worst of data for a sum in sequence."""
    x = mx.full((1000, 1000), value)
    for extra in ({}, {"where": x > 0}, {"weights": x}, {"axis": 0}, {"reduction": "sum"}):
        inside, _ = both(lambda x, extra=extra: sl.l1_loss(x, 0 * x, **extra), x)
        n = 10**6 if extra == {"reduction": "sum"} else 1
        np.testing.assert_allclose(np.array(inside), n * float(mx.array(value).item()), 2e-7)


def test_no_float64_where_there_is_a_gpu(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which has none; sums are those of MLX there."""
    monkeypatch.setattr(exportable, "on_cpu", lambda: False)
    x, y, w = mx.random.normal((4, 3)), mx.random.normal((4, 3)), mx.random.uniform(shape=(4, 1))
    for extra in ({}, {"where": w > 0.5}, {"weights": w}, {"weights": w, "where": x > 0}):
        f = mx.value_and_grad(call(entry, reduction="mean", **extra))
        with sl.exportable():
            inside = f(x, y)
        for a, b in zip(inside, f(x, y), strict=True):
            assert mx.allclose(a, b, 1e-5, 1e-6)


def test_transforms(entry: Entry) -> None:
    x, y = mx.random.normal((4, 3)), mx.random.normal((4, 3))
    theta = fitted(entry, mx.array([0.5, 1.0, 2.0]))
    one = call(entry, reduction="mean")
    f = lambda *row: one(*row, *theta)
    ways = {
        "vmap": lambda x, y: mx.vmap(f)(x, y),
        "vmap grad": lambda x, y: mx.vmap(mx.grad(f))(x, y),
        "grad vmap": mx.grad(lambda x, y: mx.vmap(f)(x, y).sum()),
        "other axis": lambda x, y: mx.vmap(one, (1, 1, *[0] * len(theta)))(x, y, *theta),
        "jvp": lambda x, y: mx.jvp(f, [x, y], [y, x])[1][0],
        "jvp grad": lambda x, y: mx.jvp(mx.grad(f), [x, y], [y, x])[1][0],
        "checkpoint": mx.grad(mx.checkpoint(f)),
    }
    for name, way in ways.items():
        a, b = both(way, x, y)
        assert mx.allclose(a, b, 1e-5, 1e-7), name


def test_norms(entry: Entry) -> None:
    r = mx.array([x for x in R if np.isfinite(x)])
    for theta in (thresholds(entry, 0.7), thresholds(entry, mx.array(0.7))):
        norm = sl.RobustNorm(entry.function, **theta)
        for of in (norm.rho, norm.psi, norm.psi_prime, norm.weight):
            assert same_bits(*both(of, r))
            assert both(lambda r, of=of: of(r).sum(), r)[0].dtype == mx.float32
        for of, slope in ((norm.rho, norm.psi), (norm.psi, norm.psi_prime)):
            a = both(mx.grad(lambda r, of=of: of(r).sum()), r)[0]
            assert close(a, slope(r), order=2).all()
        with sl.exportable():
            assert exports(lambda norm=norm: norm.rho(r))
            assert exports(lambda norm=norm: norm.psi(r))


def test_modules_that_learn() -> None:
    def trained() -> list[float]:
        mx.random.seed(1)
        loss = sl.AdaptiveLoss(alpha=sl.Learned(mx.ones(2), high=2.0), scale=sl.Learned(mx.ones(2)))
        model, optimizer = Line(loss), optim.Adam(learning_rate=0.05)
        x = mx.random.normal((32, 2))
        step = nn.value_and_grad(model, model)
        for _ in range(10):
            value, grads = step(x, x @ mx.array([[1.0, 2.0], [0.0, 1.0]]))
            optimizer.update(model, grads)
        return [value.item(), *loss.alpha.value.tolist(), *loss.scale.value.tolist()]

    inside, outside = both(trained)  # type: ignore[arg-type]
    np.testing.assert_allclose(inside, outside, 1e-4)
