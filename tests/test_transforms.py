"""Every MLX transform keeps the derivatives written by hand.

The first half calls a loss whose "derivatives" are marks that no differentiation of its rho could
give, so a transform that lost one of them would show. The second half checks real numbers.
"""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from cases import FLOATS, WITH_THRESHOLD, call, floats, same_bits, thresholds
from cases import entry as entry  # a fixture
from oracle import as_numpy

import smoothloss as sl
from smoothloss._catalog import Entry
from smoothloss._evaluate import evaluate
from smoothloss._loss import Loss, Threshold

PSI, RHO_T, PSI_R, PSI_T, RHO_TT = 7.0, 11.0, 13.0, 17.0, 23.0


def mark(value: float) -> Callable[..., mx.array]:
    return lambda r, t: mx.full(r.shape, value)  # also shows that a formula may ignore t


MARKED = Loss(
    lambda r, t: r * r * t,
    (mark(PSI), mark(RHO_T)),
    ((mark(PSI_R), mark(PSI_T)), (mark(PSI_T), mark(RHO_TT))),
    (Threshold("t"),),
)
N = 6
X, Y, T = mx.arange(N) * 0.5, mx.ones(N), mx.ones(N) * 2.0
ROWS, COLUMNS = 4, 3


def marked(x: mx.array, y: mx.array, t: object = 2.0, reduction: str = "none", **kw) -> mx.array:
    given = {"weights": None, "where": None, "axis": None, **kw}
    return evaluate("marked", MARKED, {"x": x, "y": y}, {"t": t}, reduction, **given)


def total(x: mx.array) -> mx.array:
    return marked(x, Y, T).sum()


def stack(x: mx.array) -> mx.array:
    return mx.stack([x] * ROWS)


def vmapped(axis: int, out: int = 0, **kw: object) -> Callable[[mx.array], mx.array]:
    """sum(vmap(loss)) of a vector, over a batch built with its axis at ``axis``."""

    def f(x: mx.array) -> mx.array:
        batch = mx.moveaxis(stack(x), 0, axis)
        inner = mx.vmap(lambda x, y, t: marked(x, y, t, **kw), (axis, None, None), out)
        return inner(batch, Y, T).sum() / ROWS

    return f


FIRST = {
    "grad": mx.grad(total),
    "value_and_grad": lambda x: mx.value_and_grad(total)(x)[1],
    "vjp": lambda x: mx.vjp(lambda x: marked(x, Y, T), [x], [mx.ones(N)])[1][0],
    "jvp": lambda x: mx.jvp(lambda x: marked(x, Y, T), [x], [mx.ones(N)])[1][0],
    "jvp compile": lambda x: mx.jvp(mx.compile(lambda x: marked(x, Y, T)), [x], [mx.ones(N)])[1][0],
    "compile grad": mx.compile(mx.grad(total)),
    "grad compile": mx.grad(mx.compile(total)),
    "checkpoint": mx.grad(mx.checkpoint(total)),
    "grad vmap": mx.grad(vmapped(0)),
    "grad vmap axis 1": mx.grad(vmapped(1)),
    "grad vmap axis -1": mx.grad(vmapped(-1)),
    "grad vmap out 1": mx.grad(vmapped(0, 1)),
    "grad vmap sum": mx.grad(vmapped(0, reduction="sum")),
    "compile grad vmap": mx.compile(mx.grad(vmapped(0))),
    "grad compile vmap": mx.grad(mx.compile(vmapped(0))),
    "checkpoint vmap": mx.grad(mx.checkpoint(vmapped(0))),
    "vmap grad": lambda x: mx.vmap(mx.grad(total))(stack(x))[1],
    "vmap grad axis 1": lambda x: mx.vmap(mx.grad(total), 1, 1)(stack(x).T)[:, 1],
    "vmap compile grad": lambda x: mx.vmap(mx.compile(mx.grad(total)))(stack(x))[1],
    "jvp vmap": lambda x: mx.jvp(
        mx.vmap(lambda x: marked(x, Y, T)), [stack(x)], [stack(mx.ones(N))]
    )[1][0][2],
    "vmap jvp": lambda x: mx.vmap(
        lambda x: mx.jvp(lambda x: marked(x, Y, T), [x], [mx.ones(N)])[1][0]
    )(stack(x))[2],
    "grad vmap vmap": mx.grad(
        lambda x: mx.vmap(mx.vmap(marked, (0, 0, None)), (None, None, 0))(x, Y, T[:2]).sum() / 2
    ),
    "vmap scalars": mx.vmap(mx.grad(lambda x: marked(x, mx.array(1.0)))),
    "grad vmap scalars": mx.grad(lambda x: mx.vmap(marked)(x, Y, T).sum()),
}


