"""Sums: their accuracy, and that the way they are taken does not show."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from cases import Entry, call, fitted, floats
from oracle import as_numpy

import smoothloss as sl
from smoothloss._engine import plan, sums, term


def test_sum_of_equal_values_for_every_mantissa() -> None:
    """The worst case of sequential rounding, walked through all float32 mantissas.

    A sum of FAN**k equal values is k stages, each the sequential sum of FAN equal values.
    """
    value = (np.arange(2**23, dtype=np.uint32) + np.float32(1).view(np.uint32)).view(np.float32)
    partial = value
    for k in range(1, 8):
        stage = partial
        for _ in range(sums.FAN - 1):
            stage = stage + partial
        partial = stage
        error = np.abs(partial / sums.FAN**k / value.astype(np.float64) - 1)
        assert error.max() < 1e-6, k
    assert sums.FAN**7 > 1e8


def test_so_few_terms_that_they_are_summed_at_once() -> None:
    """Sequentially, as the CPU does it: equal values, through all float32 mantissas."""
    value = (np.arange(2**23, dtype=np.uint32) + np.float32(1).view(np.uint32)).view(np.float32)
    total, worst = value.copy(), 0.0
    for n in range(2, sums.ONCE + 1):
        total = total + value
        worst = max(worst, np.abs(total / value.astype(np.float64) / n - 1).max())
    assert worst < 7.5e-7
    x = mx.array([float(np.float32(1.1))] * sums.ONCE)
    assert sums.sum_over(x, (0,)).item() == pytest.approx(sums.ONCE * np.float32(1.1), rel=7.5e-7)


@pytest.mark.large_sums
def test_equal_values_of_odd_lengths() -> None:
    """A remainder must not be added into the partial sums of the rest."""
    rng = np.random.default_rng(0)
    lengths = [1_324_693, 3_219_151, *(10 ** rng.uniform(1.2, 6.5, 150)).astype(int)]
    for n in map(int, lengths):
        value = np.float32(1 + rng.random())
        got = sums.sum_over(mx.full((n,), float(value), mx.float32), (0,)).item()
        assert got == pytest.approx(n * float(value), rel=6e-7), (n, value)
    for n, value in ((1_324_693, 1.944962739944458), (3_219_151, 1.7221031188964844)):
        x = mx.full((n,), value)
        assert sl.l1_loss(x, mx.zeros(n)).item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("n", [17, 4096, 70_001, 1_048_576, 30_000_003])
@pytest.mark.large_sums
def test_mean_and_sum_to_1e_minus_6(n: int) -> None:
    constant = mx.full((n,), 1.1, mx.float32)
    ramp = mx.random.uniform(shape=(n,)) ** 4
    for x in (constant, ramp):
        true = float(np.array(x).astype(np.float64).sum())
        y = mx.zeros_like(x)
        assert sl.l1_loss(x, y, "sum").item() == pytest.approx(true, rel=1e-6)
        assert sl.l1_loss(x, y).item() == pytest.approx(true / n, rel=1e-6)


@pytest.mark.large_sums
def test_mean_of_1e8_elements() -> None:
    x = mx.full((10**8,), 0.7, mx.float32)
    assert sl.l1_loss(x, mx.zeros_like(x)).item() == pytest.approx(np.float32(0.7), rel=1e-6)


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 2), -1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.cpu
def test_blocks_and_the_gpu_s_sum_change_nothing(
    entry: Entry, axis: object, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond BLOCK the CPU sums in blocks of rows; a GPU sums in one go. Run both on the CPU."""
    shape = (37, 5, 6)
    monkeypatch.setattr(plan, "FEW", 0)
    entry.loss.plans.clear()
    x, y = mx.random.normal(shape), mx.random.normal(shape)
    theta = fitted(entry, mx.random.uniform(0.2, 2, (5, 1)))
    w = mx.random.uniform(shape=(37, 1, 6))
    mask = mx.random.uniform(shape=shape) < 0.7

    def run() -> list[mx.array]:
        def f(x: mx.array, w: mx.array, *theta: mx.array) -> mx.array:
            loss = call(entry, reduction=reduction, axis=axis, weights=w, where=mask)
            return (loss(x, y, *theta) ** 2).sum()

        value, grads = mx.value_and_grad(f, argnums=tuple(range(2 + len(theta))))(x, w, *theta)
        return [value, *grads]

    want = run()
    rtol = 2e-6 if entry.loss.traits.minimum == 0 else 2e-5  # where a sum may cancel
    blocks = []
    staged = sums.sum_over
    monkeypatch.setattr(sums, "sum_over", lambda v, a: blocks.append(v.shape) or staged(v, a))
    monkeypatch.setattr(sums, "BLOCK", 100)
    for got, expected in zip(run(), want, strict=True):
        assert mx.allclose(got, expected, rtol, rtol * mx.abs(expected).max().item())
    assert min(n[0] for n in blocks if len(n) == 3) < 37
    monkeypatch.setattr(sums, "on_cpu", lambda: False)
    blocks.clear()
    for got, expected in zip(run(), want, strict=True):
        assert mx.allclose(got, expected, rtol, rtol * mx.abs(expected).max().item())
    assert {n[0] for n in blocks if len(n) == 3} == {37}


