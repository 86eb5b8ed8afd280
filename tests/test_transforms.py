"""Every MLX transform keeps the derivatives written by hand.

Called on a loss whose "derivatives" are marks that no differentiation of its rho could give, so a
transform that lost one of them would show. test_transforms_of_losses.py checks real numbers.
"""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from cases import same_bits
from oracle import as_numpy

import smoothloss as sl

PSI, RHO_T, PSI_R, PSI_T, RHO_TT = 7.0, 11.0, 13.0, 17.0, 23.0


def mark(value: float) -> Callable[..., mx.array]:
    return lambda r, t: mx.full(r.shape, value)  # also shows that a formula may ignore t


MARKED = sl.Loss(
    "marked",
    lambda r, t: r * r * t,
    thresholds=[sl.Threshold("t", default=2.0)],
    psi=mark(PSI),
    psi_prime=mark(PSI_R),
    partials={"t": mark(RHO_T), ("r", "t"): mark(PSI_T), ("t", "t"): mark(RHO_TT)},
)
N = 6
X, Y, T = mx.arange(N) * 0.5, mx.ones(N), mx.ones(N) * 2.0
ROWS = 4


def marked(x: mx.array, y: mx.array, t: object = 2.0, reduction: str = "none", **kw) -> mx.array:
    return MARKED(x, y, t, reduction, **kw)


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


def test_documented_limits_of_mlx_still_stand(tmp_path: Path) -> None:
    """When one of these works, the README's note on it can go."""
    shapeless = mx.compile(lambda x: sl.l1_loss(x, Y), shapeless=True)
    with pytest.raises(ValueError, match="CustomTransforms"):
        mx.eval(shapeless(X))
    with pytest.raises(ValueError, match="CustomTransforms"):
        mx.export_function(str(tmp_path / "f.mlxfn"), lambda x: sl.l1_loss(x, Y), X)
    checkpointed = mx.grad(mx.checkpoint(lambda x: sl.l1_loss(x, Y)))
    with pytest.raises(ValueError, match="Not implemented for Depends"):
        mx.vmap(checkpointed)(stack(X))
    with pytest.raises(ValueError, match="Not implemented for Depends"):
        mx.jvp(checkpointed, [X], [X])
