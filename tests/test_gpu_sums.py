"""Sums on a GPU: the stages of the library over MLX's orders of summation, simulated."""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import gpu_sums
import mlx.core as mx
import numpy as np
import pytest
from gpu_sums import Backend, Equal

import smoothloss as sl
from smoothloss._engine import plan, sums

BACKENDS = [pytest.param(f, id=f.__name__) for f in (gpu_sums.metal, gpu_sums.cuda)]
MOST = 8e-7

ALL = [65, 4096, 4097, 16_384, 16_385, 32_768, 33_280, 100_000, 126_977, 266_239, 1_324_693]
ALL += [10**7, 2**24, 2**24 + 1, 30_000_003, 10**8, 2**28 + 1]
SHAPES = [((n,), (0,)) for n in ALL]
SHAPES += [((1000, 1000), (0, 1)), ((1, 10**6), (1,)), ((10**6, 1), (0,)), ((50, 1, 70), (0, 1, 2))]
SHAPES += [((8, 3, 64), (0, 2)), ((300, 3, 48), (0, 2))]
SHAPES += [
    ((3, n), (1,)) for n in (48, 49, 64, 65, 1024, 16_384, 16_385, 10**5, 262_144, 10**6, 10**7 + 3)
]
SHAPES += [((40_000, 4000), (1,)), ((1000, 40_000), (1,)), ((4, 25, 10**5), (2,))]
SHAPES += [
    ((n, c), (0,))
    for n in (31, 1024, 1025, 32_767, 10**5, 10**6 + 1, 10**7)
    for c in (2, 5, 10, 64)
]
SHAPES += [((n, 1024), (0,)) for n in (257, 1024, 10**5)] + [((4096, 40_000), (0,))]
SHAPES += [((7, n, c), (1,)) for n in (1000, 10**5 + 7, 10**6) for c in (3, 32, 5000)]
SHAPES += [((n, 3, m), (0, 2)) for n, m in ((10**5, 8), (8, 10**5), (1000, 1000), (5, 9))]
SHAPES += [((n, 3, 2, m), (0, 2)) for n, m in ((10**5, 8), (40, 10**5))]
SHAPES += [((2, n, 3, m, 4), (1, 3)) for n, m in ((10**5, 8), (1000, 1000))]


@functools.cache
def values() -> np.ndarray:
    """Mantissas: the worst of those that are walked for each number of terms, and random ones."""
    c = np.linspace(1, 2, 1 << 17, endpoint=False, dtype=np.float32)
    c += np.float32(2**-23) * np.random.default_rng(0).integers(0, 64, c.size, dtype=np.int32)
    total, worst = c.copy(), []
    for k in range(2, 65):
        total = total + c
        worst.append(c[np.argmax(np.abs(total / c.astype(np.float64) / k - 1))])
    return np.unique(
        np.array([*worst, *c[:: 1 << 10], 1.1, 1.4, 2 - 2**-23, 1 + 2**-23], np.float32)
    )


def error(x: Equal, axes: Sequence[int]) -> float:
    """The largest relative error of the sum of equal values."""
    got = sums.sum_over(x, axes)
    assert got.shape == tuple(n for a, n in enumerate(x.shape) if a not in axes)
    return off(got.values, x.values, math.prod(x.shape[a] for a in axes))


def off(got: np.ndarray, value: np.ndarray, n: int) -> float:
    """The relative error of the sum of ``n`` equal values, the largest."""
    return float(np.abs(got.astype(np.float64) / n / value.astype(np.float64) - 1).max())


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sums, plan):
        monkeypatch.setattr(module, "on_cpu", lambda: False)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("shape", "axes"), SHAPES, ids=str)
