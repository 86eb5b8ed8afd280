"""Transforms of the real losses: eager, compiled, mapped and pushed forward agree."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from cases import (
    BY_NAME,
    FLOATS,
    Entry,
    call,
    fitted,
    floats,
    same_bits,
    thresholds,
)
from oracle import as_numpy

ROWS, COLUMNS = 4, 3


def batch(dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
    return tuple(mx.random.normal((ROWS, COLUMNS)).astype(dtype) * 2 for _ in range(2))


@pytest.mark.every(19)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ["float", "0-d", "vector"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_matrix(entry: Entry, dtype: mx.Dtype, kind: str, reduction: str) -> None:
    """Eager, compiled, vmapped and pushed forward agree, for all argnums at once."""
    x, y = batch(dtype)
    theta = {"float": 0.8, "0-d": mx.array(0.8), "vector": mx.array([0.5, 1.0, 2.0])}[kind]
    row = [x, y, *fitted(entry, theta)]
    loss = call(entry, reduction=reduction)
    arrays = [i for i, v in enumerate(row) if isinstance(v, mx.array)]

    def scalar(*row: object) -> mx.array:
        return (loss(*row) * 3).sum()

    for some in (arrays, arrays[:2], arrays[-2:]):
        value, grads = mx.value_and_grad(scalar, argnums=tuple(some))(*row)
        assert value.dtype == dtype
        for i, g in zip(some, grads, strict=True):
            assert g.dtype == row[i].dtype
            assert g.shape == row[i].shape
        compiled = mx.compile(
            lambda some=some: mx.value_and_grad(scalar, argnums=tuple(some))(*row)
        )
        for a, b in zip([value, *grads], [compiled()[0], *compiled()[1]], strict=True):
            np.testing.assert_allclose(as_numpy(a), as_numpy(b), rtol=1e-6)

    # One direction: <grad, v> is the jvp along v.
    if dtype in (mx.float32, mx.float64):
        some = arrays
        _, grads = mx.value_and_grad(scalar, argnums=tuple(some))(*row)
        v = [mx.random.normal(row[i].shape).astype(row[i].dtype) for i in some]
        primals = [row[i] for i in some]

        def on_arrays(*arrays: mx.array) -> mx.array:
            given = dict(zip(some, arrays, strict=True))
            return scalar(*(given.get(i, a) for i, a in enumerate(row)))

        along = mx.jvp(on_arrays, primals, v)[1][0].item()
        dotted = sum(as_numpy(g * d).sum() for g, d in zip(grads, v, strict=True))
        assert along == pytest.approx(dotted, rel=1e-5, abs=1e-5)

    if kind != "vector":
        each = mx.vmap(lambda a, b: scalar(a, b, *row[2:]))(x, y)
        assert each.tolist() == [scalar(x[i], y[i], *row[2:]).item() for i in range(ROWS)]
    columns = mx.vmap(mx.grad(lambda a, b: scalar(a, b, *row[2:])), (0, 0))
    if kind != "vector" and reduction != "mean":
        assert same_bits(columns(x, y), mx.grad(lambda x: scalar(x, y, *row[2:]))(x))


AXES = [(0, 0), (1, 1), (2, 2), (-1, 0), (0, 1), (1, None), (None, 2), (2, -1)]
REDUCTIONS = [("none", None), ("sum", None), ("mean", 1), ("sum", (0, -1)), ("mean", (0, 1))]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_vmap_over_any_axis_is_the_loop(
    entry: Entry, axes: tuple[int | None, int | None], reduction: tuple[str, object]
) -> None:
    """Value, gradients and Hessian-vector products, of data batched along different axes."""
    inner, batch = (3, 4), 5
    x, y = (
        mx.random.normal(inner)
        if a is None
        else mx.moveaxis(mx.random.normal((batch, *inner)), 0, a)
        for a in axes
    )
    theta = mx.random.uniform(0.2, 2, (batch,))
    w = mx.random.uniform(shape=(batch, 4))
    v = mx.random.normal(inner)

    def loss(x: mx.array, y: mx.array, t: mx.array, w: mx.array) -> mx.array:
        named = thresholds(entry, t)
        return entry.function(
            x, y, reduction=reduction[0], axis=reduction[1], weights=w[None], **named
        )

    def squared(*row: mx.array) -> mx.array:
        return (loss(*row) ** 2).sum()

    def hvp(*row: mx.array) -> mx.array:
        return mx.grad(lambda x: (v * mx.grad(squared)(x, *row[1:])).sum())(row[0])

    def pushed(*row: mx.array) -> mx.array:
        return mx.jvp(lambda x: mx.grad(squared)(x, *row[1:]), [row[0]], [v])[1][0]

    def take(a: mx.array, axis: int | None, i: int) -> mx.array:
        return a if axis is None else mx.take(a, i, axis)

    rows = [(take(x, axes[0], i), take(y, axes[1], i), theta[i], w[i]) for i in range(batch)]
    for f in (loss, mx.grad(squared), mx.grad(squared, argnums=3), hvp, pushed):
        want = mx.stack([f(*row) for row in rows])
        got = mx.vmap(f, (*axes, 0, 0))(x, y, theta, w)
        assert got.shape == want.shape
        assert mx.allclose(got, want, rtol=1e-5, atol=1e-6)
        out = mx.vmap(f, (*axes, 0, 0), -1)(x, y, theta, w)
        assert mx.allclose(mx.moveaxis(out, -1, 0), want, rtol=1e-5, atol=1e-6)
    nested = mx.vmap(mx.vmap(hvp, (None, None, 0, None)), (*axes, None, 0))(x, y, theta, w)
    for i, (a, b, _, d) in enumerate(rows):
        want = mx.stack([hvp(a, b, theta[j], d) for j in range(batch)])
        assert mx.allclose(nested[i], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["smooth_l1_loss", "huber_loss"])
def test_hand_derivatives_survive_vmap_where_autodiff_fails(name: str) -> None:
    """At r = 0, at infinity and at threshold 0 MLX's own derivative would be 0 or NaN."""
    entry = BY_NAME[name]
    x = mx.stack([floats(0.0, 0.5, float("inf"), -2.0)] * 2)
    y = mx.zeros_like(x)

    def scalar(x: mx.array, t: float) -> mx.array:
        return mx.vmap(lambda a, b: call(entry, reduction="sum")(a, b, t))(x, y).sum()

    g = mx.grad(scalar)(x, 1.0)
    assert g.tolist() == [[0, 0.5, 1, -1]] * 2
    assert mx.grad(lambda x: mx.grad(scalar)(x, 1.0).sum())(x).tolist() == [[1, 1, 0, 0]] * 2
    assert not mx.isnan(mx.grad(scalar)(x, 0.0)).any()