@pytest.mark.parametrize("name", FIRST)
def test_first_order_is_by_hand(name: str) -> None:
    assert FIRST[name](X).tolist() == [PSI] * N


def hvp(f: Callable[[mx.array], mx.array]) -> Callable[[mx.array], mx.array]:
    return lambda x: mx.grad(lambda x: mx.grad(f)(x).sum())(x)


def forward(f: Callable[[mx.array], mx.array]) -> Callable[[mx.array], mx.array]:
    """The derivative of an elementwise f along ones, by jvp."""
    return lambda x: mx.jvp(f, [x], [mx.ones_like(x)])[1][0]


def elementwise(x: mx.array) -> mx.array:
    return marked(x, Y, T)


SECOND = {
    "grad grad": hvp(total),
    "jvp grad": forward(mx.grad(total)),
    "grad jvp": mx.grad(lambda x: forward(elementwise)(x).sum()),
    "jvp jvp": forward(forward(elementwise)),
    "compile grad grad": mx.compile(hvp(total)),
    "grad compile grad": mx.grad(lambda x: mx.compile(mx.grad(total))(x).sum()),
    "grad grad compile": hvp(mx.compile(total)),
    "checkpoint": hvp(mx.checkpoint(total)),
    "grad grad vmap": hvp(vmapped(0)),
    "grad grad vmap axis -1": hvp(vmapped(-1)),
    "compile grad grad vmap": mx.compile(hvp(vmapped(1))),
    "vmap hvp": lambda x: mx.vmap(hvp(total))(stack(x))[1],
    "vmap jvp grad": lambda x: mx.vmap(forward(mx.grad(total)))(stack(x))[1],
    "jvp grad vmap": forward(mx.grad(vmapped(0))),
    "grad vmap grad": mx.grad(lambda x: mx.vmap(mx.grad(total))(stack(x)).sum() / ROWS),
}


@pytest.mark.parametrize("name", SECOND)
def test_second_order_is_by_hand(name: str) -> None:
    assert SECOND[name](X).tolist() == [PSI_R] * N


def test_thresholds_by_hand() -> None:
    def f(x: mx.array, t: mx.array) -> mx.array:
        return marked(x, Y, t, "sum")

    for t, want in ((T, [1.0] * N), (mx.array(2.0), N), (mx.ones(1), [N])):
        by_t = mx.grad(f, argnums=1)
        scale = np.array(want)
        assert by_t(X, t).tolist() == (RHO_T * scale).tolist()
        assert mx.compile(by_t)(X, t).tolist() == (RHO_T * scale).tolist()
        over_t = mx.grad(lambda t: by_t(X, t).sum())
        assert over_t(t).tolist() == (RHO_TT * scale).tolist()
        mixed = mx.grad(lambda t: mx.grad(f)(X, t).sum())
        assert mixed(t).tolist() == (PSI_T * scale).tolist()
        assert mx.grad(lambda x, t=t: by_t(x, t).sum())(X).tolist() == [PSI_T] * N
        one = mx.ones_like(t)
        assert mx.jvp(lambda t: f(X, t), [t], [one])[1][0].item() == N * RHO_T
        assert mx.jvp(lambda t: mx.grad(f)(X, t), [t], [one])[1][0].tolist() == [PSI_T] * N


def test_thresholds_by_hand_under_vmap() -> None:
    candidates = mx.array([0.5, 1.0, 2.0])
    by_t = mx.vmap(mx.grad(lambda t: marked(X, Y, t, "sum")))(candidates)
    assert by_t.tolist() == [N * RHO_T] * 3
    through = mx.grad(lambda t: mx.vmap(lambda t: marked(X, Y, t, "sum"))(t).sum())(candidates)
    assert through.tolist() == [N * RHO_T] * 3
    through_x = mx.grad(lambda x: mx.vmap(lambda t: marked(x, Y, t, "sum"))(candidates).sum())(X)
    assert through_x.tolist() == [3 * PSI] * N


