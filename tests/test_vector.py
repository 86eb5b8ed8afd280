"""Losses of the length of a vector: values, and derivatives to second order, at 0 too."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from cases import FLOATS, Entry, call, floats, thresholds

import smoothloss as sl
from smoothloss import vector_loss

INF, NAN = float("inf"), float("nan")
VECTORS = floats(3.0, -4.0, 0.0, 0.3, 0.0, 0.4, 0.0, 0.0, 0.0).reshape(3, 3)


def total(loss: Any, **named: Any) -> Any:
    return lambda v, *theta: vector_loss(loss, v, mx.zeros_like(v), "sum", **named)


def hessian(f: Any, v: mx.array) -> np.ndarray:
    """Of one vector, row by row, by reverse over reverse."""
    along = lambda step: mx.grad(lambda v: (mx.grad(f)(v) * step).sum())(v)
    return np.stack([np.array(along(step)) for step in mx.eye(v.size, dtype=v.dtype)])


def even(entry: Entry, size: float) -> dict[str, Any]:
    theta = thresholds(entry, size)
    return theta | dict.fromkeys({"quantile", "expectile"} & theta.keys(), 0.5)


def test_values_and_gradients_are_those_of_the_length(entry: Entry) -> None:
    theta = even(entry, 0.7)
    norm, length = sl.RobustNorm(entry.function, **theta), floats(5.0, 0.5, 0.0)
    got = vector_loss(entry.function, VECTORS, mx.zeros((3, 3)), "none", **theta)
    np.testing.assert_allclose(got, norm.rho(length), rtol=1e-6)
    direction = np.array(VECTORS) / np.array([[5.0], [0.5], [1.0]])
    slope = mx.grad(total(entry.function, **theta))(VECTORS)
    np.testing.assert_allclose(slope, np.array(norm.psi(length))[:, None] * direction, rtol=2e-6)
    assert not slope[2].any()


@pytest.mark.float64
def test_the_second_derivative_is_that_of_the_formula_and_at_0_that_of_the_limit(
    entry: Entry,
) -> None:
    """By every way that MLX has: grad of grad, jvp of grad, grad of jvp, under vmap."""
    theta = even(entry, 0.7)
    norm, f = sl.RobustNorm(entry.function, **theta), total(entry.function, **theta)
    for v, n in zip(VECTORS.astype(mx.float64), (5.0, 0.5, 0.0), strict=True):
        bend = norm.psi_prime(mx.array(n, mx.float64)).item()
        slope = norm.psi(mx.array(n, mx.float64)).item() / n if n else bend
        u = np.array(v) / (n or 1)
        want = bend * np.outer(u, u) + slope * (np.eye(3) - np.outer(u, u))
        np.testing.assert_allclose(hessian(f, v), want, rtol=1e-6, atol=1e-9)
        step = mx.array([0.3, -2.0, 1.1], mx.float64)
        forward = mx.jvp(mx.grad(f), [v], [step])[1][0]
        back = mx.grad(lambda v, step=step: mx.jvp(f, [v], [step])[1][0])(v)
        for got in (forward, back):
            np.testing.assert_allclose(got, want @ np.array(step), rtol=1e-6, atol=1e-9)
    alone = [mx.jvp(mx.grad(f), [v], [mx.ones(3)])[1][0] for v in VECTORS]
    mapped = mx.vmap(lambda v: mx.jvp(mx.grad(f), [v], [mx.ones(3)])[1][0])(VECTORS)
    np.testing.assert_allclose(mapped, mx.stack(alone), rtol=1e-6)


def test_a_smooth_loss_bends_at_0_and_l1_does_not() -> None:
    """What a loss of a norm loses."""
    zero = mx.zeros((3,))
    assert hessian(total(sl.huber_loss), zero).tolist() == np.eye(3).tolist()
    assert hessian(total(sl.mse_loss), zero).tolist() == (2 * np.eye(3)).tolist()
    assert not hessian(total(sl.l1_loss), zero).any()
    assert not mx.grad(total(sl.l1_loss))(zero).any()
    assert mx.isnan(mx.grad(mx.linalg.norm)(zero)).all()  # else this would not be needed


def test_one_component_is_the_loss_itself(entry: Entry) -> None:
    theta = even(entry, 0.7)
    r = mx.concatenate([mx.random.normal((60,)), floats(0.0, 0.7, -0.7, INF, -INF, NAN, 1e30)])
    zero = mx.zeros_like(r)
    vectors = r[:, None]
    loss = lambda r: entry.function(r, zero, **theta, reduction="none")
    got = vector_loss(entry.function, vectors, zero[:, None], "none", **theta)
    want = loss(r)
    close = mx.allclose(got, want, rtol=1e-6, equal_nan=True)  # closed forms are other kernels
    assert close and mx.array_equal(mx.isnan(got), mx.isnan(want))
    slope = mx.grad(total(entry.function, **theta))(vectors)[:, 0]
    assert mx.allclose(slope, mx.grad(lambda r: loss(r).sum())(r), rtol=1e-6, equal_nan=True)


@pytest.mark.every(3)
def test_derivatives_by_thresholds(entry: Entry) -> None:
    theta = even(entry, 0.7)
    names = list(theta)
    if not names or "quantile" in names:
        return
    v, length = VECTORS[:2], floats(5.0, 0.5)
    values = [mx.full((2,), t) for t in theta.values()]
    f = lambda v, *t: total(entry.function, **dict(zip(names, t, strict=True)))(v)
    scalar = lambda n, *t: call(entry, reduction="none")(n, mx.zeros_like(n), *t).sum()
    direction = v / length[:, None]
    for i in range(1, 1 + len(names)):
        got, want = (mx.grad(g, i)(x, *values) for g, x in ((f, v), (scalar, length)))
        np.testing.assert_allclose(got, want, rtol=1e-5)
        pull = lambda g, x: lambda *t: mx.grad(g)(x, *t)
        for j, value in enumerate(values, 1):
            step = [
                mx.ones_like(value) if j == i else mx.zeros_like(t) for j, t in enumerate(values, 1)
            ]
            mixed, plain = (
                mx.jvp(pull(g, x), values, step)[1][0] for g, x in ((f, v), (scalar, length))
            )
            np.testing.assert_allclose(mixed, plain[:, None] * direction, rtol=1e-5, atol=1e-7)
    whole = [mx.array(t) for t in theta.values()]  # one number for all, whose gradient is summed
    np.testing.assert_allclose(
        mx.grad(f, 1)(v, *whole), mx.grad(scalar, 1)(length, *whole), rtol=1e-5
    )
    shared = mx.grad(lambda t: mx.vmap(lambda v: f(v, t, *whole[1:]))(v).sum())(whole[0])
    np.testing.assert_allclose(shared, mx.grad(scalar, 1)(length, *whole), rtol=1e-5)
    mapped = mx.vmap(mx.grad(f, (0, 1)))(v, *(t + 0 for t in values))
    np.testing.assert_allclose(mapped[0], mx.grad(f)(v, *values), rtol=1e-6)
    np.testing.assert_allclose(mapped[1], mx.grad(f, 1)(v, *values), rtol=1e-5)


def test_exportable_losses_have_the_same_derivatives(entry: Entry) -> None:
    theta = even(entry, 0.7)
    f = total(entry.function, **theta)
    v = mx.concatenate([VECTORS, floats(INF, 1.0, 0.0, NAN, 0.0, 0.0).reshape(2, 3)])
    bends = lambda v: mx.jvp(mx.grad(f), [v], [mx.ones_like(v)])[1][0]
    each = lambda v: vector_loss(entry.function, v, mx.zeros_like(v), "none", **theta)
    for g, rows in ((each, 5), (mx.grad(f), 3), (bends, 3)):
        want = g(v[:rows])
        with sl.exportable():
            got = g(v[:rows])
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_exportable_losses_are_differentiable_by_thresholds() -> None:
    v, delta = VECTORS, mx.array([0.7, 0.3, 0.2])
    by_delta = mx.grad(lambda d: vector_loss(sl.huber_loss, v, 0 * v, "sum", delta=d))
    mixed = mx.grad(lambda d: mx.grad(total(sl.huber_loss, delta=d))(v).sum())
    for g in (by_delta, mixed):
        want = g(delta)
        with sl.exportable():
            np.testing.assert_allclose(g(delta), want, rtol=1e-6)
        assert want[:2].tolist() != [0, 0]


@pytest.mark.full
def test_exportable_losses_of_any_number_of_vectors_are_compiled_once() -> None:
    loss = lambda x, y: vector_loss(sl.huber_loss, x, y, delta=0.7)
    compiled = mx.compile(sl.exportable()(lambda x, y: mx.grad(loss)(x, y)), shapeless=True)
    for n in (2, 5, 3):
        x, y = mx.random.normal((2, n, 3))
        np.testing.assert_allclose(compiled(x, y), mx.grad(loss)(x, y), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("v", "length", "direction"),
    [
        ([1e30, 1e30], INF, [0.5**0.5] * 2),
        ([3e19, 4e19], 5e19, [0.6, 0.8]),
        ([3e-30, 4e-30], 5e-30, [0.6, 0.8]),
        ([INF, 5.0], INF, [1, 0]),
        ([INF, -INF], INF, [0.5**0.5, -(0.5**0.5)]),
        ([3e38, 3e38], INF, [0.5**0.5] * 2),
        ([NAN, 1.0], NAN, [NAN, NAN]),
        ([INF, NAN], NAN, [NAN, NAN]),
        ([0.0, -0.0], 0, [0, 0]),
    ],
)
def test_lengths_of_every_size(v: list[float], length: float, direction: list[float]) -> None:
    v = mx.array([v])
    if length != INF:
        got = vector_loss(sl.l1_loss, v, mx.zeros_like(v))
        assert got.item() == pytest.approx(length, rel=1e-6, nan_ok=True)
    slope = mx.grad(total(sl.l1_loss))(v)
    assert slope[0].tolist() == pytest.approx(direction, rel=1e-6, nan_ok=True)


def test_reductions_weights_where_and_axes() -> None:
    x, y = mx.random.normal((4, 3, 5)), mx.random.normal((4, 3, 5))
    length = mx.sqrt(mx.square(x - y).sum(1))
    w, mask = mx.random.uniform(shape=(4, 1)), mx.random.uniform(shape=(4, 5)) < 0.6
    for reduction, axis in (
        ("none", None),
        ("sum", None),
        ("mean", None),
        ("mean", 0),
        ("sum", -1),
    ):
        named = {"weights": w, "where": mask, "axis": axis}
        got = vector_loss(sl.huber_loss, x, y, reduction, vector_axis=1, **named, delta=0.7)
        want = sl.huber_loss(length, mx.zeros_like(length), 0.7, reduction, **named)
        np.testing.assert_allclose(got, want, rtol=1e-5)
    first = vector_loss(sl.huber_loss, x, y, "none", vector_axis=0)
    assert first.shape == (3, 5)
    by_weight = mx.grad(lambda w: vector_loss(sl.l1_loss, x, y, "sum", vector_axis=1, weights=w))(w)
    np.testing.assert_allclose(by_weight, length.sum(1, keepdims=True), rtol=1e-5)


def test_what_where_leaves_out_does_not_matter() -> None:
    x = floats(3.0, 4.0, NAN, INF, 0.0, 0.0).reshape(3, 2)
    mask = mx.array([True, False, True])
    f = lambda x: vector_loss(sl.l1_loss, x, mx.zeros((3, 2)), where=mask)
    assert f(x).item() == 2.5
    np.testing.assert_allclose(mx.grad(f)(x), [[0.3, 0.4], [0, 0], [0, 0]], rtol=1e-6)
    assert vector_loss(sl.l1_loss, x[:0], x[:0]).item() == 0


@pytest.mark.parametrize("dtype", FLOATS)
def test_dtypes(dtype: mx.Dtype) -> None:
    x, y = floats(300.0, 0.1).astype(dtype), floats(-100.0, 300.3).astype(dtype)
    got = vector_loss(sl.huber_loss, x, y, delta=1e5)
    wide = (np.array(x.tolist()) - np.array(y.tolist())) ** 2
    assert got.dtype == dtype
    # In float16 it is infinite. In float32 a length is rounded before it is squared.
    assert got.item() == pytest.approx(mx.array(wide.sum() / 2, dtype).item(), rel=3e-7)
    slope = mx.grad(lambda x: vector_loss(sl.l1_loss, x, y))(x)
    assert slope.dtype == dtype
    np.testing.assert_allclose(slope.astype(mx.float32), [0.8, -0.6], rtol=0.01)
    big = mx.array([2**24 + 1, 0]), mx.array([2**24, 0])
    assert vector_loss(sl.l1_loss, *big).item() == 1


def test_losses_of_every_kind() -> None:
    v, zero = VECTORS, mx.zeros((3, 3))
    want = vector_loss(sl.huber_loss, v, zero, delta=2.0).item()
    norm = sl.RobustNorm(sl.huber_loss, delta=2.0)
    own = sl.Loss(
        "own", lambda r, c: sl.HuberLoss.loss.rho(r, c), thresholds=[sl.Threshold("c", 2.0)]
    )
    for loss in (sl.HuberLoss(2.0), norm, own, sl.HuberLoss(mx.array(2.0))):
        assert vector_loss(loss, v, zero).item() == want
        assert mx.allclose(mx.grad(total(loss))(v), mx.grad(total(sl.huber_loss, delta=2.0))(v))
    slope = mx.grad(total(sl.HuberLoss(2.0)))
    assert mx.allclose(mx.compile(slope)(v), slope(v))
    nan = vector_loss(sl.huber_loss, v, zero, "none", delta=mx.array([2.0, -1.0, NAN]))
    assert mx.isnan(nan).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({"loss": abs}, TypeError, "vector_loss: `loss` is 'abs'"),
        ({"beta": 1.0}, TypeError, "vector_loss: `beta` is no argument; expected delta"),
        ({"delta": -1.0}, ValueError, "vector_loss: `delta` is -1.0"),
        ({"targets": mx.zeros((3,))}, ValueError, r"vector_loss: `inputs` has shape \(3, 3\)"),
        ({"vector_axis": 2}, ValueError, r"`vector_axis` is 2 and the data have shape \(3, 3\)"),
        ({"vector_axis": 1.0}, TypeError, "`vector_axis` is 1.0; expected an int"),
        ({"reduction": "average"}, ValueError, "vector_loss: `reduction` is 'average'"),
        ({"weights": mx.ones((3, 1))}, ValueError, r"vector_loss: `weights` has shape \(3, 1\)"),
        (
            {"where": mx.ones((3, 3), mx.bool_)},
            ValueError,
            r"vector_loss: `where` has shape \(3, 3",
        ),
        ({"delta": mx.ones((3, 3))}, ValueError, r"vector_loss: `delta` has shape \(3, 3\)"),
    ],
)
def test_errors(named: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"loss": sl.huber_loss, "predictions": VECTORS, "targets": mx.zeros((3, 3))}
    with pytest.raises(error, match=message):
        vector_loss(**given | named)


def test_data_without_an_axis_or_a_component() -> None:
    with pytest.raises(ValueError, match=r"the data have shape \(\)"):
        vector_loss(sl.l1_loss, mx.array(1.0), mx.array(2.0))
    with pytest.raises(ValueError, match="an axis of length 1 at least"):
        vector_loss(sl.l1_loss, mx.zeros((3, 0)), mx.zeros((3, 0)))