def test_module_optimizer_and_compiled_step_with_state(entry: Entry) -> None:
    model = nn.Linear(3, 1)
    optimizer = optim.Adam(learning_rate=0.05)
    optimizer.init(model.trainable_parameters())
    rng = np.random.default_rng(0)
    features = mx.array(rng.normal(size=(64, 3)), mx.float32)
    targets = (features @ mx.array([[1.0], [-2.0], [0.5]])) + 0.3
    state = [model.state, optimizer.state]
    named = thresholds(entry, 0.5)

    def loss(model: nn.Module, x: mx.array, y: mx.array) -> mx.array:
        return entry.function(model(x), y, reduction="mean", **named)

    def step(x: mx.array, y: mx.array) -> mx.array:
        value, grads = nn.value_and_grad(model, loss)(model, x, y)
        optimizer.update(model, grads)
        return value

    compiled = mx.compile(step, inputs=state, outputs=state)
    least = entry.function(targets, targets, reduction="mean", **named).item()
    first = compiled(features, targets).item() - least
    for _ in range(300):
        last = compiled(features, targets)
    assert last.item() - least < 0.05 * first
    flat = entry.function(targets + 0.4, targets, reduction="mean", **named).item() == least
    room = 0.5 if flat else 0.1  # errors up to 0.5 cost nothing then
    np.testing.assert_allclose(as_numpy(model.weight), [[1.0, -2.0, 0.5]], atol=room)
