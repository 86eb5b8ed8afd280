"""The losses beside those of PyTorch, optax and Keras: equal, but where docs/parity.md says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, NamedTuple

import keras
import ml_dtypes
import numpy as np
import optax
import pytest
import torch
from peers.calls import SUM_ULPS, ULPS, array, as_numpy, grad2, library, slopes, ulps, value

import smoothloss as sl

F, K = torch.nn.functional, keras.losses
INF, NAN = float("inf"), float("nan")
DTYPES = ["float32", "float64", "float16", "bfloat16"]


class Pair(NamedTuple):
    """Two losses, the thresholds at which to compare them, and the residuals at which not.

    ``noise`` is the absolute error of their value and gradient, in epsilons of the threshold.
    """

    theirs: Callable[..., Any]
    ours: Callable[..., Any]
    thresholds: tuple[float, ...] = (1e-6, 0.1, 1.0, 1.345, 1e3)
    besides: tuple[float, ...] = ()
    noise: tuple[float, float] = (0, 0)


FINITE = Pair._field_defaults["thresholds"]
# A loss without a threshold is compared at 0 if it is linear, at infinity if it is a square.
PAIRS = [
    Pair(F.smooth_l1_loss, sl.smooth_l1_loss, (*FINITE, INF)),
    Pair(F.smooth_l1_loss, sl.smooth_l1_loss, (0.0,), besides=(NAN,)),
    Pair(F.huber_loss, sl.huber_loss, (*FINITE, INF)),
    Pair(F.l1_loss, sl.l1_loss, (0.0,), besides=(NAN,)),
    Pair(F.mse_loss, sl.mse_loss, (INF,)),
    # Its gradient is t - (t - r).
    Pair(optax.huber_loss, sl.huber_loss, FINITE, noise=(0, 4)),
    Pair(optax.huber_loss, sl.huber_loss, (0.0,), besides=(INF, -INF)),
    Pair(optax.l2_loss, sl.huber_loss, (INF,)),
    Pair(optax.squared_error, sl.mse_loss, (INF,)),
    # The others' log-cosh is a difference of logarithms.
    Pair(optax.log_cosh, sl.log_cosh_loss, (1.0,), noise=(4, 8)),
    Pair(K.huber, sl.huber_loss, (0.0, *FINITE), besides=(INF, -INF)),
    Pair(K.mean_absolute_error, sl.l1_loss, (0.0,), besides=(0.0, NAN)),
    Pair(K.mean_squared_error, sl.mse_loss, (INF,)),
    Pair(K.log_cosh, sl.log_cosh_loss, (1.0,), besides=(-INF,), noise=(4, 8)),
]


def named(pair: Pair) -> str:
    return f"{library(pair.theirs)}-{pair.theirs.__name__}-{len(pair.thresholds)}"


PROMOTING = [p for p in PAIRS if library(p.theirs) != "keras" and p.theirs is not F.huber_loss]
TORCH = [pair for pair in PAIRS if library(pair.theirs) == "torch"]
DATA = [
    pytest.param(pair, dtype, id=f"{named(pair)}-{dtype}")
    for pair in PAIRS
    for dtype in DTYPES
    if (library(pair.theirs), dtype) != ("keras", "float64")  # whose mean is of float32
]


def settings(loss: Callable[..., Any], threshold: float) -> dict[str, Any]:
    """What the loss takes of these."""
    known = {"beta": threshold, "delta": threshold, "reduction": "none"}
    return {k: v for k, v in known.items() if k in signature(loss).parameters}


def elementwise(loss: Callable[..., Any], threshold: float) -> Callable[..., Any]:
    """The loss as a function of ``(x, y)``."""
    given = settings(loss, threshold)
    if library(loss) == "keras":  # averages the last axis
        return lambda x, y: loss(y[..., None], x[..., None], **given)
    return lambda x, y: loss(x, y, **given)


def halves(threshold: float, dtype: str) -> np.ndarray:
    """Halves of residuals of both signs: 0, all sizes, infinite, NaN and around the threshold."""
    limits = ml_dtypes.finfo(dtype)
    eps, least, most = (float(v) for v in (limits.eps, limits.smallest_normal, limits.max))
    near = [min(threshold, most / 8) * v for v in (0.5, 1 - eps, 1, 1 + eps, 2)]
    sizes = np.concatenate([[0, INF, NAN], near, np.geomspace(4 * least, most / 4, 121)])
    return (np.concatenate([sizes, -sizes]) / 2).astype(dtype).astype(np.float64)


def right(pair: Pair, threshold: float, dtype: str, r: np.ndarray) -> np.ndarray:
    """Where theirs is: no square leaves the normal numbers."""
    limits, a = ml_dtypes.finfo(dtype), abs(r)
    least, most = (float(v) ** 0.5 for v in (limits.smallest_normal, limits.max))
    fits = (a == 0) | (a >= threshold) | (a > 4 * least)
    fits &= np.minimum(a, threshold) < most
    for v in pair.besides:
        fits &= r != v
    return fits | (np.isnan(r) & (not np.isnan(pair.besides).any()))


def assert_close(
    got: np.ndarray, want: np.ndarray, bound: float, fits: Any = ..., noise: float = 0
) -> None:
    free = noise * float(ml_dtypes.finfo(want.dtype).eps)
    with np.errstate(invalid="ignore"):
        beyond = ~(abs(got.astype(float) - want.astype(float)) <= free)
    assert np.where(beyond, ulps(got, want), 0)[fits].max(initial=0) <= bound


def assert_equal(
    theirs: Callable[..., Any],
    ours: Callable[..., Any],
    home: str,
    arrays: Sequence[np.ndarray],
    dtype: str,
    bound: float,
    fits: Any = ...,
    noise: tuple[float, float] = (0, 0),
) -> None:
    """The values, and the gradients of the first two arrays under a random cotangent."""
    found = []
    for f, name in ((ours, "smoothloss"), (theirs, home)):
        row = [array(name, v, dtype) for v in arrays]
        out = as_numpy(f(*row))
        assert out.dtype == dtype
        cotangent = np.random.default_rng(1).uniform(-1, 1, out.shape)
        each = slopes(name, f, row, cotangent)
        found.append([out, as_numpy(each[0]), as_numpy(each[1])])
    for got, want, free in zip(*found, (noise[0], noise[1], noise[1]), strict=True):
        assert got.shape == want.shape
        assert_close(got, want, bound, fits, free)


@pytest.mark.parametrize(("pair", "dtype"), DATA)
def test_values_and_gradients(pair: Pair, dtype: str) -> None:
    rng = np.random.default_rng(0)
    for threshold in pair.thresholds:
        t = float(np.asarray(threshold).astype(dtype))
        half = halves(t, dtype)
        x, y = rng.normal(size=(2, 200))  # whose difference is rounded
        x, y = np.concatenate([half, x]), np.concatenate([-half, y])
        theirs, ours = elementwise(pair.theirs, t), elementwise(pair.ours, t)
        fits = right(pair, t, dtype, x - y)
        assert fits.sum() > 300
        noise = tuple(n * t if n else 0 for n in pair.noise)
        assert_equal(theirs, ours, library(pair.theirs), (x, y), dtype, ULPS, fits, noise)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pair", TORCH, ids=named)
def test_second_derivatives(pair: Pair, dtype: str) -> None:
    """PyTorch's are the same, at the kink and at 0 too."""
    for threshold in pair.thresholds:
        t = float(np.asarray(threshold).astype(dtype))
        r = halves(t, dtype) * 2
        fits = right(pair, t, dtype, r) & ~np.isnan(r)
        want, got = (grad2(f, r, dtype=dtype, **settings(f, t)) for f in pair[:2])
        assert_close(got, want, 1, fits)