@pytest.mark.parametrize("n", [sums.SMALL + 1, 100_003, 1 << 20])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.large_sums
def test_a_total_weight_summed_in_the_kernel(n: int, masked: bool) -> None:
    rng = np.random.default_rng(n)
    x, w, mask = rng.random(n), rng.random(n), rng.random(n) < 0.5
    row = [floats(*x), floats(*w)]
    where = mx.array(mask) if masked else None
    chosen = w * (mask if masked else 1)
    want = (chosen * x).sum() / chosen.sum()

    def mean(x: mx.array, w: mx.array) -> mx.array:
        return sl.l1_loss(x, mx.zeros_like(x), weights=w, where=where)

    value, grads = mx.value_and_grad(mean, argnums=(0, 1))(*row)
    assert value.item() == pytest.approx(want, rel=1e-6)
    np.testing.assert_allclose(as_numpy(grads[0]), chosen / chosen.sum(), rtol=2e-6)
    slope = (x - want) / chosen.sum() * (mask if masked else 1)
    np.testing.assert_allclose(as_numpy(grads[1]), slope, atol=2e-6 / chosen.sum())


def test_a_gpu_converts_float16_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """There the conversion is free, and the residual would be a temporary and a kernel more."""
    n = 2 * sums.FEW  # of fewer it does not matter
    x, y = mx.ones((n,), mx.float16), mx.zeros((n,), mx.float16)
    for cpu in (True, False):
        monkeypatch.setattr(term, "on_cpu", lambda cpu=cpu: cpu)
        f = mx.compile(mx.value_and_grad(lambda x, y: sl.huber_loss(x, y, reduction="sum")))
        mx.export_to_dot(str(tmp_path / "graph.dot"), *f(x, y))
        assert ('"CompiledAsTypeAsTypeSubtract"' in (tmp_path / "graph.dot").read_text()) == cpu
        assert f(x, y)[0].item() == n / 2


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.large_sums
def test_second_derivatives_in_a_shared_weight_are_summed_as_well(masked: bool) -> None:
    """A mean does not depend on a weight that all share: what cancels must cancel at scale."""
    n = 1_000_000
    x, y, shared = mx.random.normal((n,)), mx.zeros(n), mx.array([0.7])
    where = mx.random.uniform(shape=(n,)) < 0.6 if masked else None

    def mean(x: mx.array, w: mx.array) -> mx.array:
        return sl.mse_loss(x, y, weights=w, where=where)

    def mixed(x: mx.array) -> mx.array:
        return 1.3 * mx.grad(mean, argnums=1)(x, shared)[0]  # 1.3: sums of ones are exact

    size = mx.abs(mx.grad(mean)(x, shared)).max() * 1.3 / 0.7
    assert (mx.abs(mx.grad(mixed)(x)).max() / size).item() < 1e-6