def test_equal_values(
    backend: Backend, shape: tuple[int, ...], axes: tuple[int, ...], gpu: None
) -> None:
    """The worst of data: each addition errs alike."""
    assert error(Equal(backend, shape, values()), axes) < MOST


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("shape", "axes", "least"),
    [((3, 10**6), (1,), 1e-5), ((10**6, 64), (0,), 3e-6), ((10**5, 3, 8), (0, 2), 3e-6)],
)
def test_the_simulation_sees_what_one_stage_would_do(
    backend: Backend,
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    least: float,
    gpu: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ROW", "COLUMN", "ONCE"):
        monkeypatch.setattr(sums, name, 1 << 40)
    some = np.append(values()[::10], np.float32(1.03))
    assert error(Equal(backend, shape, some), axes) > least


def test_one_stage_of_mlx_is_not_enough_for_a_whole_array() -> None:
    for backend, n in ((gpu_sums.metal, 2**24), (gpu_sums.cuda, 10**5)):
        c = np.array([1.4140699], np.float32)
        assert off(Equal(backend, (n,), c).sum((0,)).values, c, n) > 1.2e-6


@pytest.fixture(params=BACKENDS)
def simulated(request: pytest.FixtureRequest, gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of arrays in the order of a GPU."""

    def total(
        x: mx.array, axes: int | Sequence[int] | None = None, *, keepdims: bool = False
    ) -> mx.array:
        over = range(x.ndim) if axes is None else [axes] if isinstance(axes, int) else axes
        out = gpu_sums.summed(request.param, np.array(x), tuple(over))
        kept = [1 if a in over else n for a, n in enumerate(x.shape)]
        return mx.array(out).reshape(kept) if keepdims else mx.array(out)

    monkeypatch.setattr(mx.array, "sum", total)


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2)])
@pytest.mark.parametrize("shape", [(3, 100_003, 5), (70_001, 3, 4), (2, 3, 200_000), (5, 7, 9)])
def test_a_mean_of_losses(
    simulated: None, shape: tuple[int, ...], axis: int | tuple[int, ...] | None
) -> None:
    rng = np.random.default_rng(0)
    r = rng.standard_normal(shape).astype(np.float32)
    w = rng.random(shape, np.float32)
    x = mx.array(r)
    r, w = r.astype(np.float64), w.astype(np.float64)
    got = sl.mse_loss(x, mx.zeros_like(x), axis=axis)
    np.testing.assert_allclose(np.array(got), (r * r).mean(axis), rtol=1e-6)
    got = sl.mse_loss(x, mx.zeros_like(x), axis=axis, weights=mx.array(w, mx.float32))
    want = (w * r * r).sum(axis) / w.sum(axis)
    np.testing.assert_allclose(np.array(got), want, rtol=1e-6)


@pytest.mark.parametrize("u", [lambda r: r * r, abs, lambda r: r**4])
@pytest.mark.parametrize("shape", [(3_000_017,), (2, 1_500_007)])
def test_many_random_losses(
    simulated: None, shape: tuple[int, ...], u: Callable[[np.ndarray], np.ndarray]
) -> None:
    x = u(np.random.default_rng(1).standard_normal(shape, np.float32))
    axes = (x.ndim - 1,)
    got = np.array(sums.sum_over(mx.array(x), axes))
    np.testing.assert_allclose(got, x.sum(-1, dtype=np.float64), rtol=3e-7)


@pytest.mark.parametrize(
    ("shape", "axes", "most"),
    [
        ((sums.ROW,), (0,), 1),
        ((128, sums.ONCE), (1,), 1),
        ((128, 65), (1,), 1),
        ((64,), (0,), 1),
        ((128, 128), (0, 1), 1),
        ((7, sums.ROW), (1,), 1),
        ((sums.COLUMN, 300), (0,), 1),
        ((30, 17, 900), (1,), 1),
        ((1 << 17,), (0,), 2),
        ((100_000,), (0,), 3),
        ((4096, 300), (0,), 2),
    ],
)
def test_kernels(
    shape: tuple[int, ...], axes: tuple[int, ...], most: int, gpu: None, tmp_path: Path
) -> None:
    """Small sums are one; of others, a remainder takes one more, and an addition."""
    mx.export_to_dot(str(tmp_path / "sum.dot"), sums.sum_over(mx.ones(shape), axes))
    text = (tmp_path / "sum.dot").read_text()
    assert text.count('"Sum"') <= most
    assert text.count('"Add"') == (most == 3)


def test_a_total_weight_is_not_sliced(gpu: None, tmp_path: Path) -> None:
    """Without mx.compile each slice would be a kernel."""
    n = 1 << 20
    assert n > sums.SMALL
    out = sums.summed_in_kernel(lambda w, unit: w * unit, [mx.ones(n), mx.array(0.5)], (0,))
    mx.export_to_dot(str(tmp_path / "sum.dot"), out)
    text = (tmp_path / "sum.dot").read_text()
    assert text.count('"Multiply"') == 1
    assert '"Slice"' not in text
    assert out.item() == n / 2