def data(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions, targets, never the same, and weights."""
    rng = np.random.default_rng(2)
    x, size, w = rng.normal(size=shape), rng.uniform(0.1, 5, shape), rng.uniform(0.5, 2, shape)
    return x, x + size * rng.choice([-1, 1], shape), w


SHAPES = [
    *((shape, dtype) for shape in [(), (1,), (7,), (4, 5), (2, 3, 4, 5)] for dtype in DTYPES),
    ((1000, 300), "float32"),
    ((1000, 300), "float64"),
]
WEIGHTED = [
    (F.smooth_l1_loss, False),
    *((f, weighted) for f in (F.huber_loss, F.l1_loss, F.mse_loss) for weighted in (False, True)),
]


@pytest.mark.parametrize("how", ["none", "sum", "mean"])
@pytest.mark.parametrize(("shape", "dtype"), SHAPES)
@pytest.mark.parametrize(("loss", "weighted"), WEIGHTED)
def test_reductions_of_torch(
    loss: Any, weighted: bool, shape: tuple[int, ...], dtype: str, how: str
) -> None:
    x, y, w = data(shape)
    equivalent = dict(pair[:2] for pair in TORCH)[loss]

    def theirs(x: Any, y: Any, *w: Any) -> Any:
        return loss(x, y, reduction=how, **({"weight": w[0]} if w else {}))

    def ours(x: Any, y: Any, *w: Any) -> Any:
        # It would cancel, which is an error here; F.huber_loss divides by the count.
        alone = how == "mean" and not x.ndim and loss is not F.huber_loss
        weights = w[0] if w and not alone else None
        if w and how == "mean" and loss is F.huber_loss:  # which divides by the count
            return equivalent(x, y, reduction="sum", weights=weights) / x.size
        return equivalent(x, y, reduction=how, weights=weights)

    assert_equal(theirs, ours, "torch", (x, y, w) if weighted else (x, y), dtype, SUM_ULPS)


@pytest.mark.parametrize("how", ["none", "sum"])
@pytest.mark.parametrize("pair", TORCH, ids=named)
def test_empty(pair: Pair, how: str) -> None:
    theirs, ours = (lambda x, y, f=f: f(x, y, reduction=how) for f in pair[:2])
    assert_equal(theirs, ours, "torch", (np.ones(0), np.ones(0)), "float32", 0)


# Keras averages the last axis first, and each mean has one weight. The shapes are few, since XLA
# compiles for each.
KERAS = [
    (K.MeanAbsoluteError, sl.l1_loss, (0, 0)),
    (K.MeanSquaredError, sl.mse_loss, (0, 0)),
    (K.Huber, sl.huber_loss, (0, 0)),
    (K.LogCosh, sl.log_cosh_loss, (4, 8)),
]
MEANS = ["mean", "sum_over_batch_size", "mean_with_sample_weight"]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("how", [None, "sum", *MEANS])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((4, 5), "float16"),
        ((4, 5), "bfloat16"),
        ((2, 3, 4, 5), "float32"),
        ((1000, 300), "float32"),
    ],
)
@pytest.mark.parametrize(("loss", "equivalent", "noise"), KERAS)
def test_reductions_of_keras(
    loss: Any,
    equivalent: Any,
    noise: tuple[float, float],
    shape: tuple[int, ...],
    dtype: str,
    how: str | None,
    weighted: bool,
) -> None:
    x, y, w = data(shape)
    arrays = (x, y, w[..., 0]) if weighted else (x, y)

    def theirs(x: Any, y: Any, *w: Any) -> Any:
        return loss(reduction=how, dtype=dtype)(y, x, *w)

    def ours(x: Any, y: Any, *w: Any) -> Any:
        weights = w[0][..., None] if w else None
        if how == "mean_with_sample_weight" or (how in MEANS and not w):
            return equivalent(x, y, reduction="mean", weights=weights)
        axis = -1 if how is None else None
        divisor = x.size if how in MEANS else shape[-1]
        return equivalent(x, y, reduction="sum", weights=weights, axis=axis) / divisor

    assert_equal(theirs, ours, "keras", arrays, dtype, SUM_ULPS, noise=noise)


@pytest.mark.parametrize("loss", [K.MeanAbsoluteError, K.MeanSquaredError, K.Huber])
def test_vectors_of_keras(loss: Any) -> None:
    """One axis is all one mean."""
    ours = {theirs: ours for theirs, ours, _ in KERAS}[loss]
    arrays = data((7,))[:2]
    theirs = lambda x, y: loss()(y, x)
    assert_equal(
        theirs, lambda x, y: ours(x, y, reduction="mean"), "keras", arrays, "float32", SUM_ULPS
    )


@pytest.mark.parametrize(
    "dtypes",
    [("float16", "float32"), ("float16", "bfloat16"), ("float32", "float64"), ("float16", "int32")],
)
@pytest.mark.parametrize("pair", PROMOTING, ids=named)
def test_mixed_types(pair: Pair, dtypes: tuple[str, str]) -> None:
    x, y, t = [3.0, -0.25, 7.0], [1.0, 2.0, 7.0], pair.thresholds[0]
    want, got = (value(f, x, y, dtypes, **settings(f, t)) for f in pair[:2])
    assert got.dtype == want.dtype
    assert_close(got, want, ULPS)