def test_weights_and_masks_by_hand() -> None:
    w, mask = mx.arange(N) * 1.0, mx.arange(N) % 2 == 0
    f = lambda x, w: marked(x, Y, T, "sum", weights=w, where=mask)
    chosen = as_numpy(mask)
    gx, gw = mx.grad(f, argnums=(0, 1))(X, w)
    assert gx.tolist() == (PSI * as_numpy(w) * chosen).tolist()
    assert gw.tolist() == (as_numpy(marked(X, Y, T)) * chosen).tolist()
    cross = mx.grad(lambda w: mx.grad(f)(X, w).sum())(w)
    assert cross.tolist() == (PSI * chosen).tolist()
    curvature = mx.grad(lambda x: mx.grad(f)(x, w).sum())(X)
    assert curvature.tolist() == (PSI_R * as_numpy(w) * chosen).tolist()
    batched = mx.vmap(mx.grad(f), (None, 0))(X, mx.stack([w, 2 * w]))
    assert same_bits(batched, mx.stack([gx, 2 * gx]))
    through = mx.grad(lambda w: mx.vmap(f, (None, 0))(X, w).sum())(mx.stack([w, w]))
    assert same_bits(through, mx.stack([gw, gw]))
    moved = mx.jvp(f, [X, w], [mx.ones(N), mx.ones(N)])[1][0]
    assert moved.item() == pytest.approx((gx.sum() + gw.sum()).item())
    masks = mx.stack([mask, ~mask])
    by_mask = mx.vmap(lambda m: mx.grad(lambda x: marked(x, Y, T, "sum", where=m))(X))(masks)
    assert by_mask.tolist() == (PSI * as_numpy(masks)).tolist()


def test_a_mask_that_depends_on_the_argument_has_no_derivative() -> None:
    f = lambda t: marked(X, Y, T, where=t > 2)
    assert mx.jvp(f, [T], [T])[1][0].tolist() == [0] * N
    assert mx.grad(lambda t: f(t).sum())(T).tolist() == [0] * N


def test_stop_gradient_and_targets() -> None:
    assert mx.grad(lambda x: total(mx.stop_gradient(x)))(X).tolist() == [0] * N
    assert mx.grad(lambda y: marked(X, y, T, "sum"))(Y).tolist() == [-PSI] * N


# Real losses from here on.


def batch(dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
    return tuple(mx.random.normal((ROWS, COLUMNS)).astype(dtype) * 2 for _ in range(2))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ["float", "0-d", "vector"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_matrix(entry: Entry, dtype: mx.Dtype, kind: str, reduction: str) -> None:
    """Eager, compiled, vmapped and pushed forward agree, for all argnums at once."""
    x, y = batch(dtype)
    theta = {"float": 0.8, "0-d": mx.array(0.8), "vector": mx.array([0.5, 1.0, 2.0])}[kind]
    row = [x, y, *[theta] * len(entry.threshold_names)]
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
        dotted = sum((g * d).astype(mx.float64).sum().item() for g, d in zip(grads, v, strict=True))
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
        return entry.function(x, y, reduction=reduction[0], axis=reduction[1], weights=w, **named)

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


@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_hand_derivatives_survive_vmap_where_autodiff_fails(entry: Entry) -> None:
    """At r = 0, at infinity and at threshold 0 MLX's own derivative would be 0 or NaN."""
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
    first = compiled(features, targets).item()
    for _ in range(300):
        last = compiled(features, targets)
    assert last.item() < 0.05 * first
    np.testing.assert_allclose(as_numpy(model.weight), [[1.0, -2.0, 0.5]], atol=0.1)


def test_documented_limits_of_mlx_still_stand(tmp_path: Path) -> None:
    """When one of these works, the README's note on it can go."""
    shapeless = mx.compile(lambda x: sl.l1_loss(x, Y), shapeless=True)
    with pytest.raises(ValueError, match="CustomTransforms"):
        mx.eval(shapeless(X))
    with pytest.raises(ValueError, match="CustomTransforms"):
        mx.export_function(str(tmp_path / "f.mlxfn"), lambda x: sl.l1_loss(x, Y), X)
    with pytest.raises(ValueError, match="Not implemented for Depends"):
        mx.vmap(mx.grad(mx.checkpoint(lambda x: sl.l1_loss(x, Y))))(stack(X))
