"""Wrong losses, to show that the properties above would catch them.

Each mutant is a plausible slip in smooth L1's record. The check is the one of test_accuracy,
test_contract or test_transforms, run on the mutant; the true record passes it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from cases import BY_NAME, floats, nested
from oracle import exact, to_mp, ulps

import smoothloss as sl
from smoothloss import Loss
from smoothloss._engine import sums, term
from smoothloss.losses.smooth_l1 import LOSS, psi, psi_beta, rho, rho_beta

R = floats(*np.linspace(-3, 3, 41), 1e-8, 1e-5)
BETA = mx.full(R.shape, 0.7)


def run(loss: Loss) -> Callable[..., mx.array]:
    return lambda x, beta: loss(x, mx.zeros_like(x), beta, "none")


def agrees(loss: Loss) -> bool:
    """Every derivative to second order within its bound of the oracle."""
    f = run(loss)
    for order in [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)]:
        want = exact(BY_NAME["smooth_l1_loss"], order, to_mp(np.array(R)), to_mp(np.array(BETA)))
        if not ulps(nested(f, order)(R, BETA), want).max() <= 4:
            return False
    return True


def keeps_the_edges(loss: Loss) -> bool:
    f = run(loss)
    r = floats(0.0, 0.7, float("nan"), float("inf"), 2.0)
    g = mx.grad(lambda x, b: f(x, b).sum())
    first = g(r, mx.array(0.7)).tolist()
    zero = g(r, mx.array(0.0)).tolist()
    nan = np.isnan
    return (
        first[:2] == [0, 1]
        and nan(first[2])
        and first[3:] == [1, 1]
        and zero[:2] == [0, 1]
        and nan(zero[2])
        and bool(mx.isnan(f(r, mx.array(-1.0))).all())
    )


def with_(**changes: Any) -> Loss:
    return dataclasses.replace(LOSS, **changes)


def partial(*by: str, formula: Callable[..., mx.array]) -> Loss:
    """With another derivative by these names."""
    return with_(partials={**LOSS.partials, by if len(by) > 1 else by[0]: formula})


W = mx.where
MUTANTS = {
    "a missing half": with_(rho=lambda r, b: W(abs(r) < b, r * r / b, abs(r) - 0.5 * b)),
    "swapped branches": with_(rho=lambda r, b: W(abs(r) >= b, 0.5 * r * r / b, abs(r) - 0.5 * b)),
    "not minus beta/2": with_(rho=lambda r, b: W(abs(r) < b, 0.5 * r * r / b, abs(r))),
    "psi of Huber": with_(psi=lambda r, b: mx.clip(r, -b, b)),
    "psi even": with_(psi=lambda r, b: mx.abs(psi(r, b))),
    "no gradient of beta": partial("beta", formula=lambda r, b: 0 * r),
    "beta's sign": partial("beta", formula=lambda r, b: -rho_beta(r, b)),
    "curvature outside": with_(psi_prime=lambda r, b: 1 / b + 0 * r),
    "mixed sign": partial("r", "beta", formula=lambda r, b: -psi_beta(r, b)),
    "mixed lost": partial("r", "beta", formula=lambda r, b: 0 * r),
    "no curvature in beta": partial("beta", "beta", formula=lambda r, b: 0 * r),
    "cancelling psi": with_(psi=lambda r, b: ((r - b) + b) / b),
}
EDGE_MUTANTS = {
    "0/0 at beta 0": with_(psi=lambda r, b: mx.maximum(mx.minimum(r, b), -b) / b),
    "NaN to 0": with_(psi=lambda r, b: W(abs(r) < b, r / b, mx.sign(r))),
    "open kink": with_(psi=lambda r, b: W(abs(r) <= b, 0.999 * r / b, mx.sign(r))),
    "negative beta let through": with_(thresholds=[sl.Threshold("beta", low=-float("inf"))]),
}


def test_the_true_record_passes() -> None:
    assert agrees(LOSS)
    assert agrees(with_(rho=lambda r, b: rho(r, b)))
    assert keeps_the_edges(LOSS)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_formula_is_caught(name: str) -> None:
    assert not agrees(MUTANTS[name])


@pytest.mark.parametrize("name", EDGE_MUTANTS)
def test_a_wrong_edge_is_caught(name: str) -> None:
    assert not keeps_the_edges(EDGE_MUTANTS[name])


def test_a_custom_function_without_a_vmap_rule_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a gradient is silently MLX's own: 0 instead of 1/beta at 0, say."""

    original = mx.custom_function

    class NoVmap:
        def __init__(self, f: Callable[..., mx.array]) -> None:
            self.inner = original(f)
            self.vjp, self.jvp, self.vmap = self.inner.vjp, self.inner.jvp, lambda rule: rule

        def __call__(self, *row: mx.array) -> mx.array:
            return self.inner(*row)

    r = floats(0.0, 0.5)
    x = mx.stack([r, r])

    def curvature(loss: Loss) -> list[float]:
        batched = lambda x: mx.vmap(run(loss), (0, None))(x, mx.array(1.0)).sum()
        return mx.grad(lambda x: mx.grad(batched)(x).sum())(x)[0].tolist()

    assert curvature(LOSS) == [1, 1]
    fresh = with_()
    with monkeypatch.context() as patch:
        patch.setattr(term.mx, "custom_function", NoVmap)
        broken = curvature(fresh)
    assert broken != [1, 1]


@pytest.mark.cpu
def test_a_sequential_or_half_precision_sum_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 3 * 10**6
    x = mx.full((n,), 1.1)

    def error() -> float:
        return abs(sums.sum_over(x, (0,)).item() / (n * float(np.float32(1.1))) - 1)

    assert error() < 1e-6
    assert abs(mx.sum(x).item() / (n * float(np.float32(1.1))) - 1) > 1e-6
    monkeypatch.setattr(sums, "FAN", 512)
    assert error() > 1e-6
    half = mx.full((70_000,), 2, mx.float16)
    assert mx.isinf(half.sum())
